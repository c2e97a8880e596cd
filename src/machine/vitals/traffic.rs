//! What the network carried between two readings.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::reading::Traffic;

/// Remembers the counters of each interface, which may come, go and start over one by one.
#[derive(Default)]
pub(super) struct TrafficMeter {
    last: BTreeMap<String, Counters>,
}

#[derive(Clone, Copy)]
struct Counters {
    rx: u64,
    tx: u64,
    /// Has hardware of its own, unlike a bridge, a tunnel or a container's end of a cable.
    is_physical: bool,
}

impl TrafficMeter {
    /// What went over the physical interfaces since the reading before. A packet for a container or
    /// a tunnel passes several interfaces, and only one of those. In a container none is seen: there
    /// all count but the loopback.
    ///
    /// None where there is no such interface that was there at the reading before.
    pub(super) fn read(&mut self, root: &Path) -> Option<Traffic> {
        let text = fs::read_to_string(root.join("proc/net/dev")).unwrap_or_default();
        let now: BTreeMap<String, Counters> =
            text.lines().filter_map(|line| self.counters(line, root)).collect();
        let any_physical = now.values().any(|counters| counters.is_physical);
        let counted = now.iter().filter(|(_, counters)| counters.is_physical || !any_physical);
        let passed = counted.filter_map(|(name, now)| Some(now.since(self.last.get(name)?)));
        let traffic = passed.reduce(|all, one| Traffic {
            rx_bytes: all.rx_bytes.saturating_add(one.rx_bytes),
            tx_bytes: all.tx_bytes.saturating_add(one.tx_bytes),
        });
        self.last = now;
        traffic
    }

    /// From a line such as `eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0`.
    fn counters(&self, line: &str, root: &Path) -> Option<(String, Counters)> {
        let (name, counts) = line.split_once(':')?;
        let name = name.trim();
        let mut counts = counts.split_whitespace().map(|count| count.parse().ok());
        let (rx, tx) = (counts.next()??, counts.nth(7)??);
        if name == "lo" {
            return None;
        }
        // A host may have hundreds, of containers: each is looked at once.
        let is_physical = match self.last.get(name) {
            Some(known) => known.is_physical,
            None => root.join("sys/class/net").join(name).join("device").exists(),
        };
        Some((name.to_owned(), Counters { rx, tx, is_physical }))
    }
}

impl Counters {
    /// Nothing where they started over: how much was lost is not known.
    fn since(self, before: &Self) -> Traffic {
        Traffic {
            rx_bytes: self.rx.saturating_sub(before.rx),
            tx_bytes: self.tx.saturating_sub(before.tx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::machine::{put, tree};

    const HEAD: &str = "Inter-|   Receive          |  Transmit\n face |bytes    packets errs\n";

    fn carried(root: &Path, interfaces: &[(&str, u64, u64)]) {
        let mut text = HEAD.to_owned();
        for (name, rx, tx) in interfaces {
            writeln!(text, "{name:>6}: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0").unwrap();
        }
        put(root, "proc/net/dev", &text);
    }

    fn traffic(rx_bytes: u64, tx_bytes: u64) -> Option<Traffic> {
        Some(Traffic { rx_bytes, tx_bytes })
    }

    /// What the meter tells after each of these.
    fn told(physical: &[&str], readings: &[&[(&str, u64, u64)]]) -> Vec<Option<Traffic>> {
        let root = tree(&[]);
        for name in physical {
            put(root.path(), &format!("sys/class/net/{name}/device"), "");
        }
        let mut meter = TrafficMeter::default();
        let mut tell = |interfaces: &&[(&str, u64, u64)]| {
            carried(root.path(), interfaces);
            meter.read(root.path())
        };
        readings.iter().map(&mut tell).collect()
    }

    #[test]
    fn each_reading_tells_what_came_since_the_one_before() {
        let told = told(
            &["eth0"],
            &[&[("eth0", 1000, 500)], &[("eth0", 1700, 600)], &[("eth0", 1700, 600)]],
        );
        assert_eq!(told, [None, traffic(700, 100), traffic(0, 0)]);
    }

    #[test]
    fn a_packet_that_passes_several_interfaces_counts_once() {
        let before = [("lo", 1, 1), ("eth0", 10, 10), ("wlan0", 5, 5), ("docker0", 10, 10)];
        let after = [("lo", 900, 900), ("eth0", 110, 20), ("wlan0", 6, 5), ("docker0", 100, 20)];
        assert_eq!(told(&["eth0", "wlan0"], &[&before, &after])[1], traffic(101, 10));
    }

    #[test]
    fn in_a_container_all_but_the_loopback_count() {
        let told =
            told(&[], &[&[("lo", 1, 1), ("eth0", 10, 10)], &[("lo", 9, 9), ("eth0", 30, 11)]]);
        assert_eq!(told[1], traffic(20, 1));
    }

    #[test]
    fn interfaces_that_come_go_or_start_over_give_nothing_negative() {
        let readings: [&[(&str, u64, u64)]; 6] = [
            &[("eth0", 1000, 1000), ("usb0", 5000, 5000)],
            &[("eth0", 1001, 1001)],
            &[("eth0", 1002, 1002), ("usb0", 9000, 9000)],
            &[("eth0", 50, 1003), ("usb0", 9010, 9010)],
            &[],
            &[("usb0", 9020, 9020)],
        ];
        let told = told(&["eth0", "usb0"], &readings);
        let expected = [None, traffic(1, 1), traffic(1, 1), traffic(10, 11), None, None];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_not_a_line_of_counters_is_passed_over() {
        let root = tree(&[]);
        let mut meter = TrafficMeter::default();
        for text in ["", HEAD, "eth0", "eth0:", "eth0: 1 2 3", "eth0: a 0 0 0 0 0 0 0 b", ": 1\n:"]
        {
            put(root.path(), "proc/net/dev", text);
            assert_eq!(meter.read(root.path()), None, "{text:?}");
        }
    }
}
