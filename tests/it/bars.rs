//! The bars of running jobs: for a person at a terminal, and for nobody else.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Backend, Home, Program, Stream, WORKER, endless, short};

/// Runs the worker at a terminal of its own, which is xterm.
fn at_a_terminal(home: &Home, backend: &Backend, more: &str) -> Program {
    let (state, url) = (home.path("state"), backend.url());
    let run = format!(
        "exec {WORKER} --backend {url} --state-dir {state} --heartbeat-interval 1s --min-free 0 \
         --progress-interval 1s --drain-timeout 1s {more}"
    );
    Program::start_at("/usr/bin/script", &["-qec", &run, "/dev/null"], &[("TERM", "xterm")])
}

/// What was printed, without the terminal's own codes, piece by piece as it was drawn over.
fn pieces(shown: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().find(char::is_ascii_alphabetic)),
            '\r' | '\n' => pieces.push(String::new()),
            c => pieces.last_mut().unwrap().push(c),
        }
    }
    pieces
}

fn offering(jobs: &[Value]) -> (Home, Backend) {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(jobs);
    (home, backend)
}

#[test]
fn at_a_terminal_each_running_job_has_a_bar_below_a_log_that_stays_whole() {
    let (home, backend) = offering(&[endless("job-1"), short("job-2")]);
    let mut worker = at_a_terminal(&home, &backend, "--slots 2");
    backend.wait_for("POST /api/jobs/job-2/complete", 1);
    backend.wait_for("POST /api/jobs/job-1/progress", 2);
    let [pid] = worker.children()[..] else { panic!("{:?}", worker.children()) };
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::QUIT).unwrap();
    assert_eq!(worker.wait(), 0);
    let pieces = pieces(&worker.text(Stream::Out));
    let is_bar = |piece: &&String| piece.starts_with("job-1 compute  ") && piece.contains(" % 00:");
    assert!(pieces.iter().any(|piece| is_bar(&piece)), "{pieces:#?}");
    let log: Vec<_> = pieces.iter().filter(|piece| piece.contains(" INFO ")).collect();
    assert!(log.iter().all(|line| line.starts_with("20") && !line.contains(" % 00:")), "{log:#?}");
    for said in ["job taken job=job-1", "job completed job=job-2", "stopped"] {
        assert_eq!(log.iter().filter(|line| line.contains(said)).count(), 1, "{said}: {log:#?}");
    }
    assert!(pieces.last().unwrap().trim().is_empty(), "no bar is left behind: {pieces:#?}");
}

#[test]
fn whoever_asks_for_less_or_for_json_gets_no_bar() {
    for less in ["--once --quiet", "--once --log-format json"] {
        let (home, backend) = offering(&[short("job-1")]);
        let mut worker = at_a_terminal(&home, &backend, less);
        assert_eq!(worker.wait(), 0);
        let shown = worker.text(Stream::Out);
        assert!(!shown.contains('\u{1b}') && !shown.contains(" % "), "{less}: {shown:?}");
    }
}
