//! Servers that a job names: none of a private network is reached, and none holds the worker up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::reason;
use crate::support::{Backend, Home, Host, Program, WORKER, script};

/// What a resolver says of these names, as `/etc/hosts` has it.
const HOSTS: &str = "127.0.0.1 localhost evil.example\n::1 localhost\n127.0.0.1 mix.example\n\
    192.0.2.1 mix.example\n::ffff:127.0.0.1 mapped.example\n169.254.169.254 meta.example\n";

/// A worker for which names are what a hostile server of names would say: in a namespace of mounts of its own.
fn deceived(home: &Home, url: &str) -> Program {
    let hosts = home.file("hosts", HOSTS, 0o644);
    let state = home.path("state");
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let args = [
        &["-r", "-m", "/bin/sh", "-c", script, &hosts, WORKER, "run"][..],
        &["--backend", url, "--state-dir", &state, "--heartbeat-interval", "1s", "--min-free", "0"],
        &["--allow", "script"],
    ];
    Program::start_at("/usr/bin/unshare", &args.concat(), &[])
}

#[test]
fn nothing_of_a_private_network_is_reached_however_it_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "evil.example",
        "mix.example",
        "mapped.example",
        "meta.example",
        "user:pw@127.0.0.1",
        "localhost.",
        "LOCALHOST",
        "127.0.0.1%00.example",
        "[fe80::1%25lo]",
        "[::1%25lo]",
    ];
    let mut urls: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}/")).collect();
    urls.push(format!("http://127.0.0.1:{port}@evil.example:{port}/"));
    urls.push(format!("http://127.0.0.1:{port}#@example.com/"));
    urls.push("http://169.254.169.254/latest/meta-data/".into());
    urls.push("http://10.1.2.3/".into());
    let training = |url: &String| {
        json!({"jobType": "training", "computeNeeded": 1, "timeoutSeconds": 20,
        "inputData": {"dataset": {"url": url}, "epochs": 1}})
    };
    let own = format!("http://localhost:{port}/");
    let mut jobs: Vec<Value> = urls.iter().map(training).collect();
    let mut others = [script("bash", "true"), script("bash", "true"), script("bash", "echo x > a")];
    others[0]["inputData"] = json!({"scriptUrl": own, "interpreter": "bash"});
    others[1]["inputData"]["inputs"] = json!([{"url": own, "path": "x"}]);
    others[2]["inputData"]["outputs"] = json!([{"path": "a", "put": {"url": own}}]);
    jobs.extend(others);
    let (home, backend) = (Home::new(), Backend::start());
    for (n, job) in jobs.iter_mut().enumerate() {
        job["id"] = json!(format!("job-{n}"));
    }
    backend.offer(&jobs);
    let mut worker = deceived(&home, &backend.url());
    for (n, job) in jobs.iter().enumerate() {
        let told = backend.wait_for(&format!("POST /api/jobs/job-{n}/complete"), 1).body;
        let expected = ["download_failed", "upload_failed", "declined"];
        assert!(expected.contains(&reason(&told)), "{job}: {told:#}");
        assert_eq!(told["errorDetails"]["blame"], "job", "{job}: {told:#}");
        assert!(!told.to_string().contains("user:pw"), "{told:#}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody has called");
    worker.stop();
}

/// A server that answers each connection by its path, in a thread of its own.
fn serve(answer: fn(&str, &mut TcpStream) -> std::io::Result<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accept = move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let serve = move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
                // Whoever has heard enough is gone.
                answer(path, &mut stream).ok();
            };
            thread::Builder::new().name("connection".into()).spawn(serve).unwrap();
        }
    };
    thread::Builder::new().name("server".into()).spawn(accept).unwrap();
    url
}

fn head(stream: &mut TcpStream, more: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n{more}\r\n")
}

/// The same again and again, with a pause between, until nobody listens.
fn again_and_again(stream: &mut TcpStream, what: &[u8], pause: Duration) -> std::io::Result<()> {
    loop {
        stream.write_all(what)?;
        thread::park_timeout(pause);
    }
}

fn packed(mib: usize, byte: u8) -> Vec<u8> {
    let mut gz = GzEncoder::new(vec![], Compression::fast());
    for _ in 0..mib {
        gz.write_all(&vec![byte; 1 << 20]).unwrap();
    }
    gz.finish().unwrap()
}

