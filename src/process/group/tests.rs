//! Files as the kernel shows them, of either version. The real thing is met by the hostile children
//! beside, and in a booted system by `tests/booted`.

use tempfile::TempDir;

use super::*;
use crate::process::Usage;

const MOUNTS: &str = "\
    32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
    33 31 0:30 / /cg/memory rw - cgroup cgroup rw,memory\n\
    35 31 0:32 / /cg/unified rw - cgroup2 cgroup2 rw\n";

#[expect(clippy::disallowed_methods, reason = "a test plays the kernel, which keeps none of these")]
fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

/// A group that is left as it is.
fn group(root: &TempDir, dirs: &[&str]) -> Group {
    Group::of(dirs.iter().map(|dir| root.path().join(dir)).collect())
}

#[test]
fn version_2_tells_time_memory_and_whose_lack_of_it_killed() {
    let told = |events: &str| {
        let root = tree(&[
            ("job/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
            ("job/memory.peak", "33554432\n"),
            ("job/memory.current", "1048576\n"),
            ("job/memory.events", events),
        ]);
        let group = group(&root, &["job"]);
        (group.counters.usage(), group.counters.ran_out_of_memory())
    };
    let (usage, killed) = told("low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n");
    let cpu = Some(Duration::from_millis(2500));
    assert_eq!(usage, Usage { cpu, peak_memory_mb: Some(32.0), memory: 1 << 20 });
    assert!(killed);
    assert!(!told("max 9\noom 0\noom_kill 2\n").1, "for lack of memory elsewhere");
    assert!(!told("max 9\noom 1\noom_kill 0\n").1, "something else gave way");
}

#[test]
fn version_1_tells_the_same_from_a_folder_for_each_controller() {
    let told = |limit: &str| {
        let root = tree(&[
            ("memory/job/memory.max_usage_in_bytes", "33554432\n"),
            ("memory/job/memory.usage_in_bytes", "1048576\n"),
            ("memory/job/memory.limit_in_bytes", limit),
            ("memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("cpu/job/cpuacct.usage", "2500000000\n"),
            ("cpu/job/cpu.stat", "nr_periods 0\n"),
        ]);
        let group = group(&root, &["memory/job", "cpu/job"]);
        (group.counters.usage(), group.counters.ran_out_of_memory())
    };
    let cpu = Some(Duration::from_millis(2500));
    let usage = Usage { cpu, peak_memory_mb: Some(32.0), memory: 1 << 20 };
    assert_eq!(told("33558528\n"), (usage, true));
    assert_eq!(told("67108864\n"), (usage, false), "for lack of memory elsewhere");
}

#[test]
fn without_a_peak_of_the_kernels_the_memory_of_the_moment_is_all_that_is_known() {
    let root = tree(&[("job/memory.current", "1048576\n")]);
    let usage = Usage { cpu: None, peak_memory_mb: None, memory: 1 << 20 };
    assert_eq!(group(&root, &["job"]).counters.usage(), usage);
}

#[test]
fn limits_are_written_where_their_files_are_and_nowhere_else() {
    let root = tree(&[
        ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ("pids/pids.max", "max"),
        ("cpu/cpu.shares", "1024"),
    ]);
    let group = group(&root, &["memory", "pids", "cpu"]);
    group.limit(512 << 20).unwrap();
    let read = |path| fs::read_to_string(root.path().join(path)).unwrap();
    assert!(read("memory/memory.limit_in_bytes").starts_with("536870912"));
    assert!(read("pids/pids.max").starts_with("4096"));
    assert_ne!(read("cpu/cpu.shares"), "1024");
    assert!(!root.path().join("memory/memory.max").exists());
}

#[test]
fn a_limit_that_is_not_in_force_is_noticed() {
    let told = |process: &str, limit: &str| {
        let root = tree(&[
            ("job/cgroup.procs", process),
            ("job/memory.max", limit),
            ("job/memory.swap.max", "0\n"),
        ]);
        group(&root, &["job"]).objection(7, 1 << 20)
    };
    assert_eq!(told("6\n7\n", "1048576\n"), None);
    assert_eq!(told("7\n", "4096\n"), None, "in whole pages");
    for limit in ["max\n", "1052672\n", ""] {
        assert_eq!(told("7\n", limit).as_deref(), Some("its memory is not limited"), "{limit}");
    }
    assert_eq!(told("6\n", "1048576\n").as_deref(), Some("it is not in its control group"));
}

#[test]
fn controllers_mounted_as_one_are_one_folder_and_memory_comes_first() {
    let us = format!("1\n{}\n", process::id());
    let root = tree(&[
        ("proc/self/mountinfo", MOUNTS),
        ("proc/self/cgroup", "4:memory:/m\n1:cpu,cpuacct:/c\n0::/u\n"),
        ("cg/memory/m/cgroup.procs", &us),
        ("cg/cpu/c/cgroup.procs", &us),
    ]);
    let parents = version_1(&Hierarchies::read(root.path())).unwrap();
    assert_eq!(parents, ["cg/memory/m", "cg/cpu/c"].map(|dir| root.path().join(dir)));
}

#[test]
fn a_group_of_our_name_that_we_are_not_in_is_somebody_elses() {
    let root = tree(&[
        ("proc/self/mountinfo", MOUNTS),
        ("proc/self/cgroup", "4:memory:/m\n0::/u\n"),
        ("cg/memory/m/cgroup.procs", "1\n"),
        ("cg/unified/u/cgroup.procs", ""),
        ("cg/unified/u/cgroup.controllers", "memory\n"),
        ("cg/unified/u/cgroup.subtree_control", ""),
    ]);
    assert!(Groups::find(root.path(), root.path()).is_err());
    assert!(!root.path().join("cg/unified/u/qubix-worker").exists(), "nothing was tried");
}

#[test]
fn without_the_memory_there_are_no_groups() {
    let us = process::id().to_string();
    let root = tree(&[
        ("proc/self/mountinfo", MOUNTS),
        ("proc/self/cgroup", "1:cpu,cpuacct:/c\n0::/u\n"),
        ("cg/cpu/c/cgroup.procs", &us),
        ("cg/unified/u/cgroup.procs", &us),
        ("cg/unified/u/cgroup.controllers", "hugetlb\n"),
        ("cg/unified/u/cgroup.subtree_control", ""),
    ]);
    assert!(Groups::find(root.path(), root.path()).is_err());
    assert!(!root.path().join("cg/unified/u/qubix-worker").exists(), "nothing was tried");
}
