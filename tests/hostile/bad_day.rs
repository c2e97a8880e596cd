//! What a machine or whoever starts the worker may do by mistake: it works all the same.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Backend, Home, Program, WORKER, short};

/// What is done first, in a shell that becomes the worker.
const FIRST: [&str; 9] = [
    "umask 000",
    "exec <&-",
    "exec >&-",
    "exec <&- >&- 2>&-",
    "exec 2>/dev/full",
    "mkdir gone; cd gone; rmdir ../gone",
    "ulimit -n 64",
    "ulimit -c 0; ulimit -s 256",
    "unset HOME PATH; export LANG=xx_XX TERM=odd RUST_BACKTRACE=full RUST_LOG=odd",
];

#[test]
fn a_job_is_done_whatever_the_worker_was_started_with() {
    for first in FIRST {
        let (home, backend) = (Home::new(), Backend::start());
        backend.offer(&[short("job-1")]);
        let (url, state) = (backend.url(), home.path("state"));
        let line = format!("cd '{}'; {first}; exec \"$0\" \"$@\"", home.path(""));
        let worker = ["-c", &line, WORKER, "run", "--backend", &url, "--state-dir", &state];
        let more = ["--min-free", "0", "--max-jobs", "1", "--heartbeat-interval", "1s"];
        let mut worker = Program::start_at("/bin/sh", &[worker.as_slice(), &more].concat(), &[]);
        assert_eq!(worker.wait(), 0, "{first}: {}", worker.log());
        let complete = backend.wait_for("POST /api/jobs/job-1/complete", 1).body;
        assert_eq!(complete["status"], "completed", "{first}");
        for entry in fs::read_dir(&state).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{first}: others may use {}", entry.path().display());
        }
    }
}
