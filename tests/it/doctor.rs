//! `worker doctor` against set-ups that are broken in one way each: it finds that, says how to put it right,
//! and finds nothing else.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Mock, Program, Reply, Reserved, Stream, WORKER, run};
use crate::tls;

const ASK: &str = "GET /api/jobs/worker-doctor";

/// What doctor says of this state directory and these settings.
fn checks(home: &Home, args: &[&str], env: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let state = home.path("state");
    let all = [&["doctor", "--json", "--min-free", "0", "--state-dir", &state], args].concat();
    let mut doctor = Program::start_at(WORKER, &all, env);
    let code = doctor.wait();
    assert_eq!(doctor.log(), "");
    let told: Value = serde_json::from_str(&doctor.text(Stream::Out)).unwrap();
    (code, told["checks"].as_array().unwrap().clone())
}

/// The one thing that is wrong: its check, what it is, and how to put it right.
#[track_caller]
fn only_finding(home: &Home, args: &[&str], env: &[(&str, &str)]) -> [String; 3] {
    let (code, checks) = checks(home, args, env);
    let bad: Vec<&Value> = checks.iter().filter(|check| check["verdict"] != "ok").collect();
    let [finding] = bad[..] else { panic!("{bad:#?}") };
    assert_eq!((code, &finding["verdict"]), (1, &json!("fail")), "{finding:#}");
    let text = |name: &str| finding[name].as_str().unwrap().to_owned();
    [text("name"), text("what"), text("fix")]
}

#[track_caller]
fn finds(home: &Home, args: &[&str], expected: [&str; 3]) {
    finds_with(home, args, &[], expected);
}

#[track_caller]
fn finds_with(home: &Home, args: &[&str], env: &[(&str, &str)], expected: [&str; 3]) {
    let found = only_finding(home, args, env);
    assert_eq!(found[0], expected[0], "{found:?}");
    assert!(found[1].contains(expected[1]) && found[2].contains(expected[2]), "{found:?}");
}

#[test]
fn in_a_good_set_up_there_is_nothing_to_put_right() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let mut worker = home.worker(&mock.url(), &[]);
    mock.wait_beats(1);
    let token = home.file("token", "s3cret\n", 0o600);
    let (code, checks) = checks(&home, &["--backend", &mock.url(), "--token-file", &token], &[]);
    let bad: Vec<&Value> = checks.iter().filter(|check| check["verdict"] != "ok").collect();
    assert_eq!((code, bad.len()), (0, 0), "{bad:#?}");
    worker.stop();
    let state = home.path("state");
    let args = ["doctor", "--backend", &mock.url(), "--state-dir", &state, "--min-free", "0"];
    let (code, told, _) = run(&args);
    assert_eq!((code, told.contains("checks: nothing to put right")), (0, true), "{told}");
}

#[test]
fn a_backend_that_is_not_there() {
    let url = Reserved::new().url();
    finds(&Home::new(), &["--backend", &url], ["backend", "refused", "nothing listens there"]);
}

#[test]
fn a_backend_whose_name_nobody_knows() {
    let url = ["--backend", "http://backend.invalid"];
    finds(&Home::new(), &url, ["backend", "backend.invalid", "getent hosts backend.invalid"]);
}

#[test]
fn a_certificate_of_an_unknown_authority() {
    let url = tls::serve("server.pem");
    finds(&Home::new(), &["--backend", &url], ["backend", "UnknownIssuer", "--ca-cert FILE"]);
    let trusted = tls::file("ca.pem");
    let (code, _) = checks(&Home::new(), &["--backend", &url, "--ca-cert", &trusted], &[]);
    assert_eq!(code, 0);
}

#[test]
fn a_certificate_that_has_expired() {
    let (url, own) = (tls::serve("expired.pem"), tls::file("expired.pem"));
    let args = ["--backend", &url, "--ca-cert", &own];
    finds(&Home::new(), &args, ["backend", "expired", "have the certificate of localhost renewed"]);
}

#[test]
fn a_certificate_of_another_name() {
    let (url, own) = (tls::serve("elsewhere.pem"), tls::file("elsewhere.pem"));
    let args = ["--backend", &url, "--ca-cert", &own];
    finds(&Home::new(), &args, ["backend", "not valid for name", "give that name in --backend"]);
}

#[test]
fn tls_where_none_is_spoken() {
    let url = Mock::start(&[]);
    let url = url.url().replace("http:", "https:");
    let found = only_finding(&Home::new(), &["--backend", &url], &[]);
    assert!(found[2].contains("http"), "{found:?}");
}

#[test]
fn a_login_page_in_the_backend_s_place() {
    let backend = Backend::start();
    backend.always(ASK, Reply::html(200));
    let args = ["--backend", &backend.url()];
    finds(&Home::new(), &args, ["backend", "something else than JSON", "a login page"]);
}

