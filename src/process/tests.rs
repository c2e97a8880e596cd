//! Real children: held, let go, signalled, outlived.

mod hostile;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use super::*;

const BOUND: Duration = Duration::from_secs(40);

/// A shell that waits for its byte, as every program we start does, and then runs `script`.
fn shell(script: &str) -> Child {
    marked(&format!("test-{}", fastrand::u64(..)), script)
}

fn marked(mark: &str, script: &str) -> Child {
    grouped(mark, script, None)
}

fn grouped(mark: &str, script: &str, group: Option<Group>) -> Child {
    let program = Program {
        mark: mark.into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), format!("read go || exit 9; {script}").into()],
        env: vec![("PATH", "/usr/bin:/bin".into())],
        dir: "/".into(),
        is_wrapped: false,
    };
    Child::start(&program, group).unwrap()
}

fn run(mut child: Child) -> (ExitStatus, Vec<(Stream, String)>) {
    let mut seen = vec![];
    let mut sink = |stream, line: &str| seen.push((stream, line.to_owned()));
    let until = Instant::now() + BOUND;
    while child.wait(BOUND, None, &mut sink).unwrap() != Woken::Exited {
        assert!(Instant::now() < until, "the child does not end");
    }
    let status = child.finish(&mut sink).unwrap();
    (status, seen)
}

/// The processes that bear a mark, wherever they went.
fn living(mark: &str) -> Vec<u32> {
    let bears = |pid: &u32| {
        proc::environment(*pid)
            .is_some_and(|shown| proc::variable(&shown, family::MARK) == Some(mark.as_bytes()))
    };
    proc::all().into_keys().filter(bears).collect()
}

/// Whether `ps` would show it, be it as a zombie.
fn is_listed(pid: &str) -> bool {
    fs::exists(format!("/proc/{}", pid.trim())).unwrap()
}

fn wait_gone(pid: &str) {
    let until = Instant::now() + BOUND;
    let stat = format!("/proc/{}/stat", pid.trim());
    // A zombie is dead; who reaps it is not our business.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "process {pid} lives on");
        std::thread::yield_now();
    }
}

#[test]
fn a_program_does_nothing_before_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let held = shell(&format!("touch {}", mark.display()));
    let pid = held.handle().unwrap().pid.to_string();
    // The agent's end, as the program sees it: its stdin is at end of file.
    drop(held);
    wait_gone(&pid);
    assert!(!mark.exists());

    let mut released = shell(&format!("touch {}", mark.display()));
    released.release().unwrap();
    run(released);
    assert!(mark.exists());
}

#[test]
fn both_pipes_and_the_exit_code_arrive() {
    let mut child = shell("echo out; echo err >&2; exit 7");
    child.release().unwrap();
    let (status, mut seen) = run(child);
    seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(status.code(), Some(7));
    assert_eq!(seen, [(Stream::Stdout, "out".to_owned()), (Stream::Stderr, "err".to_owned())]);
}

#[test]
fn a_grandchild_that_keeps_the_pipe_does_not_keep_us() {
    let mut child = shell("sleep 1000 & echo $!");
    child.release().unwrap();
    let (status, seen) = run(child);
    assert!(status.success());
    wait_gone(&seen[0].1);
}

#[test]
fn a_signal_reaches_the_whole_group() {
    let mut child = shell("sleep 1000 & echo $!; wait");
    child.release().unwrap();
    let mut grandchild = String::new();
    while grandchild.is_empty() {
        child.wait(BOUND, None, &mut |_, line| line.clone_into(&mut grandchild)).unwrap();
    }
    child.signal(Signal::TERM);
    let (status, _) = run(child);
    assert_eq!(status.signal(), Some(15));
    wait_gone(&grandchild);
}

#[test]
fn an_order_wakes_the_wait_at_once_and_so_does_its_givers_end() {
    let mut child = shell("sleep 1000");
    let (orders, mut giver) = io::pipe().unwrap();
    giver.write_all(b"c").unwrap();
    let mut sink = |_, _: &str| {};
    assert_eq!(child.wait(BOUND, Some(&orders), &mut sink).unwrap(), Woken::Order(Some(b'c')));
    drop(giver);
    assert_eq!(child.wait(BOUND, Some(&orders), &mut sink).unwrap(), Woken::Order(None));
}

#[test]
fn what_a_program_uses_is_known_while_it_runs_and_its_time_after_its_end() {
    let mut child =
        shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo tired; read end");
    child.release().unwrap();
    let mut seen = false;
    while !seen {
        child.wait(BOUND, None, &mut |_, line| seen = line == "tired").unwrap();
    }
    let running = child.usage();
    assert!(running.peak_memory_mb.is_some_and(|mib| mib > 0.1), "{running:?}");
    child.release().unwrap();
    while child.wait(BOUND, None, &mut |_, _| {}).unwrap() != Woken::Exited {}
    assert!(child.usage().cpu.unwrap() > Duration::ZERO);
    child.finish(&mut |_, _| {}).unwrap();
}

#[test]
fn an_orphan_is_killed_by_its_handle_and_a_stranger_with_its_pid_is_not() {
    let child = shell("sleep 1000");
    let handle = child.handle().unwrap();
    let stranger = ProcessHandle { start_time: handle.start_time + 1, ..handle.clone() };
    kill_orphan(&stranger);
    assert!(!child.has_exited().unwrap());
    let before = ProcessHandle { boot_id: "another".into(), ..handle };
    kill_orphan(&before);
    assert!(!child.has_exited().unwrap());
    kill_orphan(&handle);
    wait_gone(&handle.pid.to_string());
}
