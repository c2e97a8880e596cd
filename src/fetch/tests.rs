//! What is kept of what a server sends, against one of the test's own.

use std::io::BufRead as _;
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;

use ureq::tls::TlsConfig;

use super::net::{agent_for, is_public};
use super::*;

const HELLO: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";

/// What became of a download from a server that sends each of these once, the last one again and again.
struct Tried {
    kept: Result<Vec<u8>, String>,
    /// The heads of the requests.
    seen: Vec<String>,
}

fn fetched(reply: &[u8], sha256: Option<&str>) -> Result<Vec<u8>, String> {
    tried(&[reply], sha256).kept
}

fn tried(replies: &[&[u8]], sha256: Option<&str>) -> Tried {
    tried_by(&agent(true, TlsConfig::default()), replies, sha256)
}

fn tried_by(agent: &Agent, replies: &[&[u8]], sha256: Option<&str>) -> Tried {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/file?token=secret");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let serve = || {
        let mut seen = vec![];
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            if request.first().is_none_or(|line| line == "stop") {
                return seen;
            }
            let reply = replies.get(seen.len()).or_else(|| replies.last()).unwrap();
            seen.push(request.join("\n").to_lowercase());
            // Whoever has heard enough may be gone.
            stream.write_all(reply).ok();
        }
    };
    let (done, seen) = thread::scope(|scope| {
        let server = scope.spawn(serve);
        let wanted = Wanted { url: &url, sha256, token: None, bytes_max: BYTES_MAX };
        let done = fetch(agent, wanted, &path, &mut |_, _| {});
        std::net::TcpStream::connect(address).unwrap().write_all(b"stop\n\n").unwrap();
        (done, server.join().unwrap())
    });
    let kept = match done {
        Ok(()) => Ok(std::fs::read(&path).unwrap()),
        Err(Error::Theirs(error)) => {
            let (shown, _) = url.split_once('?').unwrap();
            Err(error.strip_prefix(&format!("cannot download {shown}: ")).unwrap().to_owned())
        }
        Err(Error::Ours(error)) => panic!("{error}"),
    };
    Tried { kept, seen }
}