fn misbehave(path: &str, stream: &mut TcpStream) -> std::io::Result<()> {
    let redirect = |stream: &mut TcpStream, status: u16, to: &str| {
        write!(
            stream,
            "HTTP/1.1 {status} x\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    match path {
        "/endless" => {
            head(stream, "")?;
            again_and_again(stream, &vec![b'1'; 1 << 20], Duration::from_millis(20))
        }
        "/drip" => {
            head(stream, "Content-Length: 1000000\r\n")?;
            again_and_again(stream, b"1", Duration::from_millis(100))
        }
        "/slow-head" => again_and_again(stream, b"H", Duration::from_millis(100)),
        "/endless-head" => {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            again_and_again(stream, b"X-Header: value\r\n", Duration::ZERO)
        }
        "/silent" => again_and_again(stream, b"", Duration::from_millis(100)),
        "/too-long" => {
            head(stream, "Content-Length: 100\r\n")?;
            stream.write_all(b"short")
        }
        "/too-short" => {
            head(stream, "Content-Length: 3\r\n")?;
            stream.write_all(b"a,b\n1,x\n")
        }
        "/10-gib" => head(stream, "Content-Length: 10737418240\r\n"),
        "/10-gib-and-one" => head(stream, "Content-Length: 10737418241\r\n"),
        "/encoded" => {
            let body = packed(300, 0);
            head(stream, &format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", body.len()))?;
            stream.write_all(&body)
        }
        "/rows.csv.gz" => {
            let body = packed(180, b'\n');
            head(stream, &format!("Content-Length: {}\r\n", body.len()))?;
            stream.write_all(&body)
        }
        "/one-field.csv.gz" => {
            let body = packed(600, b'x');
            head(stream, &format!("Content-Length: {}\r\n", body.len()))?;
            stream.write_all(&body)
        }
        "/wrong-place" => write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 7-9/10\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        ),
        "/loop" => redirect(stream, 302, "/loop"),
        "/file" => redirect(stream, 302, "file:///etc/passwd"),
        "/gopher" => redirect(stream, 302, "gopher://127.0.0.1:70/"),
        "/split" => redirect(stream, 302, "/a\r\nX-Evil: 1"),
        "/secret" => redirect(stream, 302, "/nothing?signature=hidden"),
        "/put" => redirect(stream, 307, "/elsewhere"),
        _ => write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    }
}

#[test]
fn no_server_holds_the_worker_up_or_makes_it_keep_more_than_it_may() {
    let url = serve(misbehave);
    let mut host = Host::start(&["--allow-private-downloads", "--slots", "4"]);
    let input = |path: &str| {
        let mut job = script("bash", "true");
        job["inputData"]["inputs"] = json!([{"url": format!("{url}{path}"), "path": "x"}]);
        job
    };
    let dataset = |path: &str| {
        json!({"jobType": "training", "computeNeeded": 1,
               "inputData": {"dataset": {"url": format!("{url}{path}")}, "epochs": 1}})
    };
    let model = |path: &str| {
        json!({"jobType": "inference", "computeNeeded": 1, "inputData":
               {"model": {"url": format!("{url}{path}")}, "input": {"inline": "WzFd"}}})
    };
    let mut put = script("bash", "echo x > a");
    put["inputData"]["outputs"] = json!([{"path": "a", "put": {"url": format!("{url}/put")}}]);
    let mut code = script("bash", "");
    code["inputData"] = json!({"scriptUrl": format!("{url}/endless"), "interpreter": "bash"});
    let mut attacks: Vec<(String, Value)> = vec![("put".into(), put), ("code".into(), code)];
    for path in [
        "/endless",
        "/drip",
        "/slow-head",
        "/endless-head",
        "/silent",
        "/too-long",
        "/10-gib",
        "/10-gib-and-one",
        "/wrong-place",
        "/loop",
        "/file",
        "/gopher",
        "/split",
        "/secret",
    ] {
        attacks.push((format!("input {path}"), input(path)));
    }
    for path in ["/endless", "/drip", "/too-short", "/encoded", "/rows.csv.gz", "/one-field.csv.gz"]
    {
        attacks.push((format!("dataset {path}"), dataset(path)));
    }
    for path in ["/endless", "/one-field.csv.gz"] {
        attacks.push((format!("model {path}"), model(path)));
    }
    for (_, job) in &mut attacks {
        job["timeoutSeconds"] = json!(4);
    }
    let jobs: Vec<Value> = attacks.iter().map(|(_, job)| job.clone()).collect();
    for ((what, _), told) in attacks.iter().zip(host.run_all(&jobs)) {
        assert_eq!(told["status"], "failed", "{what}: {told:#}");
        assert_eq!(told["errorDetails"]["blame"], "job", "{what}: {told:#}");
        assert!(!told.to_string().contains("hidden"), "{what}: {told:#}");
    }
    host.goes_on();
    assert!(!host.worker.log().contains("fail here one after the other"));
}
