//! Real programs, watched to every end that one can have.

use std::io::{Write as _, pipe};
use std::path::Path;
use std::process::ExitStatus;

use super::*;
use crate::process::{Child, Group, Groups, Program};
use crate::reading::HostUsage;

/// How a script says that it may be ordered about.
const READY: &str = r#"echo '{"progress":5,"operation":"ready"}'"#;

/// A run of a shell script, which is let go like any program.
struct Script {
    run: Run,
    reports: Vec<Report>,
    log: Vec<String>,
    metrics: Object,
}

fn limits() -> Limits {
    Limits {
        stage: Stage::Run,
        span: Span { from: 0.0, to: 100.0 },
        since: clock::since_boot(),
        time: Duration::from_secs(60),
        memory: 1 << 30,
        disk: None,
        report_every: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        author: Blame::Job,
    }
}

fn run(script: &str, limits: Limits, order: Option<Order>) -> Script {
    run_in(None, script, limits, order)
}

fn run_in(group: Option<Group>, script: &str, limits: Limits, order: Option<Order>) -> Script {
    let program = Program {
        mark: format!("test-{}", fastrand::u64(..)).into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), format!("read go || exit 9; {script}").into()],
        env: vec![("PATH", "/usr/bin:/bin".into())],
        dir: "/".into(),
        is_wrapped: false,
    };
    let child = Running::Process(Box::new(Child::start(&program, group).unwrap()));
    let (orders, mut giver) = pipe().unwrap();
    let host = HostUsage {
        cpu_percent: Some(50.0),
        ram_percent: 25.0,
        ram_used_gb: 1.0,
        ram_total_gb: 4.0,
    };
    let mut read = || Reading { host: host.clone(), gpus: vec![] };
    let (mut reports, mut log) = (vec![], vec![]);
    let mut order = order;
    let mut report = |report: Report| {
        // Not before the program has set its traps.
        if let Some(order) = order.take_if(|_| report.operation == "ready") {
            giver.write_all(&[order.byte()]).unwrap();
        }
        reports.push(report);
    };
    // As if each second of the processor cost a kilowatt-hour.
    let mut energy = |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64());
    let mut watch_ = Watch {
        orders: &orders,
        limits,
        before: None,
        read: &mut read,
        energy: &mut energy,
        report: &mut report,
        log: &mut |line| log.push(line.to_owned()),
    };
    let (run, costs) = watch(child, &mut watch_).unwrap();
    Script { run, reports, log, metrics: metrics(&costs, clock::since_boot()) }
}

/// A run that is given an order as soon as the script is ready.
fn ordered(script: &str, grace: Duration, order: Order) -> Run {
    let report_every = Duration::from_millis(1);
    run(script, Limits { report_every, grace, ..limits() }, Some(order)).run
}

