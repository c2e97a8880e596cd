//! Trees of files as the kernel shows them, on hosts and in containers.

use tempfile::TempDir;

use super::*;
use crate::machine::tree;

const GIB: u64 = 1 << 30;
const V2_MOUNT: &str = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
const V1_MOUNTS: &str = "\
    31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

/// A host of 64 cores and 256 GiB.
fn found(root: &TempDir) -> Limits {
    limits(root.path(), 64, 256 * GIB)
}

fn cpu_and_memory(limits: &Limits) -> (Option<f64>, Option<u64>) {
    (limits.cpu.as_ref().map(|cpu| cpu.cores), limits.memory.as_ref().map(|memory| memory.bytes))
}

#[test]
fn version_2_tells_limits_and_use_of_our_group() {
    let root = tree(&[
        ("proc/self/mountinfo", V2_MOUNT),
        ("proc/self/cgroup", "0::/system.slice/worker.service\n"),
        ("sys/fs/cgroup/system.slice/worker.service/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/system.slice/worker.service/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("sys/fs/cgroup/system.slice/worker.service/memory.max", "4294967296\n"),
        ("sys/fs/cgroup/system.slice/worker.service/memory.high", "1000\n"),
        ("sys/fs/cgroup/system.slice/worker.service/memory.current", "1000000\n"),
        ("sys/fs/cgroup/system.slice/worker.service/memory.stat", "anon 1\ninactive_file 400000\n"),
    ]);
    let limits = found(&root);
    assert_eq!(cpu_and_memory(&limits), (Some(1.5), Some(4 * GIB)));
    assert_eq!(limits.cpu.unwrap().used(), Some(Duration::from_millis(2500)));
    assert_eq!(limits.memory.unwrap().used(), Some(600_000));
}

#[test]
fn version_1_tells_limits_and_use_of_our_group() {
    let root = tree(&[
        ("proc/self/mountinfo", V1_MOUNTS),
        ("proc/self/cgroup", "4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n0::/\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "200000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.stat", "nr_periods 0\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/1f/cpuacct.usage", "2500000000\n"),
        ("sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", "1073741824\n"),
        ("sys/fs/cgroup/memory/docker/1f/memory.usage_in_bytes", "1000000\n"),
        (
            "sys/fs/cgroup/memory/docker/1f/memory.stat",
            "inactive_file 100000\ntotal_inactive_file 400000\n",
        ),
    ]);
    let limits = found(&root);
    assert_eq!(cpu_and_memory(&limits), (Some(2.0), Some(GIB)));
    assert_eq!(limits.cpu.unwrap().used(), Some(Duration::from_millis(2500)));
    assert_eq!(limits.memory.unwrap().used(), Some(600_000));
}

#[test]
fn the_cpu_may_be_counted_in_another_hierarchy_than_it_is_limited_in() {
    let mounts = "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n\
                  33 31 0:30 / /cg/cpuacct rw - cgroup cgroup rw,cpuacct\n";
    let used = |cpuacct: &str| {
        let ours = format!("2:cpuacct:{cpuacct}\n1:cpu:/a/b\n");
        let root = tree(&[
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", &ours),
            ("cg/cpu/a/cpu.cfs_quota_us", "50000"),
            ("cg/cpu/a/cpu.cfs_period_us", "100000"),
            ("cg/cpu/a/b/cpu.cfs_quota_us", "-1"),
            ("cg/cpu/a/b/cpu.cfs_period_us", "100000"),
            ("cg/cpuacct/cpuacct.usage", "9000000000"),
            ("cg/cpuacct/a/cpuacct.usage", "1000000000"),
            ("cg/cpuacct/a/b/cpuacct.usage", "500000000"),
        ]);
        found(&root).cpu.unwrap().used()
    };
    assert_eq!(used("/a/b"), Some(Duration::from_secs(1)));
    assert_eq!(used("/a"), Some(Duration::from_secs(1)));
    assert_eq!(used("/"), None, "what others use there says nothing of us");
}

#[test]
fn in_a_hybrid_each_controller_is_found_where_it_is() {
    let mounts = "32 31 0:29 / /cg/memory rw - cgroup cgroup rw,memory\n\
                  35 31 0:30 / /cg/unified rw - cgroup2 cgroup2 rw\n";
    let root = tree(&[
        ("proc/self/mountinfo", mounts),
        ("proc/self/cgroup", "4:memory:/m\n0::/u\n"),
        ("cg/memory/m/memory.limit_in_bytes", "1073741824"),
        ("cg/unified/u/cpu.max", "300000 100000"),
    ]);
    assert_eq!(cpu_and_memory(&found(&root)), (Some(3.0), Some(GIB)));
}

#[test]
fn the_tightest_on_the_way_up_holds_with_its_own_groups_use() {
    let root = tree(&[
        ("proc/self/mountinfo", V2_MOUNT),
        ("proc/self/cgroup", "0::/pods/pod/one\n"),
        ("sys/fs/cgroup/pods/cpu.max", "800000 100000"),
        ("sys/fs/cgroup/pods/memory.max", "max"),
        ("sys/fs/cgroup/pods/pod/cpu.max", "200000 100000"),
        ("sys/fs/cgroup/pods/pod/memory.max", "1073741824"),
        ("sys/fs/cgroup/pods/pod/memory.current", "700"),
        ("sys/fs/cgroup/pods/pod/one/cpu.max", "max 100000"),
        ("sys/fs/cgroup/pods/pod/one/memory.max", "2147483648"),
        ("sys/fs/cgroup/pods/pod/one/memory.current", "300"),
        ("sys/fs/cgroup/other/memory.max", "1"),
    ]);
    let limits = found(&root);
    assert_eq!(cpu_and_memory(&limits), (Some(2.0), Some(GIB)));
    assert_eq!(limits.memory.unwrap().used(), Some(700));
}

#[test]
fn version_1_tells_the_memory_limit_of_groups_that_a_container_does_not_see() {
    let memory = |seen: &[(&str, &str)]| {
        let all: Vec<_> = [
            ("proc/self/mountinfo", V1_MOUNTS),
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 1073741824\n"),
        ]
        .into_iter()
        .chain(seen.iter().copied())
        .collect();
        let root = tree(&all);
        let memory = found(&root).memory.unwrap();
        (memory.bytes, memory.used())
    };
    assert_eq!(memory(&[]).0, GIB);

    let group = [
        ("proc/self/cgroup", "4:memory:/a\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "700"),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648"),
        ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "300"),
        ("sys/fs/cgroup/memory/a/memory.stat", "hierarchical_memory_limit 1073741824\n"),
    ];
    assert_eq!(memory(&group), (GIB, Some(700)), "the use is that of the group that is limited");
}

#[test]
fn in_a_container_all_that_is_mounted_is_ours() {
    let mount = |top: &str| V2_MOUNT.replacen(" / ", &format!(" {top} "), 1);
    for (what, top, ours) in [
        ("a namespace", "/", "/"),
        ("a namespace whose mount is older", "/../..", "/"),
        ("a bind mount of our group", "/docker/1f", "/docker/1f"),
        ("the host's path, which is not seen here", "/", "/docker/1f"),
        ("a group outside of the namespace", "/", "/../2e"),
    ] {
        let root = tree(&[
            ("proc/self/mountinfo", &mount(top)),
            ("proc/self/cgroup", &format!("0::{ours}\n")),
            ("sys/fs/cgroup/cpu.max", "200000 100000"),
            ("sys/fs/cgroup/memory.max", "1073741824"),
            ("sys/fs/2e/memory.max", "1"),
        ]);
        assert_eq!(cpu_and_memory(&found(&root)), (Some(2.0), Some(GIB)), "{what}");
    }
}

#[test]
fn of_several_mounts_the_one_that_shows_our_group_is_looked_at() {
    let mounts = "35 24 0:30 /other /mnt rw - cgroup2 cgroup2 rw\n\
                  36 24 0:30 / /my\\040groups rw - cgroup2 cgroup2 rw\n";
    let root = tree(&[
        ("proc/self/mountinfo", mounts),
        ("proc/self/cgroup", "0::/us:two\n"),
        ("mnt/memory.max", "1"),
        ("my groups/us:two/memory.max", "1073741824"),
    ]);
    assert_eq!(cpu_and_memory(&found(&root)), (None, Some(GIB)));
}

#[test]
fn what_does_not_limit_is_no_limit() {
    let v2 = |cpu: &str, memory: &str| {
        let root = tree(&[
            ("proc/self/mountinfo", V2_MOUNT),
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/cpu.max", cpu),
            ("sys/fs/cgroup/a/memory.max", memory),
        ]);
        found(&root)
    };
    for (cpu, memory) in [
        ("max 100000\n", "max\n"),
        ("6400000 100000", "274877906944"),
        ("", ""),
        ("-1 -1", "-1"),
        ("1 0", "99999999999999999999999"),
        ("100000", "1 GiB"),
        ("\u{0}", "\u{fffd}"),
    ] {
        assert_eq!(v2(cpu, memory), Limits::default(), "{cpu:?} {memory:?}");
    }
    let v1 = tree(&[
        ("proc/self/mountinfo", V1_MOUNTS),
        ("proc/self/cgroup", "4:memory:/\n1:cpu,cpuacct:/\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
    ]);
    assert_eq!(found(&v1), Limits::default());
}

#[test]
fn whatever_stands_in_the_files_of_proc_there_is_no_panic() {
    for text in ["", "\n\n", ":", "0::", "0::/", "1:cpu", " - ", " - cgroup2", "1 2 3 / - cgroup a"]
    {
        let root = tree(&[("proc/self/mountinfo", text), ("proc/self/cgroup", text)]);
        assert_eq!(found(&root), Limits::default(), "{text:?}");
    }
    assert_eq!(found(&tree(&[])), Limits::default(), "no /proc");
}
