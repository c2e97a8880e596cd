//! The wall clock is set while the worker runs, or was never set at all.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{Backend, Home, Program, WORKER, endless, short};
use crate::tls;

const DAY: i64 = 86_400;

/// A library that makes the wall clock go wrong. Whoever can link Rust has the compiler for it.
#[expect(clippy::disallowed_methods, reason = "a compiler that hangs is nobody's fault here")]
fn wall_clock(home: &Home) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/wall_clock.c");
    let library = home.path("wall_clock.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &library, source])
        .stdin(Stdio::null())
        .status();
    assert!(built.expect("a C compiler: Rust links with it").success());
    library
}

/// In one step, so that it is never read half written.
#[expect(clippy::disallowed_methods, reason = "no power failure is to be survived")]
fn set(home: &Home, wrong_by: i64) {
    let new = home.file("new", &wrong_by.to_string(), 0o600);
    fs::rename(new, home.path("wrong-by")).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a test of the wall clock")]
fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// How many days off ours the clock is that a time stamp was read from.
fn days_off(timestamp: &str) -> i64 {
    let time = humantime::parse_rfc3339(timestamp).unwrap();
    let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let off = i64::try_from(since.as_secs()).unwrap() - now();
    (off + DAY / 2).div_euclid(DAY)
}

#[test]
fn a_clock_that_begins_in_1970_and_jumps_by_days_disturbs_nothing() {
    let (home, backend) = (Home::new(), Backend::start());
    let (library, wrong_by) = (wall_clock(&home), home.path("wrong-by"));
    let in_1970 = 1000 - now();
    set(&home, in_1970);
    backend.offer(&[endless("long")]);
    let env = [("LD_PRELOAD", &*library), ("WALL_CLOCK_WRONG_BY", &*wrong_by)];
    let mut worker = home.worker_with(&backend.url(), &["--slots", "2"], &env);
    backend.wait_for("POST /api/jobs/long/progress", 1);
    for (n, wrong_by) in [in_1970, 0, DAY, 0, -DAY, in_1970].into_iter().enumerate() {
        set(&home, wrong_by);
        let name = format!("job-{n}");
        backend.offer(&[endless("long"), short(&name)]);
        let complete = backend.wait_for(&format!("POST /api/jobs/{name}/complete"), 1).body;
        assert_eq!(complete["status"], "completed");
        let timestamp = complete["timestamp"].as_str().unwrap();
        assert_eq!(days_off(timestamp), (wrong_by + DAY / 2).div_euclid(DAY));
        let beat = backend.wait_beats(2).body;
        assert_eq!(beat["currentJobs"][0], "long", "it runs on, within its time");
    }
    assert_eq!(backend.requests("POST /api/providers/register").len(), 1);
    assert_eq!(backend.requests("POST /api/jobs/long/complete").len(), 0);
    assert_eq!([worker.count("WARN"), worker.count("ERROR")], [0, 0]);
    worker.kill();
    assert_eq!(home.ledger().len(), 6);
}

#[test]
fn a_clock_before_1970_is_warned_of_and_panics_nowhere() {
    let (home, backend) = (Home::new(), Backend::start());
    let (library, wrong_by) = (wall_clock(&home), home.path("wrong-by"));
    let env = [("LD_PRELOAD", &*library), ("WALL_CLOCK_WRONG_BY", &*wrong_by)];
    set(&home, -now() - 3650 * DAY);
    backend.offer(&[short("job-1")]);
    let mut worker = home.worker_with(&backend.url(), &["--max-jobs", "1"], &env);
    let complete = backend.wait_for("POST /api/jobs/job-1/complete", 1).body;
    assert_eq!(complete["status"], "completed");
    assert_eq!(complete["timestamp"], "1970-01-01T00:00:00.000Z");
    assert_eq!(worker.wait(), 0, "{}", worker.log());
    assert_eq!([worker.count("WARN"), worker.count("stands before 1970")], [1, 1]);
    let state = home.path("state");
    for (args, code) in [
        (["status"].as_slice(), 6),
        (&["jobs"], 0),
        (&["earnings"], 0),
        (&["logs", "job-1"], 0),
        (&["specs"], 0),
        (&["pause", "--for", "1h"], 0),
        (&["resume"], 0),
        (&["doctor", "--backend", &backend.url()], 0),
    ] {
        let args = [args, &["--state-dir", &state]].concat();
        let mut command = Program::start_at(WORKER, &args, &env);
        let ended = command.wait();
        assert!(!command.log().contains("panicked"), "{args:?}: {}", command.log());
        // What doctor has to say of this machine is not of the clock.
        assert!(ended == code || args[0] == "doctor", "{args:?}: {ended} {}", command.log());
    }
}

#[test]
fn a_backend_behind_tls_is_reached_when_a_clock_before_1970_is_set() {
    let home = Home::new();
    let (library, wrong_by) = (wall_clock(&home), home.path("wrong-by"));
    let env = [("LD_PRELOAD", &*library), ("WALL_CLOCK_WRONG_BY", &*wrong_by)];
    set(&home, -now() - DAY);
    let (url, ca) = (tls::serve("server.pem"), tls::file("ca.pem"));
    let mut worker = home.worker_with(&url, &["--ca-cert", &ca], &env);
    worker.wait_log("the clock of this machine stands before 1970: set it");
    set(&home, 0);
    worker.wait_log("registered");
    worker.stop();
}
