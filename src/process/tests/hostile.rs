//! Children that do all they can to stay, or to be lost sight of.

use std::path::Path;

use super::*;

/// Starts what follows in a session of its own, below no parent of ours: the double fork.
const AWAY: &str = "setsid -f";

/// What a script did, with nothing of it left.
struct Outlived {
    status: ExitStatus,
    lines: Vec<String>,
}

/// Runs a script to its end; once it says `now`, it is sent the signal.
///
/// Once as it is, and once more in a control group of its own, where this machine has them.
fn outlive(script: &str, signal: Signal) -> Outlived {
    if let Some(place) = place() {
        let group = place.groups.make("hostile", 1 << 30, None).unwrap();
        outlive_in(Some(group), script, signal);
        assert_eq!(place.left(), [""; 0], "its group is still there");
    }
    outlive_in(None, script, signal)
}

fn outlive_in(group: Option<Group>, script: &str, signal: Signal) -> Outlived {
    let mark = format!("hostile-{}", fastrand::u64(..));
    let mut child = grouped(&mark, script, group);
    let leader = child.id();
    child.release().unwrap();
    let (mut lines, mut said) = (vec![], false);
    let mut sink = |line: &str| {
        said |= line == "now";
        lines.push(line.to_owned());
        said
    };
    let until = Instant::now() + BOUND;
    let mut ready = false;
    while child.wait(BOUND, None, &mut |_, line| ready |= sink(line)).unwrap() != Woken::Exited {
        assert!(Instant::now() < until, "the child does not end");
        if ready {
            child.signal(signal);
        }
    }
    let status = child.finish(&mut |_, line| ready |= sink(line)).unwrap();
    assert_eq!(living(&mark), [0; 0], "something of it lives on");
    assert!(!is_listed(&leader.to_string()), "its leader was not reaped");
    Outlived { status, lines }
}

/// Where a test makes its groups.
struct Place {
    groups: Groups,
    state: tempfile::TempDir,
}

/// Nothing where none can be made. `tests/run` says where they can, and there they must.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
fn place() -> Option<Place> {
    let state = tempfile::tempdir().unwrap();
    let groups = Groups::find(Path::new("/"), state.path());
    let must = std::env::var_os("WORKER_TEST_GROUPS").is_some();
    assert!(groups.is_ok() || !must, "this machine has control groups, and none can be made");
    Some(Place { groups: groups.ok()?, state })
}

impl Place {
    /// The groups that are there.
    fn left(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.groups.place()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| name.starts_with(&self.groups.prefix)).collect()
    }
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

#[test]
fn what_bears_a_mark_that_begins_so_is_killed_and_nobody_else_is() {
    let folder = format!("left-{}/jobs/", fastrand::u64(..));
    let mark = format!("{folder}1/work");
    let mut child = marked(&mark, &format!("{AWAY} sleep 1000; echo now; read end"));
    let bystander = marked(&format!("x{folder}1/work"), "sleep 1000");
    child.release().unwrap();
    let mut said = false;
    while !said {
        child.wait(BOUND, None, &mut |_, line| said = line == "now").unwrap();
    }
    assert_eq!(living(&mark).len(), 2);
    kill_marked(folder.as_ref());
    assert_eq!(living(&mark), [0; 0]);
    assert!(!bystander.has_exited().unwrap());
}

#[test]
fn what_an_agent_left_in_its_groups_ends_with_the_next_one_and_the_groups_go() {
    let Some(place) = place() else { return };
    let group = place.groups.make("left", 1 << 30, None).unwrap();
    let mut child = grouped("left", &format!("{AWAY} sleep 1000; echo now; read end"), Some(group));
    child.release().unwrap();
    let mut said = false;
    while !said {
        child.wait(BOUND, None, &mut |_, line| said = line == "now").unwrap();
    }
    assert_eq!(place.left().len(), 1);
    Groups::find(Path::new("/"), place.state.path()).unwrap();
    assert_eq!(place.left(), [""; 0]);
    assert!(child.has_exited().unwrap());
}

#[test]
fn a_group_counts_what_its_program_used_with_all_it_started() {
    let Some(place) = place() else { return };
    let script = "(h=$(head -c 32M /dev/zero | tr '\\0' x)); \
                  (i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); exit 0";
    let group = place.groups.make("used", 1 << 30, None).unwrap();
    let mut child = grouped("used", script, Some(group));
    child.release().unwrap();
    while child.wait(BOUND, None, &mut |_, _| {}).unwrap() != Woken::Exited {}
    let used = child.usage();
    assert!(used.cpu.unwrap() > Duration::from_millis(10), "{used:?}");
    assert!(used.peak_memory_mb.unwrap() > 32.0, "{used:?}");
    assert!(!child.ran_out_of_memory());
    child.finish(&mut |_, _| {}).unwrap();
}

#[test]
fn zombies_that_a_program_leaves_to_us_go_while_it_runs_in_a_group_too() {
    let Some(place) = place() else { return };
    let script =
        "i=0; while [ $i -lt 20 ]; do (setsid -f sh -c 'echo $$'); i=$((i+1)); done; read end";
    let mut child =
        grouped("zombies", script, Some(place.groups.make("zombies", 1 << 30, None).unwrap()));
    child.release().unwrap();
    let mut pids: Vec<String> = vec![];
    while pids.len() < 20 {
        child.wait(BOUND, None, &mut |_, line| pids.push(line.to_owned())).unwrap();
    }
    let until = Instant::now() + BOUND;
    while pids.iter().any(|pid| is_listed(pid)) {
        assert!(Instant::now() < until, "they are not reaped");
        child.usage();
    }
    child.signal(Signal::KILL);
    run(child);
}

#[test]
fn a_fork_bomb_is_bounded_and_ended_as_a_whole() {
    let Some(place) = place() else { return };
    let group = place.groups.make("bomb", 1 << 30, None).unwrap();
    group.set("pids.max", "100").unwrap();
    let script = "b() { b 2>/dev/null & b 2>/dev/null & wait; }; echo now; b";
    let seen = outlive_in(Some(group), script, Signal::KILL);
    assert_eq!(seen.status.signal(), Some(9));
    assert_eq!(place.left(), [""; 0]);
}
