//! Jobs' programs: `worker limit`, which limits itself and becomes the program it is given, and what an
//! earlier run left behind.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::{Backend, Home};

fn limited(bounds: &str, program: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(["limit", bounds])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that has ended already takes none.
    child.stdin.take().unwrap().write_all(stdin).ok();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_program_runs_within_its_limits() {
    let bounds = "nice=3,oom-score=500,data=1073741824,cpu=60,file-size=512000,core=0,files=99";
    let script = "ulimit -d; ulimit -t; ulimit -f; ulimit -c; ulimit -n; ulimit -H -n; nice; \
                  cat /proc/self/oom_score_adj";
    let output = limited(bounds, &["/bin/sh", "-c", script], b"\n");
    let told = said(&output);
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[..6], ["1048576", "60", "1000", "0", "99", "99"], "{output:?}");
    let before: i32 = said(&limited("core=0", &["nice"], b"\n")).trim().parse().unwrap();
    assert_eq!(told[6..], [(before + 3).min(19).to_string(), "500".to_owned()], "{output:?}");
}

#[test]
fn it_takes_one_byte_of_the_programs_input_and_no_more() {
    let output = limited("core=0", &["/bin/sh", "-c", "read rest; echo $rest"], b"\nrest\n");
    assert_eq!(said(&output), "rest\n");
}

#[test]
fn nothing_is_started_at_the_end_of_its_input() {
    let output = limited("core=0", &["/bin/echo", "started"], b"");
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_programs_arguments_are_its_own() {
    let output = limited("core=0", &["/bin/echo", "--help", "--", "-x=1"], b"\n");
    assert_eq!(said(&output), "--help -- -x=1\n");
}

#[test]
fn what_cannot_be_limited_is_not_run() {
    let output = limited("cores=0", &["/bin/echo", "started"], b"\n");
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), ""));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(told, "worker: `cores=0` is no limit\n");
}

#[test]
fn what_bears_the_mark_of_a_job_here_ends_at_a_start_whatever_its_record_says() {
    let (home, other, backend) = (Home::new(), Home::new(), Backend::start());
    let marked = |home: &Home| {
        let mark = home.path("state/jobs/some/work");
        Command::new("/bin/sleep").arg("1000").env("WORKER_MARK", mark).spawn().unwrap()
    };
    let (mut ours, mut theirs) = (marked(&home), marked(&other));
    let mut worker = home.worker(&backend.url(), &[]);
    worker.wait_log("registered");
    assert!(ours.try_wait().unwrap().is_some());
    assert!(theirs.try_wait().unwrap().is_none());
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    worker.stop();
}
