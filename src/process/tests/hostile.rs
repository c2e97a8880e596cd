//! Children that do all they can to stay, to fill the memory or to be lost sight of.

use super::*;

/// Starts what follows in a session of its own, below no parent of ours: the double fork.
const AWAY: &str = "setsid -f";

/// What a script did, with nothing of it left.
struct Outlived {
    status: ExitStatus,
    lines: Vec<String>,
    bytes: usize,
}

/// Runs a script to its end; once it says `now`, it is sent the signal.
fn outlive(script: &str, signal: Signal) -> Outlived {
    outlive_within(BOUND, script, signal)
}

fn outlive_within(bound: Duration, script: &str, signal: Signal) -> Outlived {
    let mark = format!("hostile-{}", fastrand::u64(..));
    let mut child = marked(&mark, script);
    let leader = child.id();
    child.release().unwrap();
    let (mut lines, mut bytes, mut said) = (vec![], 0, false);
    let mut sink = |line: &str| {
        said |= line == "now";
        bytes += line.len();
        if lines.len() < 100 {
            lines.push(line.to_owned());
        }
        said
    };
    let until = Instant::now() + bound;
    let mut ready = false;
    while child.wait(BOUND, None, &mut |_, line| ready |= sink(line)).unwrap() != Woken::Exited {
        assert!(Instant::now() < until, "the child does not end");
        if ready {
            child.signal(signal);
        }
    }
    let began = Instant::now();
    let status = child.finish(&mut |_, line| ready |= sink(line)).unwrap();
    assert!(began.elapsed() < ENDED_WITHIN + LAST_WORDS, "its end took {:?}", began.elapsed());
    assert_eq!(living(&mark), [0; 0], "something of it lives on");
    assert!(!is_listed(&leader.to_string()), "its leader was not reaped");
    Outlived { status, lines, bytes }
}

#[test]
fn a_double_fork_into_a_session_of_its_own_does_not_get_away() {
    let script = format!("{AWAY} sh -c 'trap \"\" TERM HUP; echo $$; sleep 1000'; exit 3");
    let seen = outlive(&script, Signal::KILL);
    assert_eq!(seen.status.code(), Some(3));
    if let Some(pid) = seen.lines.first() {
        assert!(!is_listed(pid), "neither as a zombie");
    }
}

#[test]
fn what_one_that_got_away_starts_without_its_mark_goes_with_it() {
    let away = "env -i /bin/sleep 1000 & echo $!; echo now; wait";
    let seen = outlive(&format!("{AWAY} sh -c '{away}'; read end"), Signal::KILL);
    assert!(!is_listed(&seen.lines[0]));
}

#[test]
fn many_that_got_away_are_all_found() {
    let script = format!(
        "i=0; while [ $i -lt 50 ]; do {AWAY} sleep 1000; i=$((i+1)); done; echo now; read end"
    );
    outlive(&script, Signal::TERM);
}

#[test]
fn one_that_ignores_everything_that_can_be_ignored_is_killed() {
    let script = "trap '' TERM INT HUP QUIT; echo now; while :; do sleep 1000; done";
    assert_eq!(outlive(script, Signal::KILL).status.signal(), Some(9));
}

#[test]
fn one_that_stops_itself_is_killed() {
    let script = format!("{AWAY} sh -c 'kill -STOP $$'; echo now; kill -STOP $$");
    assert_eq!(outlive(&script, Signal::KILL).status.signal(), Some(9));
}

#[test]
fn one_that_closes_its_output_and_runs_on_is_watched_to_its_end() {
    let seen = outlive(
        "exec >&- 2>&-; i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; exit 5",
        Signal::KILL,
    );
    assert_eq!(seen.status.code(), Some(5));
}

#[test]
fn one_that_closes_all_it_has_is_killed_by_its_time() {
    let mut child = shell("exec <&- >&- 2>&-; while :; do sleep 1000; done");
    child.release().unwrap();
    // Both pipes are at their end, which must not be reported over and over.
    let mut rounds = 0;
    while child.pipes.iter().any(Option::is_some) {
        child.wait(BOUND, None, &mut |_, _| {}).unwrap();
        rounds += 1;
    }
    assert!(rounds <= 4, "{rounds}");
    assert_eq!(child.wait(LOOK_EVERY, None, &mut |_, _| {}).unwrap(), Woken::Timeout);
    child.signal(Signal::KILL);
    assert_eq!(run(child).0.signal(), Some(9));
}

#[test]
fn zombies_that_nobody_waits_for_go_with_their_parent() {
    let script =
        "i=0; while [ $i -lt 20 ]; do (exit 0) & i=$((i+1)); done; echo $!; exec sleep 0.1";
    let seen = outlive(script, Signal::KILL);
    assert!(!is_listed(&seen.lines[0]));
}

/// For the flood, however long.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much a flood is; `WORKER_TEST_FLOOD=10G` makes it the real one.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
fn flood() -> String {
    std::env::var("WORKER_TEST_FLOOD").unwrap_or_else(|_| "200M".into())
}

#[test]
fn a_flood_of_lines_is_read_to_its_end_and_not_kept() {
    let line = "x".repeat(1000);
    let seen = outlive_within(PATIENCE, &format!("yes {line} | head -c {}", flood()), Signal::KILL);
    assert!(seen.status.success() && seen.bytes >= 190 << 20, "{}", seen.bytes);
}

#[test]
fn a_line_as_long_as_a_flood_is_cut() {
    let seen = outlive_within(
        PATIENCE,
        &format!("head -c {} /dev/zero | tr '\\0' x", flood()),
        Signal::KILL,
    );
    assert_eq!((seen.lines.len(), seen.bytes), (1, 4096));
}

#[test]
fn an_orphans_strays_are_killed_by_its_mark_and_nobody_else_is() {
    let mark = format!("left-{}", fastrand::u64(..));
    let mut child = marked(&mark, &format!("{AWAY} sleep 1000; echo now; read end"));
    let bystander = shell("sleep 1000");
    let handle = child.handle().unwrap();
    child.release().unwrap();
    let mut said = false;
    while !said {
        child.wait(BOUND, None, &mut |_, line| said = line == "now").unwrap();
    }
    let (pid, start_time) = (handle.pid, handle.start_time);
    let before = Handle { pid, start_time, boot_id: "another".into() };
    kill_orphan(&before, mark.as_ref());
    assert_eq!(living(&mark).len(), 2);
    kill_orphan(&handle, mark.as_ref());
    assert_eq!(living(&mark), [0; 0]);
    assert!(!bystander.has_exited().unwrap());
}
