//! The status page of a running worker, as clients of all kinds get to see it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::{BOUND, Backend, Driver, Home, Program, Reply, endless, run, short};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

/// Where the page of this worker is.
pub(crate) fn address(worker: &Program) -> String {
    let line = worker.wait_log("status page at http://");
    line.split_once("http://").unwrap().1.to_owned()
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// Status and body; nothing if the connection was dropped.
fn ask(addr: &str, method: &str, path: &str, host: &str) -> Option<(u16, String)> {
    let mut stream = connect(addr);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().unwrap(), body.to_owned()))
}

pub(crate) fn get(addr: &str, path: &str) -> (u16, String) {
    ask(addr, "GET", path, addr).unwrap()
}

fn status(addr: &str) -> Value {
    serde_json::from_str(&get(addr, "/status.json").1).unwrap()
}

/// Asks again at every beat until it finds.
fn wait<T>(backend: &Backend, find: impl Fn() -> Option<T>) -> T {
    for _ in 0..BOUND.as_secs() {
        if let Some(found) = find() {
            return found;
        }
        backend.wait_beats(1);
    }
    panic!("asked for {BOUND:?} in vain");
}

#[test]
fn a_worker_shows_its_jobs_its_gpus_and_what_they_brought() {
    let driver = Driver::new(&json!({"driver": "580.95.05", "gpus": [{"temp": 61}, {"temp": 62}]}));
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("done"), endless("runs")]);
    let more = ["--listen", "127.0.0.1:0", "--slots", "2", "--price", "3600"];
    let mut worker = driver.worker(&home, &backend.url(), &more);
    let addr = address(&worker);
    let now = wait(&backend, || {
        let now = status(&addr);
        let is_whole = now["sinceStart"]["completed"] == 1
            && now["jobs"][0]["id"] == "runs"
            && now["usage"]["gpus"][1]["tempCelsius"] == 62.0;
        is_whole.then_some(now)
    });
    assert_eq!(now["state"], "online");
    let (code, page) = get(&addr, "/");
    assert_eq!(code, 200);
    for shown in ["<h3>runs</h3>", "<code>done</code>", "NVIDIA GeForce RTX 3090", ">62</data>"] {
        assert!(page.contains(shown), "{shown} in {page}");
    }
    let (_, metrics) = get(&addr, "/metrics");
    for sample in [
        r#"worker_jobs_total{kind="compute",status="completed"} 1"#,
        r#"worker_gpu_temperature_celsius{gpu="1",uuid="#,
        r#"worker_state{state="online"} 1"#,
        "worker_jobs_running 1",
    ] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
    assert_eq!(get(&addr, "/healthz"), (200, "ok\n".into()));
    assert_eq!(ask(&addr, "HEAD", "/", &addr), Some((200, String::new())));
    assert_eq!(ask(&addr, "POST", "/", &addr).unwrap().0, 405);
    assert_eq!(ask(&addr, "GET", "/", "rebound.example").unwrap().0, 421);
    worker.kill();
}

#[test]
fn it_is_ready_once_it_is_registered() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.always(REGISTER, Reply::json(503, r#"{"error":"not now"}"#));
    let mut worker = home.worker(&backend.url(), &["--listen", "0"]);
    let addr = address(&worker);
    backend.wait_for(REGISTER, 1);
    let (code, why) = get(&addr, "/readyz");
    assert_eq!(code, 503);
    assert!(why.starts_with("not registered"), "{why}");
    assert_eq!(get(&addr, "/healthz").0, 200, "an outage is not the worker's illness");
    let body = r#"{"success":true,"provider":{"id":"e8124ecb-0b34-4eff-a0b5-2b398b12d38a"}}"#;
    backend.always(REGISTER, Reply::json(200, body));
    backend.wait_for(BEAT, 1);
    wait(&backend, || (get(&addr, "/readyz").0 == 200).then_some(()));
    worker.stop();
    assert!(TcpStream::connect(&addr).is_err(), "the page ends with its worker");
}

#[test]
fn nobody_listens_unless_asked_to_and_others_are_let_in_only_with_a_warning() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    worker.stop();
    assert_eq!(worker.count("status page"), 0);
    let mut worker = home.worker(&backend.url(), &["--listen", "0.0.0.0:0"]);
    worker.wait_log("the status page is open to whoever reaches 0.0.0.0:");
    worker.wait_log("registered");
    worker.stop();
}

#[test]
fn a_port_that_is_taken_stops_the_start_and_says_what_to_do() {
    let (home, taken) = (Home::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let addr = taken.local_addr().unwrap().to_string();
    let (code, _, log) = run(&["run", "--state-dir", &home.path("state"), "--listen", &addr]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains(&format!("--listen: cannot listen on {addr}: ")), "{log}");
    assert!(log.contains("give another port, or 0 for a free one"), "{log}");
}

#[test]
fn clients_that_say_little_or_too_much_hold_up_nobody_for_long() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &["--listen", "0"]);
    let addr = address(&worker);
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(&addr);
            // Those beyond the bound are closed at once.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: ").ok();
            stream
        })
        .collect();
    backend.wait_beats(3);
    // Their time to finish the request runs out.
    wait(&backend, || ask(&addr, "GET", "/healthz", &addr));
    drop(slow);
    let mut huge = connect(&addr);
    // It may be refused before all of it was sent.
    huge.write_all(format!("GET /{} HTTP/1.1\r\n", "a".repeat(1 << 20)).as_bytes()).ok();
    let mut reply = String::new();
    huge.read_to_string(&mut reply).ok();
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    worker.stop();
}