fn failure(run: Run) -> Failure {
    match run {
        Run::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_report_comes_at_once_and_its_percent_starts_the_backends_clock() {
    let script = run("true", limits(), None);
    assert!(matches!(script.run, Run::Done(None)), "{:?}", script.run);
    let said: Vec<_> = script.reports.iter().map(|r| (r.percent, r.operation.as_str())).collect();
    assert_eq!(said, [(1, "starting")]);
}

#[test]
fn what_the_program_says_is_reported_and_never_below_one_or_above_ninety_nine() {
    let often = Limits { report_every: Duration::from_millis(1), ..limits() };
    let script = r#"for p in 0 40 20 100; do echo "{\"progress\":$p,\"operation\":\"p$p\"}"; sleep 0.2; done; echo '{"result":{"n":7}}'"#;
    let script = run(script, often, None);
    let mut percents: Vec<u8> = script.reports.iter().map(|report| report.percent).collect();
    percents.dedup();
    assert_eq!(percents, [1, 40, 99]);
    let Run::Done(Some(result)) = script.run else { panic!("{:?}", script.run) };
    assert_eq!(result.get("n"), Some(&json!(7)));
    assert_eq!(script.log, [""; 0], "messages are no log");
}

#[test]
fn what_is_logged_does_nothing_to_the_terminal_of_whoever_looks_at_it() {
    let script = run(r"printf 'clear\033[2J\007\tme\n'", limits(), None);
    assert_eq!(script.log, ["clear[2J\tme"]);
}

#[test]
fn only_what_was_measured_is_in_the_metrics() {
    let metrics = run("true", limits(), None).metrics;
    assert_eq!(metrics.get("cpuUsageAvg"), Some(&json!(50.0)));
    assert_eq!(metrics.get("ramUsageAvg"), Some(&json!(25.0)));
    assert_eq!(metrics.get("gpuUsageAvg"), None);
    assert!(metrics.contains_key("cpuSeconds") && metrics.contains_key("processingTimeSeconds"));
}

#[test]
fn an_exit_code_comes_with_the_last_words() {
    let failure = failure(run("echo working; echo 'no such file' >&2; exit 3", limits(), None).run);
    assert_eq!((failure.error.as_str(), failure.exit_code), ("exit code 3", Some(3)));
    let mut log = failure.log;
    log.sort();
    assert_eq!(log, ["no such file", "working"]);
}

#[test]
fn whoever_wrote_a_program_is_to_blame_for_its_bad_end_and_for_no_other() {
    let ours = Limits { author: Blame::Worker, ..limits() };
    assert_eq!(failure(run("exit 3", ours.clone(), None).run).blame, Blame::Worker);
    assert_eq!(failure(run("exit 3", limits(), None).run).blame, Blame::Job);
    let short = Limits { time: Duration::from_millis(50), ..ours };
    assert_eq!(failure(run("sleep 1000", short, None).run).blame, Blame::Job);
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    let failure = failure(run("kill -SEGV $$", limits(), None).run);
    assert_eq!((failure.reason, failure.signal), (Reason::KilledSignal, Some(11)));
    assert_eq!(failure.error, "killed by signal 11");
}

#[test]
fn a_program_that_takes_too_long_is_stopped_and_the_stage_named() {
    let short = Limits { time: Duration::from_millis(50), ..limits() };
    let failure = failure(run("sleep 1000", short, None).run);
    assert_eq!((failure.reason, failure.blame), (Reason::Timeout, Blame::Job));
    assert_eq!(failure.error, "timeout after 50ms in stage run");
}

#[test]
fn a_program_that_ignores_term_is_killed_after_its_grace() {
    let script = format!("trap '' TERM; {READY}; while :; do sleep 0.01; done");
    let failure = failure(ordered(&script, Duration::from_millis(100), Order::Stop));
    assert_eq!((failure.reason, failure.signal), (Reason::Cancelled, Some(9)));
}

#[test]
fn a_program_may_use_its_grace_to_end_well() {
    let script = format!("trap 'exit 0' TERM; {READY}; while :; do sleep 0.01; done");
    let failure = failure(ordered(&script, Duration::from_secs(60), Order::Stop));
    assert_eq!((failure.blame, failure.exit_code), (Blame::Worker, Some(0)));
}

#[test]
fn a_stopped_program_hears_term_all_the_same() {
    let script = format!("{READY}; kill -STOP $$");
    let failure = failure(ordered(&script, Duration::from_secs(60), Order::Stop));
    assert_eq!(failure.signal, Some(15));
}

#[test]
fn a_cancelled_job_has_no_failure_to_tell() {
    let script = format!("{READY}; sleep 1000");
    let run = ordered(&script, Duration::from_secs(60), Order::Cancel);
    assert!(matches!(run, Run::Cancelled), "{run:?}");
}

#[test]
fn a_program_that_floods_its_output_is_ended_within_the_bound() {
    let short = Limits { time: Duration::from_millis(300), ..limits() };
    let failure = failure(run("yes flood", short, None).run);
    assert_eq!(failure.reason, Reason::Timeout);
    assert_eq!(failure.log.len(), 100);
}

/// A shell that comes to hold 64 MiB, and then waits.
const HOARD: &str = "h=$(head -c 64M /dev/zero | tr \"\\0\" x); sleep 1000";

/// By the watch, and by the kernel where this machine has control groups.
fn killed_for_memory(script: &str) {
    let small = Limits { memory: 32 << 20, ..limits() };
    let state = tempfile::tempdir().unwrap();
    let groups = Groups::find(Path::new("/"), state.path()).ok();
    let group = groups.as_ref().map(|groups| groups.make("small", small.memory, None).unwrap());
    for group in [group, None] {
        let failure = failure(run_in(group, script, small.clone(), None).run);
        assert_eq!((failure.reason, failure.blame), (Reason::OutOfMemory, Blame::Job));
        assert_eq!(failure.error, "killed: memory limit of 32 MiB");
    }
}

#[test]
fn a_program_with_more_memory_than_its_limit_is_killed_and_told_why() {
    killed_for_memory(HOARD);
}

#[test]
fn the_memory_of_what_got_away_counts_too() {
    killed_for_memory(&format!("setsid -f sh -c '{HOARD}'; sleep 1000"));
}

#[test]
fn a_program_below_its_memory_limit_is_let_be_and_its_peak_told() {
    let script = run("h=$(head -c 16M /dev/zero | tr '\\0' x); sleep 1.1; exit 0", limits(), None);
    assert!(matches!(script.run, Run::Done(None)), "{:?}", script.run);
    let peak = script.metrics.get("peakMemoryMb").and_then(serde_json::Value::as_f64);
    assert!(peak.is_some_and(|mib| mib > 16.0), "{peak:?}");
}

/// A program that was killed and not by us, and whether the kernel killed one meanwhile.
fn killed(kernel_killed: bool) -> Failure {
    let ended = Ended { status: ExitStatus::from_raw(9), ran_out: false, not_started: None };
    let end = End { ended, why: None, kernel_killed, shortage: None };
    failure(verdict(&end, &limits(), Output::default()))
}

#[test]
fn a_kill_is_the_machines_if_the_kernel_made_room_and_else_anybodys() {
    let (made_room, other) = (killed(true), killed(false));
    assert_eq!((made_room.reason, made_room.blame), (Reason::OutOfMemory, Blame::Unclear));
    assert_eq!(made_room.error, "killed: the machine ran out of memory");
    assert_eq!((other.reason, other.blame), (Reason::KilledSignal, Blame::Job));
    assert_eq!(other.error, "killed by signal 9");
}
