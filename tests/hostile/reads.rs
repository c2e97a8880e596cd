//! Scripts that look for what is not theirs, and write where they may not.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{CALLS, PRIVILEGES, SEES};
use crate::support::{Host, script};

#[test]
fn neither_the_agents_state_nor_its_token_nor_anybodys_home_is_seen() {
    let mut host = Host::start(&[]);
    let token = host.home.file("token", "secret", 0o644);
    let state = host.home.path("state");
    let mut job = script("python3", SEES);
    let paths = [
        &token,
        &state,
        "/root",
        "/home",
        "/run",
        "/var",
        "/etc/shadow",
        "/etc/passwd",
        "/proc/1/root/etc",
    ];
    job["inputData"]["args"] = json!(paths);
    assert_eq!(host.result(&job)["seen"], json!([]));
    host.goes_on();
}

#[test]
fn the_environment_holds_nothing_of_the_agents() {
    let mut host = Host::start(&[]);
    let text = "import json, os; print(json.dumps({'result': {'env': sorted(os.environ)}}))";
    let names = [
        "HOME",
        "LANG",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "PYTHONUNBUFFERED",
        "TMPDIR",
        "USER",
        "WORKER_INPUT_DIR",
        "WORKER_JOB_ID",
        "WORKER_OUTPUT_DIR",
    ];
    let result = host.result(&script("python3", text));
    let env = result["env"].as_array().unwrap();
    assert!(env.iter().all(|name| names.contains(&name.as_str().unwrap())), "{env:?}");
    host.goes_on();
}

#[test]
fn no_other_process_is_seen_and_none_can_be_signalled() {
    let mut host = Host::start(&[]);
    let text = r"
import json, os, sys
seen = [pid for pid in os.listdir('/proc') if pid.isdigit()]
tells = [open(f'/proc/{pid}/cmdline').read() for pid in seen]
hit = []
for pid in [int(sys.argv[1]), -int(sys.argv[1])]:
    try:
        os.kill(pid, 9)
        hit.append(pid)
    except OSError:
        pass
print(json.dumps({'result': {'hit': hit, 'worker': ['worker' in tell for tell in tells].count(True)}}))
try:
    os.kill(-1, 9)
except OSError:
    pass
";
    let mut job = script("python3", text);
    job["inputData"]["args"] = json!([host.worker.pid().to_string()]);
    let result = host.result(&job);
    assert_eq!([&result["hit"], &result["worker"]], [&json!([]), &json!(0)]);
    host.goes_on();
}

#[test]
fn there_is_no_network_and_the_backend_on_the_loopback_is_not_reached() {
    let mut host = Host::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let text = r"
import json, socket, sys
reached = []
for place in sys.argv[1:]:
    name, port = place.rsplit(':', 1)
    try:
        socket.create_connection((name, int(port)), 2)
        reached.append(place)
    except OSError:
        pass
print(json.dumps({'result': {'reached': reached, 'there': [name for _, name in socket.if_nameindex()]}}))
";
    let mut job = script("python3", text);
    let backend = host.backend.url().trim_start_matches("http://").to_owned();
    let ours = listener.local_addr().unwrap().to_string();
    job["inputData"]["args"] = json!([backend, ours, "1.1.1.1:53", "localhost:80"]);
    let result = host.result(&job);
    assert_eq!([&result["reached"], &result["there"]], [&json!([]), &json!(["lo"])]);
    assert!(listener.accept().is_err(), "nobody has called");
    host.goes_on();
}

#[test]
fn nothing_outside_of_its_own_folders_is_written() {
    let mut host = Host::start(&[]);
    let text = r"
import json, os, sys
wrote = []
for path in sys.argv[1:]:
    try:
        open(path, 'w').write('harm')
        wrote.append(path)
    except OSError:
        pass
for path in ('/dev/sda', '/dev/mem', '/dev/kmsg'):
    if os.path.exists(path):
        wrote.append(path)
print(json.dumps({'result': {'wrote': wrote}}))
";
    let outside = host.home.path("outside");
    let mut job = script("python3", text);
    let paths = [
        &outside,
        "/harm",
        "/usr/harm",
        "/usr/bin/env",
        "/etc/ld.so.preload",
        "/etc/harm",
        "/input/harm",
        "/code/script",
        "/dev/harm",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj_x",
    ];
    job["inputData"]["args"] = json!(paths);
    assert_eq!(host.result(&job)["wrote"], json!([]));
    assert!(!fs::exists(&outside).unwrap());
    host.goes_on();
}

#[test]
fn privileges_are_neither_kept_nor_gained() {
    let mut host = Host::start(&[]);
    let result = host.result(&script("python3", PRIVILEGES));
    assert_eq!(result["done"], json!([]));
    assert_eq!([&result["uid"], &result["has"], &result["new"]], [65534, 0, 1]);
    assert_eq!(host.result(&script("python3", CALLS))["done"], json!([]));
    host.goes_on();
}

#[test]
fn a_link_in_the_output_folder_leads_nowhere() {
    let mut host = Host::start(&[]);
    let secret = host.home.file("secret", r#"{"stolen": true}"#, 0o644);
    for text in [
        format!("ln -s {secret} /output/result.json"),
        format!(
            "ln -s {secret} /output/a; echo '{{\"artefacts\": [{{\"path\": \"a\"}}]}}' > /output/result.json"
        ),
        format!("mkdir /output/d; ln -s /etc /output/d/e; ln -s {secret} /output/s"),
    ] {
        let completion = host.run(&script("bash", &text));
        assert!(!completion.to_string().contains("stolen"), "{completion:#}");
        let kept = fs::read_dir(host.home.path("state/artefacts")).into_iter().flatten().flatten();
        let kept = kept.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
        assert!(!kept.into_iter().any(|text| text.contains("stolen")));
    }
    assert!(fs::read_to_string(&secret).unwrap().contains("stolen"), "it is where it was");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o644);
    host.goes_on();
}