#[test]
fn a_clock_that_is_off() {
    let backend = Backend::start();
    let reply = "HTTP/1.1 404 \r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
                 Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    backend.always(ASK, Reply::Raw(reply.into()));
    let args = ["--backend", &backend.url()];
    finds(&Home::new(), &args, ["clock", "ahead of the backend's", "timedatectl set-ntp true"]);
}

#[test]
fn a_token_that_others_can_read_or_that_is_none() {
    let home = Home::new();
    // One that refuses us without, which is no other finding.
    let mock = Mock::start(&["--token-file", &home.file("right", "s3cret", 0o600)]);
    let url = mock.url();
    for (text, mode, what) in
        [("s3cret", 0o644, "mode 0644 lets others read it"), ("\n", 0o600, "must hold the token")]
    {
        let file = home.file("token", text, mode);
        let args = ["--backend", &url, "--token-file", &file];
        finds(&home, &args, ["token", what, &format!("chmod 600 {file}")]);
    }
}

#[test]
fn a_token_that_the_backend_refuses_and_one_that_it_misses() {
    let home = Home::new();
    let (right, wrong) = (home.file("right", "right", 0o600), home.file("wrong", "wrong", 0o600));
    let mock = Mock::start(&["--token-file", &right]);
    let args = ["--backend", &mock.url(), "--token-file", &wrong];
    finds(&home, &args, ["backend", "refuses the token: 401", "get a new token"]);
    finds(&home, &args[..2], ["backend", "wants a token: 401", "give --token-file"]);
}

#[test]
fn a_proxy_that_is_not_there() {
    let proxy = Reserved::new().url().replace("http://", "http://me:hunter2@");
    let args = ["--backend", "http://backend.invalid"];
    let env = [("HTTP_PROXY", proxy.as_str()), ("ALL_PROXY", proxy.as_str())];
    let home = Home::new();
    finds_with(&home, &args, &env, ["proxy", "does not answer", "NO_PROXY=backend.invalid"]);
    let told = only_finding(&home, &args, &env).join(" ");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_state_directory_that_came_from_another_machine() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let id = home.file("state/worker-id", "0123456789abcdef0123456789abcdef", 0o600);
    let url = mock.url();
    let args = ["--backend", &url];
    finds(&home, &args, ["worker-id", "was copied or moved", &format!("rm {id} if another")]);
    let kept = [&args[..], &["--worker-id", "0123456789abcdef0123456789abcdef"]].concat();
    assert_eq!(checks(&home, &kept, &[]).0, 0, "the fix that it names helps");
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let (home, mock) = (Home::unmeasured(), Mock::start(&[]));
    home.file("state", "a file in its place", 0o600);
    let args = ["--backend", &mock.url()];
    finds(&home, &args, ["state", "nothing can be written to", "as --state-dir"]);
}

#[test]
fn a_disk_with_too_little_room() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let args = ["--backend", &mock.url(), "--min-free", "1000000TiB"];
    let state = home.path("state");
    let (code, out, _) = run(&[&["doctor", "--state-dir", &state], &args[..]].concat());
    assert_eq!(code, 1);
    assert!(out.contains("FAIL  space") && out.contains("make room on that disk"), "{out}");
    assert!(out.contains(": 1 to put right\n"), "{out}");
}

#[test]
fn a_gpu_driver_that_is_not_there() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let args = ["--backend", &mock.url(), "--nvml-library", "/nowhere/libnvidia-ml.so.1"];
    finds(&home, &args, ["gpu", "/nowhere/libnvidia-ml.so.1", "or leave --nvml-library out"]);
}

#[test]
fn a_worker_that_runs_another_version() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let status = json!({"version": "0.0.1", "pid": std::process::id()}).to_string();
    home.file("state/status.json", &status, 0o600);
    // As long as an agent holds it.
    let lock = std::fs::File::create(home.path("state/lock")).unwrap();
    lock.lock().unwrap();
    let args = ["--backend", &mock.url()];
    finds(&home, &args, ["version", "is version 0.0.1", "systemctl restart qubix-worker"]);
}

#[test]
fn a_unit_that_starts_nothing() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    std::fs::create_dir_all(home.path("config/systemd/user")).unwrap();
    let unit = "[Service]\nExecStart=/nowhere/worker run\n";
    home.file("config/systemd/user/qubix-worker.service", unit, 0o644);
    let config = home.path("config");
    let env = [("XDG_CONFIG_HOME", config.as_str())];
    let args = ["--backend", &mock.url()];
    finds_with(&home, &args, &env, ["unit", "/nowhere/worker, which is not there", "install.sh"]);
}

#[test]
fn a_kind_of_job_that_is_allowed_and_lacks_what_it_needs() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let args = ["--backend", &mock.url(), "--allow", "container"];
    let env = [("PATH", "/nowhere")];
    finds_with(
        &home,
        &args,
        &env,
        ["container jobs", "podman or docker is not", "apt install podman"],
    );
}

#[test]
fn settings_that_cannot_be() {
    let home = Home::new();
    let file = home.file("worker.toml", "slotz = 2\n", 0o600);
    finds(&home, &["--config", &file], ["settings", "did you mean slots?", "correct these"]);
}
