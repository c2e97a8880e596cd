//! The same harm, tried on a worker that is an ordinary user's: no control group bounds its scripts, which it
//! was told to put up with, and they are the same user outside of their sandbox.

use serde_json::json;

use super::{BOMB, CALLS, PRIVILEGES, SEES, living, reason};
use crate::support::{Host, script};

#[test]
fn nothing_of_the_owners_is_seen_and_no_privilege_gained() {
    let mut host = Host::start_as_user(&[]);
    let mut job = script("python3", SEES);
    let (state, home) = (host.home.path("state"), host.home.path(""));
    job["inputData"]["args"] =
        json!([state, home, "/root", "/home", "/run", "/var", "/etc/passwd"]);
    assert_eq!(host.result(&job)["seen"], json!([]));
    let result = host.result(&script("python3", PRIVILEGES));
    assert_eq!([&result["done"], &result["uid"]], [&json!([]), &json!(65534)]);
    assert_eq!([&result["has"], &result["new"]], [0, 1]);
    assert_eq!(host.result(&script("python3", CALLS))["done"], json!([]));
    host.goes_on();
}

#[test]
fn neither_processes_nor_memory_nor_disk_are_to_be_had_beyond_the_limit() {
    let mut host = Host::start_as_user(&["--limit-memory", "256MiB", "--limit-disk", "64MiB"]);
    let mut bomb = script("python3", BOMB);
    bomb["timeoutSeconds"] = json!(3);
    let failed = host.run(&bomb);
    assert!(["timeout", "out_of_memory"].contains(&reason(&failed)), "{failed:#}");
    for (interpreter, text, wanted) in [
        ("python3", "x = []\nwhile True:\n    x.append(b'x' * (1 << 20))\n", "out_of_memory"),
        ("bash", "cat /dev/zero > /tmp/x; sleep 1000", "killed_signal"),
    ] {
        let mut job = script(interpreter, text);
        job["timeoutSeconds"] = json!(40);
        let failed = host.run(&job);
        assert_eq!(reason(&failed), wanted, "{text}: {failed:#}");
    }
    host.goes_on();
}

#[test]
fn none_of_its_scripts_outlives_its_end_wherever_it_went() {
    let mut host = Host::start_as_user(&[]);
    for (text, error) in [
        (
            "setsid -f sh -c 'trap \"\" TERM HUP; sleep 4242201; sleep 4242201'; exit 3",
            "exit code 3",
        ),
        ("env -i setsid -f nohup sleep 4242201 >/dev/null 2>&1; exit 3", "exit code 3"),
        (
            "setsid -f sleep 4242201; kill -9 -1; kill -9 1; sleep 4242201",
            "timeout after 2s in stage run",
        ),
        ("trap '' TERM INT HUP; while :; do sleep 4242201; done", "timeout after 2s in stage run"),
        ("kill -STOP 1 $PPID; kill -STOP $$; sleep 4242201", "timeout after 2s in stage run"),
    ] {
        let mut job = script("bash", text);
        job["timeoutSeconds"] = json!(2);
        assert_eq!(host.run(&job)["error"], error, "{text}");
        assert_eq!(living("4242201"), [""; 0], "{text}");
    }
    host.goes_on();
}

#[test]
fn a_script_hears_that_its_time_is_over() {
    let mut host = Host::start_as_user(&[]);
    let text = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('heard')))\n\
                while True:\n    signal.pause()\n";
    let mut job = script("python3", text);
    job["timeoutSeconds"] = json!(2);
    assert_eq!(host.run(&job)["errorDetails"]["log"][0], "heard");
    host.goes_on();
}