fn reply(length: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

#[test]
fn a_file_is_kept_if_it_is_whole_and_has_the_hash() {
    let whole = reply("Content-Length: 12", "hello world\n");
    assert_eq!(fetched(&whole, None), Ok(b"hello world\n".to_vec()));
    assert_eq!(fetched(&whole, Some(HELLO)), Ok(b"hello world\n".to_vec()));
    let other = "0".repeat(64);
    assert_eq!(
        fetched(&whole, Some(&other)),
        Err(format!("its sha256 is {HELLO}, the job says {other}"))
    );
    let chunked = reply("Transfer-Encoding: chunked", "c\r\nhello world\n\r\n0\r\n\r\n");
    assert_eq!(fetched(&chunked, Some(HELLO)), Ok(b"hello world\n".to_vec()));
}

#[test]
fn a_file_that_ends_too_early_is_none() {
    for cut in [
        reply("Content-Length: 13", "hello world\n"),
        reply("Transfer-Encoding: chunked", "c\r\nhello"),
        reply("Transfer-Encoding: chunked", "c\r\nhello world\n\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
        vec![],
    ] {
        let told = fetched(&cut, None);
        let times = told.as_ref().is_err_and(|told| told.ends_with(", 5 times"));
        assert!(times, "{told:?} of {}", String::from_utf8_lossy(&cut));
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let told = fetched(&reply("Content-Length: 99999999999999", ""), None);
    assert_eq!(told, Err("it has 90.9 TiB, the most is 10 GiB".into()));
}

#[test]
fn what_a_server_says_instead_is_told() {
    let told = fetched(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", None);
    assert_eq!(told, Err("the server answered 403".into()));
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_ended() {
    let cut = reply("Content-Length: 12\r\nETag: \"v1\"", "hello ");
    let rest = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 6-11/12\r\n\
                 Content-Length: 6\r\nConnection: close\r\n\r\nworld\n";
    let Tried { kept, seen } = tried(&[&cut, rest], Some(HELLO));
    assert_eq!(kept, Ok(b"hello world\n".to_vec()));
    assert!(seen[1].contains("range: bytes=6-"), "{}", seen[1]);
    assert!(seen[1].contains("if-range: \"v1\""), "{}", seen[1]);
}

#[test]
fn a_download_that_cannot_go_on_begins_anew() {
    let whole = reply("Content-Length: 12", "hello world\n");
    let tagged = reply("Content-Length: 13\r\nETag: \"v1\"", "HELLO ");
    let untagged = reply("Content-Length: 13\r\nETag: W/\"v1\"", "HELLO ");
    let wrong = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-11/12\r\n\
                  Content-Length: 12\r\nConnection: close\r\n\r\nhello world\n";
    let gone = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".as_slice();
    for replies in [
        vec![tagged.as_slice(), &whole],
        vec![&untagged, &whole],
        vec![&tagged, wrong, &whole],
        vec![&tagged, gone, &whole],
    ] {
        assert_eq!(tried(&replies, Some(HELLO)).kept, Ok(b"hello world\n".to_vec()));
    }
    assert!(!tried(&[&untagged, &whole], None).seen[1].contains("range:"));
}

#[test]
fn a_busy_server_is_asked_again_and_one_that_refuses_is_not() {
    let whole = reply("Content-Length: 1", "x");
    let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".as_slice();
    let none =
        b"HTTP/1.1 404 Gone\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone".as_slice();
    assert_eq!(tried(&[busy, busy, &whole], None).kept, Ok(b"x".to_vec()));
    let Tried { kept, seen } = tried(&[none, &whole], None);
    assert_eq!((kept, seen.len()), (Err("the server answered 404".into()), 1));
}

#[test]
fn a_body_without_an_end_is_cut_at_the_bound() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let serve = || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n"].concat();
        stream.write_all(head).unwrap();
        while stream.write_all(&chunk).is_ok() {}
    };
    thread::scope(|scope| {
        scope.spawn(serve);
        let agent = agent(true, TlsConfig::default());
        let wanted = Wanted { url: &url, sha256: None, token: None, bytes_max: 1 << 20 };
        let file = tempfile::tempfile().unwrap();
        let done = fetch_into(&agent, wanted, &file, &mut |_, _| {});
        let told = format!("cannot download {url}: it has more, the most is 1 MiB");
        assert_eq!(done, Err(Error::Theirs(told)));
        assert!(file.metadata().unwrap().len() <= 1 << 20);
    });
}

#[test]
fn a_redirect_leads_to_no_private_network() {
    let only_one: fn(IpAddr) -> bool = |address| address == Ipv4Addr::LOCALHOST;
    let agent = agent_for(only_one, TlsConfig::default());
    for (elsewhere, told) in [
        ("http://127.0.0.2/secret", "127.0.0.2 is on a private network"),
        ("//127.0.0.2/secret", "127.0.0.2 is on a private network"),
        ("http://[::ffff:127.0.0.2]/", "is on a private network"),
        ("http://[::1]/", "is on a private network"),
        ("http://10.1.2.3/", "10.1.2.3 is on a private network"),
        ("http://169.254.169.254/latest", "169.254.169.254 is on a private network"),
        ("http://0.0.0.0/", "0.0.0.0 is on a private network"),
        ("http://2130706434/", "is on a private network"),
        ("http://0x7f000002/", "is on a private network"),
        ("http://user:pw@127.0.0.2/", "is on a private network"),
        ("file:///etc/passwd", ""),
        ("ftp://127.0.0.1/", ""),
        ("gopher://127.0.0.1:70/", ""),
    ] {
        let reply =
            format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n");
        let kept = tried_by(&agent, &[reply.as_bytes()], None).kept;
        assert!(kept.as_ref().is_err_and(|error| error.contains(told)), "{elsewhere}: {kept:?}");
    }
}

#[test]
fn a_token_goes_to_the_server_it_is_for_and_no_further() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let serve_second = || {
        let (mut stream, _) = second.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        stream.write_all(&reply("Content-Length: 1", "x")).unwrap();
        head.join("\n").to_lowercase()
    };
    let first = || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let elsewhere = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:{port}/b\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(elsewhere.as_bytes()).unwrap();
        head.join("\n").to_lowercase()
    };
    thread::scope(|scope| {
        let (first, second) = (scope.spawn(first), scope.spawn(serve_second));
        let url = format!("http://127.0.0.1:{port}/a");
        let wanted = Wanted { url: &url, sha256: None, token: Some("secret"), bytes_max: 10 };
        let file = tempfile::tempfile().unwrap();
        let agent = agent(true, TlsConfig::default());
        assert_eq!(fetch_into(&agent, wanted, &file, &mut |_, _| {}), Ok(1));
        assert!(first.join().unwrap().contains("authorization: bearer secret"));
        assert!(!second.join().unwrap().contains("secret"));
    });
}

#[test]
fn a_disk_that_cannot_keep_the_file_is_no_fault_of_the_servers() {
    let wanted =
        Wanted { url: "http://127.0.0.1:1/file", sha256: None, token: None, bytes_max: BYTES_MAX };
    let agent = agent(true, TlsConfig::default());
    let done = fetch(&agent, wanted, Path::new("/nowhere/file"), &mut |_, _| {});
    let told = "cannot keep http://127.0.0.1:1/file: No such file or directory (os error 2)";
    assert_eq!(done, Err(Error::Ours(told.into())));
}

#[test]
fn nothing_secret_of_a_url_is_shown() {
    for (url, wanted) in [
        ("https://me:secret@a.example/b?c=secret#d", "https://a.example/b"),
        ("http://a.example?secret", "http://a.example"),
        ("http://a.example/b@c", "http://a.example/b@c"),
        ("http://me:se@cret@[::1]:80/x", "http://[::1]:80/x"),
    ] {
        assert_eq!(shown(url), wanted);
    }
}

#[test]
fn an_address_of_no_public_network_is_none() {
    for private in [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001:0:7f00:1::80ff:fffe",
        "2001:1ff::1",
        "3fff:fff::1",
        "::127.0.0.1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2001:200::1",
        "3fff:1000::1",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}
