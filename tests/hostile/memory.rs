//! Scripts that want more memory than they are given.

use std::fs;

use serde_json::json;

use super::reason;
use crate::support::{Backend, Home, Host, Program, WORKER, script};

/// What takes 1 GiB and more where no process shows it as its own, or faster than anybody looks.
const HOARDS: [(&str, &str); 7] = [
    ("at once", "x = b'x' * (1 << 30)"),
    (
        "bit by bit, by many",
        "
while len(os.listdir('/proc')) < 1000 and os.fork() == 0:
    x = b'x' * (40 << 20)
",
    ),
    (
        "in a file of the memory's",
        "
f = os.memfd_create('x')
for _ in range(1500):
    os.write(f, b'x' * MIB)
",
    ),
    (
        "shared, and let go of again",
        "
for _ in range(24):
    m = mmap.mmap(-1, 64 * MIB)
    m.write(b'x' * 64 * MIB)
    m.madvise(mmap.MADV_DONTNEED)
    kept.append(m)
",
    ),
    (
        "in segments that no process has",
        "
libc.shmat.restype = ctypes.c_void_p
for _ in range(24):
    at = ctypes.c_void_p(libc.shmat(libc.shmget(0, 64 * MIB, 0o1600), None, 0))
    ctypes.memset(at, 1, 64 * MIB)
    libc.shmdt(at)
",
    ),
    (
        "in what sockets hold",
        "
for _ in range(2000):
    for end in socket.socketpair():
        end.setblocking(False)
        kept.append(end)
        try:
            while True:
                end.send(b'x' * (64 << 10))
        except BlockingIOError:
            pass
",
    ),
    (
        "in pipes",
        "
for _ in range(2000):
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, 1031, MIB)
    except OSError:
        pass
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b'x' * (64 << 10))
    except BlockingIOError:
        pass
",
    ),
];

/// It holds what it has until it is ended.
fn hoard(text: &str) -> String {
    format!(
        "import ctypes, fcntl, mmap, os, socket, time\nkept, MIB = [], 1 << 20\n\
         libc = ctypes.CDLL(None)\n{text}\ntime.sleep(1000)\n"
    )
}

#[test]
fn where_a_control_group_limits_it_no_memory_is_to_be_had_beyond_the_limit_wherever_it_is() {
    let Some(mut host) = Host::start_limited(&["--limit-memory", "100MB"]) else { return };
    for (how, text) in HOARDS {
        let mut job = script("python3", &hoard(text));
        if how == "in pipes" {
            // They are bounded by the kernel before that.
            job["timeoutSeconds"] = json!(5);
        }
        let failed = host.run(&job);
        let wanted =
            if how == "in pipes" { &["out_of_memory", "timeout"][..] } else { &["out_of_memory"] };
        assert!(wanted.contains(&reason(&failed)), "{how}: {failed:#}");
    }
    host.goes_on();
}

/// It lowers its score, tells what came of it, and hoards.
const FIRST_ANOTHER: &str = "
try:
    open('/proc/self/oom_score_adj', 'w').write('0')
except OSError:
    pass
print('score', open('/proc/self/oom_score_adj').read().strip(), flush=True)
x = b'x' * (1 << 30)
";

#[test]
fn whoever_makes_itself_the_last_to_be_killed_is_killed_at_its_own_limit() {
    for host in [
        Host::start(&["--limit-memory", "200MB"]),
        Host::start_as_user(&["--limit-memory", "200MB"]),
    ] {
        let mut host = host;
        let failed = host.run(&script("python3", &hoard(FIRST_ANOTHER)));
        assert_eq!(reason(&failed), "out_of_memory", "{failed:#}");
        host.goes_on();
    }
}

#[test]
fn a_script_whose_group_cannot_be_made_any_more_is_not_started() {
    let (home, backend) = (Home::new(), Backend::start());
    let url = backend.url();
    let state = home.path("state");
    // A place of its own for mounts, in which its groups can be closed.
    let line = [
        "--mount",
        "--propagation",
        "private",
        WORKER,
        "run",
        "--backend",
        &url,
        "--state-dir",
        &state,
        "--heartbeat-interval",
        "1s",
        "--min-free",
        "0",
        "--allow",
        "script",
    ];
    let worker = Program::start_at("/usr/bin/unshare", &line, &[]);
    worker.wait_log("registered");
    if worker.count("the memory of scripts cannot be limited") > 0 {
        return;
    }
    let place = worker.wait_log("jobs run in control groups below ");
    let place = place.rsplit(' ').next().unwrap();
    let mount = mount_of(place);
    let pid = worker.pid().to_string();
    let close = ["--mount", "--target", &pid, "mount", "-o", "remount,bind,ro", &mount];
    assert_eq!(
        Program::start_at("/usr/bin/nsenter", &close, &[("PATH", "/usr/bin:/bin")]).wait(),
        0
    );
    let mut job = script("bash", "echo '{\"result\": {\"ran\": 1}}'");
    job["id"] = json!("job-1");
    backend.offer(&[job]);
    let failed = backend.wait_for("POST /api/jobs/job-1/complete", 1).body;
    let details = ["reason", "blame", "stage"].map(|name| &failed["errorDetails"][name]);
    assert_eq!(details, ["start_failed", "worker", "run"], "{failed:#}");
    assert_eq!(
        failed["error"],
        "the program cannot be started: it would not be held to its limits: it has no control group"
    );
}

/// The folder, of those above, at which a file system is mounted.
fn mount_of(path: &str) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.len())
        .unwrap()
        .to_owned()
}
