//! What the CPU's own meters tell of its energy (RAPL), and how long it was busy meanwhile.
//!
//! Only whole packages are added up: cores, graphics and memory are parts of one, `psys` contains it,
//! and `intel-rapl-mmio` tells the same once more. AMD's are found under the same names.

use std::fs;
use std::path::{Path, PathBuf};

use super::{read_line, read_number};
use crate::process::TICKS;

/// Adds up the energy of all packages.
#[derive(Debug)]
pub(super) struct Rapl {
    packages: Vec<Package>,
    microjoules: u64,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    /// Where the counter starts over.
    range: u64,
    last: u64,
}

impl Rapl {
    /// Looks below `sys`, which is `/sys`. Most kernels let only root read the counters.
    pub(super) fn find(sys: &Path) -> Option<Self> {
        let zones = fs::read_dir(sys.join("class/powercap")).ok()?;
        let zones = zones.filter_map(|zone| Some(zone.ok()?.path()));
        let packages: Vec<_> = zones.filter(|zone| is_package(zone)).collect();
        let packages: Option<Vec<_>> = packages.iter().map(|zone| Package::find(zone)).collect();
        let packages = packages.filter(|packages| !packages.is_empty())?;
        Some(Self { packages, microjoules: 0 })
    }

    /// Returns the joules since `find`. To be read at least every few minutes, as the counters start
    /// over, on a large machine within half an hour. Once it is `None` it stays so: part of the time
    /// is then missing.
    pub(super) fn read(&mut self) -> Option<f64> {
        let used: Option<Vec<u64>> = self.packages.iter_mut().map(Package::read).collect();
        let Some(used) = used.filter(|used| !used.is_empty()) else {
            self.packages.clear();
            return None;
        };
        self.microjoules = used.into_iter().fold(self.microjoules, u64::saturating_add);
        Some(self.microjoules as f64 / 1e6)
    }
}

/// Zones are `intel-rapl:0`, their parts `intel-rapl:0:1`.
fn is_package(zone: &Path) -> bool {
    let name = zone.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix("intel-rapl:"));
    number.is_some_and(|number| !number.contains(':'))
        && read_line(&zone.join("name")).is_some_and(|name| name.starts_with("package"))
}

impl Package {
    fn find(zone: &Path) -> Option<Self> {
        let counter = zone.join("energy_uj");
        let last = read_number(&counter)?;
        Some(Self { counter, range: read_number(&zone.join("max_energy_range_uj"))?, last })
    }

    /// The microjoules since the reading before.
    fn read(&mut self) -> Option<u64> {
        let now: u64 = read_number(&self.counter)?;
        let used = match now.checked_sub(self.last) {
            Some(used) => used,
            None => self.range.saturating_sub(self.last).saturating_add(now),
        };
        self.last = now;
        Some(used)
    }
}

/// The time that all CPUs together were not idle since boot; `proc` is `/proc`.
pub(super) fn busy_cpu_seconds(proc: &Path) -> Option<f64> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = ticks.map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
    // user, nice, system, [idle, iowait,] irq, softirq, steal. What follows, the time of guests, is
    // in user and nice already.
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at));
    let seconds = busy.map(|ticks| *ticks as f64).sum::<f64>() / f64::from(TICKS);
    // A sandbox's kernel does not count, and says 0.
    (seconds > 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{put, tree};

    fn zone(root: &Path, zone: &str, name: &str, microjoules: &str) {
        let zone = format!("class/powercap/{zone}");
        put(root, &format!("{zone}/name"), name);
        put(root, &format!("{zone}/energy_uj"), microjoules);
        put(root, &format!("{zone}/max_energy_range_uj"), "262143328850\n");
    }

    #[test]
    fn the_packages_are_added_up_and_nothing_twice() {
        let sys = tree(&[]);
        let set = |microjoules: [&str; 2]| {
            zone(sys.path(), "intel-rapl:0", "package-0\n", microjoules[0]);
            zone(sys.path(), "intel-rapl:1", "package-1\n", microjoules[1]);
            for (part, name) in [
                ("intel-rapl:0:0", "core"),
                ("intel-rapl:0:1", "package-odd"),
                ("intel-rapl:2", "psys"),
                ("intel-rapl-mmio:0", "package-0"),
                ("intel-rapl", "package"),
            ] {
                zone(sys.path(), part, name, microjoules[0]);
            }
        };
        set(["5000000\n", "100\n"]);
        let mut rapl = Rapl::find(sys.path()).unwrap();
        assert_eq!(rapl.read(), Some(0.0));
        set(["7500000\n", "1000100\n"]);
        assert_eq!(rapl.read(), Some(3.5));
        assert_eq!(rapl.read(), Some(3.5));
    }

    #[test]
    fn a_counter_that_starts_over_loses_nothing() {
        let sys = tree(&[]);
        zone(sys.path(), "intel-rapl:0", "package-0", "262143328000");
        let mut rapl = Rapl::find(sys.path()).unwrap();
        zone(sys.path(), "intel-rapl:0", "package-0", "1999150");
        assert_eq!(rapl.read(), Some(2.0));
        zone(sys.path(), "intel-rapl:0", "package-0", "2999150");
        assert_eq!(rapl.read(), Some(3.0));
    }

    #[test]
    fn a_counter_that_went_away_is_none_for_good() {
        let sys = tree(&[]);
        zone(sys.path(), "intel-rapl:0", "package-0", "1000000");
        let mut rapl = Rapl::find(sys.path()).unwrap();
        zone(sys.path(), "intel-rapl:0", "package-0", "Permission denied");
        assert_eq!(rapl.read(), None);
        zone(sys.path(), "intel-rapl:0", "package-0", "2000000");
        assert_eq!(rapl.read(), None);
    }

    #[test]
    fn where_no_package_can_be_read_there_is_no_rapl() {
        assert!(Rapl::find(tree(&[]).path()).is_none());
        let sys = tree(&[("class/powercap/intel-rapl:0/name", "package-0")]);
        assert!(Rapl::find(sys.path()).is_none(), "no counter");
        zone(sys.path(), "intel-rapl:1", "package-1", "1");
        assert!(Rapl::find(sys.path()).is_none(), "half of the machine would pass for all");
    }

    #[test]
    fn the_busy_time_counts_all_but_idling_and_guests_once() {
        let busy = |stat: &str| busy_cpu_seconds(tree(&[("stat", stat)]).path());
        let line = "cpu  100 20 30 99999 99999 4 5 6 77 7";
        assert_eq!(busy(&format!("{line}\ncpu0 1 1 1\n")), Some(1.65));
        assert_eq!(busy("cpu  100 20 30 99999"), Some(1.5), "an old kernel's");
        for odd in ["", "cpu", "cpu  0 0 0 0 0 0 0 0", "cpu  1 two 3", "intr 1 2", "cpu0 1 2 3"] {
            assert_eq!(busy(odd), None, "{odd:?}");
        }
        assert_eq!(busy_cpu_seconds(tree(&[]).path()), None);
    }
}
