//! What a program that prints without end costs the agent: its memory, and how fast it reads.
//!
//! The memory of the tests is not the agent's, so the test runs itself again in a process that does
//! only this. `WORKER_TEST_FLOOD=1G` makes it the real thing, and `--nocapture` shows the figures.
#![expect(clippy::disallowed_methods, reason = "a test has no configuration")]

use std::io::pipe;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::clock;
use crate::job::{self, Limits, Run, Span, Watch};
use crate::process::{Child, Program};
use crate::reading::{HostUsage, Reading};
use crate::runner::Running;
use crate::store::Store;
use crate::work::{Blame, JobId, Key, Stage};

/// The script, in the process that stands for the agent.
const SCRIPT: &str = "WORKER_TEST_FLOOD_SCRIPT";

const MOST_MEMORY_KIB: u64 = 12 << 10;

/// Such as `64M`: it is read at a bounded rate.
fn size() -> String {
    env::var("WORKER_TEST_FLOOD").unwrap_or_else(|_| "64M".into())
}

#[test]
fn the_agent_of_the_flood() {
    let Ok(script) = env::var(SCRIPT) else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = Key::of("http://a:80", &JobId::parse("flood").unwrap());
    let mut log = store.job_log(&key, clock::wall());
    let program = Program {
        mark: dir.path().into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), format!("read go || exit 9; {script}").into()],
        env: vec![("PATH", "/usr/bin:/bin".into())],
        dir: "/".into(),
        is_wrapped: false,
    };
    let (orders, _giver) = pipe().unwrap();
    let host =
        HostUsage { cpu_percent: None, ram_percent: 0.0, ram_used_gb: 0.0, ram_total_gb: 0.0 };
    let hour = Duration::from_secs(3600);
    let report_every = Duration::from_secs(1);
    let limits = Limits {
        stage: Stage::Run,
        span: Span { from: 0.0, to: 100.0 },
        since: clock::since_boot(),
        time: hour,
        memory: 1 << 30,
        disk: None,
        report_every,
        grace: hour,
        author: Blame::Job,
    };
    let began = Instant::now();
    let (run, _) = job::watch(
        Running::Process(Box::new(Child::start(&program, None).unwrap())),
        &mut Watch {
            orders: &orders,
            limits,
            before: None,
            read: &mut || Reading { host: host.clone(), gpus: vec![] },
            energy: &mut |_| None,
            report: &mut |_| {},
            log: &mut |line| log.line(line),
        },
    )
    .unwrap();
    let ms = began.elapsed().as_millis();
    log.close();
    assert!(matches!(run, Run::Done(None)), "{run:?}");
    let kept = fs::metadata(dir.path().join(format!("logs/{}.log", key.as_str()))).unwrap().len();
    println!("flood kib={} ms={ms} kept={kept}", peak_kib());
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What an agent says that watches the script. Returns how much of the output it has kept.
fn watched(what: &str, script: &str) -> u64 {
    let agent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "agent::flood::the_agent_of_the_flood", "--nocapture"])
        .env(SCRIPT, script)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&agent.stdout);
    let figure = |name: &str| {
        let found = said.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {agent:?}")).parse::<u64>().unwrap()
    };
    let (kib, ms, kept) = (figure("kib="), figure("ms="), figure("kept="));
    println!("{what}: {} in {ms} ms, the agent had {kib} KiB at most", size());
    assert!(kib <= MOST_MEMORY_KIB, "{kib} KiB");
    kept
}

#[test]
fn a_flood_of_lines_costs_no_memory_and_its_two_ends_are_kept() {
    let line = "x".repeat(100);
    let kept = watched("lines", &format!("yes {line} | head -c {}", size()));
    assert!((8 << 20..(8 << 20) + 100).contains(&kept), "{kept}");
}

#[test]
fn a_line_as_long_as_a_flood_costs_no_memory_and_is_cut() {
    let kept = watched("one line", &format!("head -c {} /dev/zero | tr '\\0' x", size()));
    assert_eq!(kept, 4097);
}
