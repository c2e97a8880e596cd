//! Words that nobody but us and the backend may know.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::page::{address, get};
use crate::support::{Backend, Home, Reply, run, script};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

const TOKEN: &str = "t0ken/of+ours:so-secret";
/// As it stands in URLs, and in base64.
const FORMS: [&str; 4] = [
    TOKEN,
    "t0ken%2Fof%2Bours%3Aso-secret",
    "t0ken%2fof%2bours%3aso-secret",
    "dDBrZW4vb2Yrb3Vyczpzby1zZWNyZXQ",
];

#[track_caller]
fn assert_silent(what: &str, text: &str) {
    for form in FORMS {
        assert!(!text.contains(form), "{what} holds {form}: {text}");
    }
}

/// All that is in a folder.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

#[test]
fn a_token_that_the_backend_sends_back_is_neither_shown_nor_stored() {
    let (home, backend) = (Home::new(), Backend::start());
    let token = home.file("token", TOKEN, 0o600);
    let error = |status, said: &str| {
        Reply::json(status, json!({"success": false, "error": said}).to_string())
    };
    let page =
        |said: &str| Reply::Whole { status: 502, content_type: "text/html", body: said.into() };
    let moved =
        format!("HTTP/1.1 302 \r\nLocation: http://x/?a={}\r\nContent-Length: 0\r\n\r\n", FORMS[1]);
    // A page longer than what is shown of it, with the token where that ends.
    let long = format!("<p>{}", TOKEN.repeat(20));
    let mut replies = vec![page(&long), page(TOKEN), Reply::Raw(moved.into_bytes())];
    replies.extend(FORMS.map(|form| error(500, &format!("Authorization: Bearer {form}, refused"))));
    replies.extend(FORMS.map(|form| error(200, form)));
    let said = replies.len();
    backend.next(REGISTER, [error(503, TOKEN)]);
    backend.next(BEAT, replies);
    backend.offer(&[crate::support::short("job-1")]);
    backend.next("POST /api/jobs/job-1/complete", [error(413, TOKEN)]);
    let env = [("RUST_LOG", "trace")];
    let more = ["--token-file", &token, "--listen", "127.0.0.1:0", "--max-failures", "1000"];
    let mut worker = home.worker_with(&backend.url(), &more, &env);
    let addr = address(&worker);
    for beat in 1..=said {
        backend.wait_for(BEAT, beat);
        for path in ["/", "/status.json", "/readyz", "/metrics"] {
            assert_silent(path, &get(&addr, path).1);
        }
    }
    backend.wait_for("POST /api/jobs/job-1/complete", 1);
    let state = home.path("state");
    backend.always(BEAT, error(500, TOKEN));
    worker.wait_log("[secret]");
    assert_silent("status", &run(&["status", "--state-dir", &state]).1);
    let doctor = run(&["doctor", "--backend", &backend.url(), "--token-file", &token]);
    assert_silent("doctor", &doctor.1);
    worker.kill();
    assert_silent("the log", &worker.log());
    for (name, text) in files(state.as_ref()) {
        assert_silent(&name, &text);
    }
}

#[test]
fn a_proxys_password_comes_neither_into_the_log_nor_to_a_job() {
    let (home, backend) = (Home::new(), Backend::start());
    let url = backend.url().replace("http://", "http://someone:pr0xy-pass@");
    let env: Vec<(&str, &str)> = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy"]
        .map(|name| (name, url.as_str()))
        .into();
    let env = [env, vec![("RUST_LOG", "trace"), ("PATH", "/usr/bin:/bin")]].concat();
    // Reached by way of the proxy, which refuses.
    let mut away = home.worker_with("http://market.invalid", &["--listen", "127.0.0.1:0"], &env);
    let addr = address(&away);
    backend.wait("a request to the proxy", |seen| {
        seen.iter().find(|request| request.header("proxy-authorization").is_some()).cloned()
    });
    away.wait_log("market.invalid");
    let ready = get(&addr, "/readyz").1;
    away.kill();
    let mut job = script("bash", "env; tr '\\0' '\\n' </proc/$PPID/environ; exit 1");
    job["id"] = json!("job-1");
    backend.offer(&[job]);
    let mut worker = home.worker_with(&backend.url(), &["--allow", "script"], &env);
    let said = backend.wait_for("POST /api/jobs/job-1/complete", 1).body.to_string();
    assert!(said.contains("WORKER_OUTPUT_DIR"), "{said}");
    worker.kill();
    for text in [ready, away.log(), worker.log(), said] {
        for form in ["pr0xy-pass", "c29tZW9uZTpwcjB4eS1wYXNz"] {
            assert!(!text.contains(form), "{form} in {text}");
        }
    }
}

#[test]
fn a_token_is_in_no_argument_and_in_no_environment() {
    let (home, backend) = (Home::new(), Backend::start());
    let token = home.file("token", TOKEN, 0o600);
    backend.offer(&[crate::support::endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--token-file", &token]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let children = worker.children();
    assert!(!children.is_empty());
    for pid in children.into_iter().chain([worker.pid()]) {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert_silent(file, &String::from_utf8_lossy(&text));
        }
    }
    worker.kill();
}

#[test]
fn a_token_file_that_is_none_is_refused_without_showing_it() {
    let home = Home::new();
    let refused = |what: &str, file: &str| {
        let (code, _, log) = run(&[
            "run",
            "--backend",
            "http://127.0.0.1:1",
            "--token-file",
            file,
            "--state-dir",
            &home.path("state"),
        ]);
        assert_eq!(code, 2, "{what}: {log}");
        assert!(log.contains("token file"), "{what}: {log}");
        assert!(!log.contains("s3cr3t"), "{what}: {log}");
    };
    for (what, content, mode) in [
        ("for all to read", "s3cr3t-token", 0o644),
        ("for a group to read", "s3cr3t-token", 0o640),
        ("for others to read", "s3cr3t-token", 0o604),
        ("empty", "", 0o600),
        ("two words", "s3cr3t token\n", 0o600),
        ("two lines", "s3cr3t\ntoken\n", 0o600),
        ("a header more", "s3cr3t\r\nX-Evil: 1", 0o600),
        ("a control character", "s3cr3t\0\n", 0o600),
        ("not ASCII", "s3cr3t\u{202e}\n", 0o600),
    ] {
        refused(what, &home.file("token", content, mode));
    }
    let fifo = home.path("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    refused("a pipe", &fifo);
    refused("a device", "/dev/zero");
    refused("a folder", &home.path("state"));
    refused("not there", &home.path("nothing"));
}
