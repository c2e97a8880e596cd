//! Scripts that want all the processes there are, ends at odd moments, and signals that nobody should send.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use super::{BOMB, living};
use crate::support::{Host, Request, SCRIPTS, script};

/// Starts threads, which count like processes and cost less, until there are no more, and tells so.
const FULL: &str = "
import threading, time
threading.stack_size(64 << 10)
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
except RuntimeError:
    pass
print('{\"progress\": 50, \"operation\": \"full\"}', flush=True)
time.sleep(1000)
";

/// Starts a hundred processes, all at once.
const HUNDRED: &str = "
import json, os, time
pids = []
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
    pids.append(pid)
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print(json.dumps({'result': {'started': len(pids)}}))
";

#[test]
fn a_script_that_takes_all_its_processes_takes_none_of_anothers() {
    let more = ["--slots", "2", "--progress-interval", "1s"];
    let Some(mut host) = Host::start_limited(&more) else { return };
    let full = host.offer(&script("python3", FULL));
    let report = format!("POST /api/jobs/{full}/progress");
    host.backend.wait("the script to be full", |requests| {
        let is_full = |request: &Request| request.body["currentOperation"] == "full";
        requests.iter().find(|request| request.is(&report) && is_full(request)).map(|_| ())
    });
    assert_eq!(host.result(&script("python3", HUNDRED))["started"], 100);
    host.goes_on();
}

#[test]
fn a_fork_bomb_does_not_hold_up_the_agents_end() {
    let mut host = Host::start(&["--limit-memory", "512MiB"]);
    let mut bomb = script("python3", BOMB);
    bomb["inputData"]["args"] = json!(["4242101"]);
    let id = host.offer(&bomb);
    host.backend.wait_for(&format!("POST /api/jobs/{id}/progress"), 1);
    // The second cancels what runs.
    host.worker.signal(Signal::TERM);
    host.worker.wait_log("stopping");
    host.worker.signal(Signal::TERM);
    assert_eq!(host.worker.wait(), 0);
    assert_eq!(living("4242101"), [""; 0]);
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_no_script_behind() {
    let mut host = Host::start(&[]);
    let text = "trap '' TERM HUP; setsid -f sleep 4242102; while :; do sleep 4242102; done";
    for beats in [0, 1, 2] {
        let id = host.offer(&script("bash", text));
        host.backend.wait_for(&format!("POST /api/jobs/{id}/progress"), 1);
        host.backend.wait_beats(beats);
        host.worker.kill();
        host.worker = host.home.worker(&host.backend.url(), &SCRIPTS);
        assert_eq!(host.completion(&id)["errorDetails"]["reason"], "lost");
        assert_eq!(living("4242102"), [""; 0]);
    }
    host.goes_on();
}

/// What a program of a script's finds blocked and ignored.
const DEAF: &str = r#"
found=$(grep -E '^Sig(Blk|Ign):' /proc/self/status | tr -s '\t\n' '  ')
echo "{\"result\": {\"found\": \"$found\"}}"
"#;

#[test]
fn a_signal_that_means_nothing_ends_nobody_and_is_ignored_by_no_script() {
    let mut host = Host::start(&[]);
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::PIPE,
        Signal::XFSZ,
        Signal::POWER,
        Signal::STKFLT,
        Signal::WINCH,
        Signal::URG,
        Signal::CHILD,
        Signal::CONT,
    ] {
        host.worker.signal(signal);
        host.backend.wait_beats(1);
        assert!(host.worker.is_running(), "{signal:?} ended it");
    }
    let found = host.result(&script("bash", DEAF))["found"].as_str().unwrap().to_owned();
    let [blocked, ignored] = ["SigBlk:", "SigIgn:"].map(|name| signals(&found, name));
    // What whoever started the tests ignores is ignored by all.
    let ours = signals(&fs::read_to_string("/proc/self/status").unwrap(), "SigIgn:");
    assert_eq!((blocked, ignored & !ours), (0, 0), "{found}");
}

/// But for the two that the C library keeps to itself.
fn signals(status: &str, name: &str) -> u64 {
    let mut words = status.split_whitespace().skip_while(|word| *word != name);
    u64::from_str_radix(words.nth(1).unwrap(), 16).unwrap() & !(3 << 31)
}

#[test]
fn settings_that_are_read_again_thousands_of_times_are_read_again() {
    let mut host = Host::start(&[]);
    for _ in 0..5000 {
        host.worker.signal(Signal::HUP);
    }
    host.worker.wait_log("settings read again");
    host.goes_on();
}
