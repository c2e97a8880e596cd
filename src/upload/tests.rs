//! What a storage server gets, from one of the test's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use ureq::tls::TlsConfig;

use super::*;
use crate::fetch::agent;

/// A request: its head in lower case, and its body.
type Heard = (String, Vec<u8>);

/// Uploads this to a server that answers so, the last answer again and again; and what it heard.
fn uploaded(
    form: Form,
    headers: &[(&str, &str)],
    content: &[u8],
    answers: &[&str],
) -> (Result<u16, String>, Vec<Heard>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = || {
        let mut heard: Vec<Heard> = vec![];
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines = reader.by_ref().lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let head = head.join("\n").to_lowercase();
            if head == "stop" {
                return heard;
            }
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let answer = answers.get(heard.len()).or_else(|| answers.last()).unwrap();
            heard.push((head, body));
            stream.write_all(answer.as_bytes()).ok();
        }
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let to = Upload { url: format!("http://{address}/bucket?sig=secret"), headers, form };
    thread::scope(|scope| {
        let server = scope.spawn(serve);
        let sent = Sent { file: &file, bytes: content.len() as u64, name: "a\"b.csv" };
        let done = upload(&agent(true, TlsConfig::default()), &to, sent, &mut |_| {});
        std::net::TcpStream::connect(address).unwrap().write_all(b"stop\n\n").unwrap();
        let done = done.map_err(|error| {
            let shown = format!("cannot upload to http://{address}/bucket: ");
            error.strip_prefix(&shown).unwrap().to_owned()
        });
        (done, server.join().unwrap())
    })
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_put_brings_the_file_and_its_headers() {
    let (done, heard) = uploaded(Form::Put, &[("X-Amz-Tag", "a")], b"hello", &[OK]);
    assert_eq!(done, Ok(200));
    let [(head, body)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(head.starts_with("put /bucket?sig=secret http/1.1"), "{head}");
    assert!(head.contains("x-amz-tag: a") && head.contains("content-length: 5"), "{head}");
    assert!(!head.contains("chunked"), "{head}");
    assert_eq!(body, b"hello");
}

#[test]
fn a_post_brings_a_form_with_the_file_last() {
    let fields = vec![("key".into(), "out/${filename}".into()), ("policy".into(), "p".into())];
    let (done, heard) = uploaded(Form::Post(fields), &[], b"hello", &[OK]);
    assert_eq!(done, Ok(200));
    let (head, body) = &heard[0];
    let boundary = head.split("boundary=").nth(1).unwrap().lines().next().unwrap();
    let wanted = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nout/${{filename}}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"policy\"\r\n\r\np\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%22b.csv\"\r\n\
         Content-Type: application/octet-stream\r\n\r\nhello\r\n--{boundary}--\r\n"
    );
    assert_eq!(String::from_utf8_lossy(body), wanted);
}

#[test]
fn a_busy_server_is_tried_again_with_the_whole_file() {
    for form in [Form::Put, Form::Post(vec![])] {
        let (done, heard) = uploaded(form, &[], b"hello", &[BUSY, "", OK]);
        assert_eq!((done, heard.len()), (Ok(200), 3));
        let whole = |body: &Vec<u8>| body.windows(5).any(|part| part == b"hello");
        assert!(heard.iter().all(|(_, body)| whole(body)));
    }
    let (done, heard) = uploaded(Form::Put, &[], b"x", &[BUSY]);
    assert_eq!((done, heard.len()), (Err("the server answered 503, 5 times".into()), 5));
}

#[test]
fn a_server_that_refuses_or_leads_elsewhere_is_not_tried_again() {
    let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\nConnection: close\r\n\r\n\
                   <Code>AccessDenied</Code>\r\n";
    let (done, heard) = uploaded(Form::Put, &[], b"x", &[refused]);
    let told = "the server answered 403: <Code>AccessDenied</Code>";
    assert_eq!((done, heard.len()), (Err(told.into()), 1));
    let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n\
                     Content-Length: 0\r\nConnection: close\r\n\r\n";
    let (done, heard) = uploaded(Form::Put, &[], b"x", &[elsewhere]);
    assert_eq!((done, heard.len()), (Err("the server answered 307, elsewhere".into()), 1));
}
