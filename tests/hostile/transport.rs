//! HTTP, TLS, names and proxies gone wrong, on purpose or not: the next heartbeat is good again.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::{Backend, Home, Program, Reply, WORKER, short};
use crate::tls;

const BEAT: &str = "POST /api/providers/*/heartbeat";
const GOOD: &str = r#"{"success":true,"pendingJobs":[]}"#;

/// The agent's most memory, whatever it was answered.
const PEAK_KIB: u64 = 48 << 10;

fn raw(head: &str, body: impl AsRef<[u8]>) -> Reply {
    Reply::Raw([format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body.as_ref()].concat())
}

fn ok(headers: &str, body: impl AsRef<[u8]>) -> Reply {
    raw(&format!("200 OK\r\n{headers}"), body)
}

fn sized(headers: &str) -> Reply {
    ok(&format!("Content-Length: {}\r\n{headers}", GOOD.len()), GOOD)
}

fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    gzip.write_all(text.as_ref()).unwrap();
    gzip.finish().unwrap()
}

fn gzipped(body: &[u8]) -> Reply {
    ok(&format!("Content-Encoding: gzip\r\nContent-Length: {}", body.len()), body)
}

/// Answers a heartbeat with each of these in turn. After each the worker beats on, takes a job and does it.
fn survives(attacks: Vec<(&str, Reply)>) {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &["--request-timeout", "2s"]);
    for (n, (what, reply)) in attacks.into_iter().enumerate() {
        let id = format!("good-{n}");
        backend.next(BEAT, [reply]);
        backend.wait_beats(1);
        backend.offer(&[short(&id)]);
        let complete = format!("POST /api/jobs/{id}/complete");
        let done = backend.wait(&format!("a job after {what}"), |seen| {
            seen.iter().find(|request| request.call == complete).cloned()
        });
        assert_eq!(done.body["status"], "completed", "{what}");
        assert!(worker.peak_kib() < PEAK_KIB, "{what}: it took {} KiB", worker.peak_kib());
    }
    worker.stop();
}

#[test]
fn bodies_that_do_not_keep_to_http_are_survived() {
    let chunked = "Transfer-Encoding: chunked";
    let length = GOOD.len();
    survives(vec![
        (
            "a body that drips",
            Reply::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{ ".into()),
        ),
        (
            "a body that does not come",
            Reply::Held(std::time::Duration::from_secs(3), Box::new(Reply::HangUp)),
        ),
        ("a body cut short", ok("Content-Length: 10000", GOOD)),
        ("a chunk of -1", ok(chunked, "-1\r\nx\r\n")),
        ("a chunk of 2^64", ok(chunked, "ffffffffffffffffff\r\nx\r\n")),
        ("a chunk of 2^63", ok(chunked, "7fffffffffffffff\r\nx\r\n")),
        ("chunks without an end", ok(chunked, format!("{length:x}\r\n{GOOD}\r\n"))),
        ("a chunk extension of 1 MB", ok(chunked, format!("1;{}\r\nx\r\n", "e".repeat(1 << 20)))),
        ("a length and chunks", sized(chunked)),
        ("two lengths", ok(&format!("Content-Length: 3\r\nContent-Length: {length}"), GOOD)),
        ("a length of -1", ok("Content-Length: -1", GOOD)),
        ("a length of 2^70", ok("Content-Length: 1180591620717411303424", GOOD)),
        ("a length of 2^63", ok("Content-Length: 9223372036854775807", GOOD)),
        ("no length", ok("Connection: close", GOOD)),
        ("a second reply behind it", sized(&format!("X: y\r\n\r\n{GOOD}HTTP/1.1 200 OK"))),
        ("gzip that is none", gzipped(GOOD.as_bytes())),
        ("gzip", gzipped(&gzip(GOOD))),
        ("gzip of gzip", gzipped(&gzip(gzip(GOOD)))),
        ("a gzip bomb", gzipped(&gzip(vec![b' '; 300 << 20]))),
    ]);
}

#[test]
fn heads_that_do_not_keep_to_http_are_survived() {
    let many = "X-Header: y\r\n".repeat(10_000);
    let long = format!("X-Header: {}", "y".repeat(1 << 20));
    survives(vec![
        ("a head that drips", Reply::Drip(b"HTTP/1.1 200 OK\r\nX: y".into())),
        ("a header of 1 MB", sized(&long)),
        ("10,000 headers", sized(many.trim_end())),
        ("NUL in a header", sized("X: a\0b")),
        ("status 0", raw("0 OK\r\nContent-Length: 2", "{}")),
        ("status 999", raw("999 OK\r\nContent-Length: 2", "{}")),
        ("HTTP 0.9", Reply::Raw(GOOD.into())),
        ("nothing", Reply::Raw(vec![])),
        ("noise", Reply::Raw((0..=255).collect())),
        ("100 for ever", Reply::Raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).into_bytes())),
        ("103 before it", Reply::Raw(format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len()).into_bytes())),
        ("an upgrade", raw("101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade", "")),
        ("204", raw("204 No Content", "")),
    ]);
}

#[test]
fn redirects_are_not_followed() {
    let other = Backend::start();
    let to = |status: &str, to: &str| {
        raw(&format!("{status} Moved\r\nContent-Length: 0\r\nLocation: {to}"), "")
    };
    let away = format!("{}/api/providers/x/heartbeat", other.url());
    survives(vec![
        ("301", to("301", &away)),
        ("302", to("302", &away)),
        ("303", to("303", &away)),
        ("307", to("307", &away)),
        ("308", to("308", &away)),
        ("a file", to("302", "file:///etc/passwd")),
        ("control characters", to("302", "http://\u{1b}[2J\u{7f}/")),
    ]);
    assert_eq!(other.calls(), [""; 0]);
}

