//! Whether a container is held to what its engine was told, as the kernel shows its first process: an
//! engine may ignore what it cannot do, and say so nowhere.

use std::fs;

use super::argv::Plan;
use crate::process::Counters;

/// What is not in force. Nothing of a container that has ended meanwhile.
pub(super) fn objection(plan: &Plan, pid: u32, counters: &Counters) -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let (status, mounts, network) = (read("status")?, read("mountinfo")?, read("net/dev")?);
    let memory = counters.limit(["memory.max", "memory.limit_in_bytes"]);
    let processes = counters.limit(["pids.max", "pids.max"]);
    let found = privileges(&status)
        .or_else(|| (!root_is_read_only(&mounts)).then(|| "its root can be written to".into()))
        .or_else(|| interface(&network).map(|name| format!("it has a network: {name}")))
        .or_else(|| above("memory", memory, plan.memory))
        .or_else(|| above("number of processes", processes, plan.processes));
    // Of one that has ended the last files may be another's, or none.
    found.filter(|_| read("cgroup").is_some_and(|groups| !groups.is_empty()))
}

fn privileges(status: &str) -> Option<String> {
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default()
    };
    let wanted = [
        ("CapEff:", "0000000000000000", "it has capabilities"),
        ("CapBnd:", "0000000000000000", "it can gain capabilities"),
        ("NoNewPrivs:", "1", "it can gain privileges"),
        ("Seccomp:", "2", "no system call is forbidden to it"),
    ];
    let broken = wanted.into_iter().find(|(name, value, _)| of(name) != *value);
    broken.map(|(_, _, what)| what.to_owned())
}

/// `32 31 0:29 / POINT OPTIONS …`: the mount at `/` as its processes see it.
fn root_is_read_only(mounts: &str) -> bool {
    let mut roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    let options = roots.next_back().and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
    options.split(',').any(|option| option == "ro")
}

/// One besides the loopback.
fn interface(devices: &str) -> Option<&str> {
    let names = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    // Two headings have no colon before their bar; tunnels are there in every network, and down.
    let own = [
        "lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
        "ip6gre0",
    ];
    names.filter(|name| !name.contains('|')).find(|name| !own.contains(name))
}

fn above(what: &str, found: Option<u64>, limit: u64) -> Option<String> {
    match found {
        Some(found) if found <= limit => None,
        Some(found) => Some(format!("its {what} is limited to {found} and not to {limit}")),
        None => Some(format!("its {what} is not limited")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn whatever_an_engine_forgot_is_noticed() {
        assert_eq!(privileges(STATUS), None);
        for (held, found, what) in [
            ("CapEff:\t0000000000000000", "CapEff:\t00000000a80425fb", "it has capabilities"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001", "it can gain capabilities"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "it can gain privileges"),
            ("Seccomp:\t2", "Seccomp:\t0", "no system call is forbidden to it"),
        ] {
            assert_eq!(privileges(&STATUS.replace(held, found)).as_deref(), Some(what));
        }
        let root = |options: &str| {
            format!(
                "1 0 0:1 / / rw - a b c\n9 1 0:2 / / {options},relatime - overlay o rw\n\
                     10 9 0:3 / /tmp rw - tmpfs t rw\n"
            )
        };
        assert!(root_is_read_only(&root("ro")) && !root_is_read_only(&root("rw")));
        let devices = "Inter-|   Receive\n face |bytes\n    lo:       0       0\n";
        assert_eq!(interface(devices), None);
        assert_eq!(interface(&format!("{devices}  eth0: 1 1\n")), Some("eth0"));
        assert_eq!(above("memory", Some(5), 5), None);
        assert_eq!(
            above("memory", Some(6), 5).as_deref(),
            Some("its memory is limited to 6 and not to 5")
        );
        assert_eq!(above("memory", None, 5).as_deref(), Some("its memory is not limited"));
    }
}