#[test]
fn odd_wishes_for_another_pace_are_not_followed() {
    let later =
        |value: &str| raw(&format!("503 \r\nContent-Length: 2\r\nRetry-After: {value}"), "{}");
    survives(vec![
        ("-5", later("-5")),
        ("NaN", later("NaN")),
        ("1e308", later("1e308")),
        ("0", later("0")),
        ("a date long past", later("Fri, 01 Jan 1960 00:00:00 GMT")),
        ("a date that is none", later("Fri, 99 Foo 9999 99:99:99 GMT")),
    ]);
    let (home, backend) = (Home::new(), Backend::start());
    let odd =
        ["0", "-1", "1e308", "1e999", "NaN", "\"5\"", "4999", "600001", "[[]]", "null", "0.0001"];
    let reply = |ms: &&str| {
        Reply::json(
            200,
            format!(r#"{{"success":true,"pendingJobs":[],"heartbeatIntervalMs":{ms}}}"#),
        )
    };
    backend.next(BEAT, odd.iter().map(reply).collect::<Vec<_>>());
    let mut worker = home.worker(&backend.url(), &[]);
    // At the pace that its owner gave.
    backend.wait_for(BEAT, odd.len() + 1);
    worker.stop();
    assert_eq!(worker.count("backend in trouble"), 0);
    assert_eq!(worker.count("heartbeat reply: its heartbeatIntervalMs"), odd.len() - 1);
}

#[test]
fn only_a_certificate_of_that_name_and_time_and_use_is_believed() {
    let plain = Backend::start().url().replace("http://127.0.0.1", "https://localhost");
    let (own, authority) = (tls::serve("own.pem"), tls::serve("own-authority.pem"));
    let mut workers = vec![];
    for (what, url, trusted, said) in [
        ("its own", own.clone(), Some("own.pem"), "registered"),
        ("one of an authority", tls::serve("server.pem"), Some("ca.pem"), "registered"),
        ("its own, not given", own.clone(), None, "UnknownIssuer"),
        ("its own, another given", own, Some("ca.pem"), "UnknownIssuer"),
        ("expired", tls::serve("expired.pem"), Some("expired.pem"), "certificate expired"),
        (
            "of the future",
            tls::serve("future.pem"),
            Some("future.pem"),
            "certificate not valid yet",
        ),
        (
            "of another name",
            tls::serve("elsewhere.pem"),
            Some("elsewhere.pem"),
            "not valid for name",
        ),
        (
            "for clients",
            tls::serve("client.pem"),
            Some("client.pem"),
            "does not allow extended key usage",
        ),
        (
            "an authority's",
            authority.clone(),
            Some("own-authority.pem"),
            "the server shows the certificate of an authority as its own: make it anew as a server's, with \
             openssl req -x509 -addext basicConstraints=critical,CA:FALSE, and give that as --ca-cert",
        ),
        ("an authority's, not given", authority, None, "certificate of an authority as its own"),
        ("no TLS at all", plain, None, "backend unreachable"),
    ] {
        let home = Home::new();
        let file = trusted.map(tls::file);
        let trusted: Vec<&str> = file.iter().flat_map(|file| ["--ca-cert", file]).collect();
        let worker = home.worker(&url, &trusted);
        workers.push((what, home, worker, said));
    }
    for (what, _home, mut worker, said) in workers {
        let line = worker.wait_log(said);
        worker.stop();
        let registered = worker.count("INFO  registered") + worker.count("registered");
        assert_eq!(registered > 0, said == "registered", "{what}: {line}");
    }
}

#[test]
fn a_proxy_gone_wrong_is_an_outage() {
    let (hang, garbage, page) = (Backend::start(), Backend::start(), Backend::start());
    let (asks, endless, plain) = (Backend::start(), Backend::start(), Backend::start());
    let hour = std::time::Duration::from_secs(3600);
    for (proxy, reply) in [
        (&hang, Reply::Held(hour, Box::new(Reply::HangUp))),
        (&garbage, Reply::Raw((0..=255).collect())),
        (&page, raw("302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0", "")),
        (&asks, raw("407 Proxy Authentication Required\r\nContent-Length: 0", "")),
        (&endless, Reply::Drip(b"HTTP/1.1 200 OK\r\nX: y".into())),
        (&plain, raw("200 Connection established", "this is not TLS")),
    ] {
        proxy.answer("CONNECT *", move |_| Some(reply.clone()));
    }
    let mut workers = vec![];
    for (what, proxy) in [
        ("hangs", hang.url()),
        ("garbage", garbage.url()),
        ("redirects", page.url()),
        ("wants a password", asks.url()),
        ("endless head", endless.url()),
        ("no TLS behind it", plain.url()),
        ("no proxy's URL", "http://[::".into()),
    ] {
        let home = Home::new();
        let args = ["--backend", "https://backend.invalid", "--request-timeout", "2s"];
        let state = home.path("state");
        let args = [&args[..], &["--state-dir", &state]].concat();
        let worker = Program::start_at(WORKER, &args, &[("HTTPS_PROXY", &proxy)]);
        workers.push((what, home, worker));
    }
    for (what, _home, mut worker) in workers {
        worker.wait_log("backend unreachable, trying on");
        assert!(worker.is_running(), "{what}");
        assert!(worker.peak_kib() < PEAK_KIB, "{what}");
        worker.stop();
    }
}

#[test]
fn names_that_do_not_exist_are_an_outage_and_addresses_of_version_6_are_not() {
    let home = Home::new();
    let mut worker = home.worker("http://backend.invalid", &[]);
    worker.wait_log("backend unreachable, trying on");
    worker.stop();
    let (home, backend) = (Home::new(), Backend::start_at("::1".parse().unwrap()));
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    worker.stop();
}
