//! What a heartbeat tells of the machine besides CPU, memory and GPUs.

mod power;
mod temperature;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};

use crate::reading::Vitals;

use super::{Disk, gib};
use temperature::Thermometer;
use traffic::TrafficMeter;

/// Looks at the machine; what the network carried, it tells from one reading to the next.
pub(crate) struct VitalsMeter {
    /// `/`.
    root: PathBuf,
    traffic: TrafficMeter,
    thermometer: Thermometer,
}

impl VitalsMeter {
    /// Starts the first interval. Sensors that appear later are not seen.
    pub(crate) fn new() -> Self {
        Self::of(Path::new("/"))
    }

    fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            traffic: TrafficMeter::default(),
            thermometer: Thermometer::find(&root.join("sys")),
        }
    }

    /// `disk` is the one that holds the state.
    pub(crate) fn read(&mut self, disk: Option<&Disk>) -> Vitals {
        Vitals {
            load: load(&self.root.join("proc")),
            disk_total_gb: disk.map(|disk| gib(disk.total)),
            disk_free_gb: disk.map(|disk| gib(disk.free)),
            net: self.traffic.read(&self.root),
            power: power::read(&self.root.join("sys")),
            cpu_temp_c: self.thermometer.read(),
        }
    }
}

/// Over 1, 5 and 15 minutes.
fn load(proc: &Path) -> Option<[f64; 3]> {
    let text = fs::read_to_string(proc.join("loadavg")).ok()?;
    let mut loads = text.split_whitespace().map(|load| load.parse().ok().filter(is_load));
    Some([loads.next()??, loads.next()??, loads.next()??])
}

fn is_load(load: &f64) -> bool {
    load.is_finite() && *load >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{put, tree};
    use crate::reading::{Power, Traffic};

    #[test]
    fn all_there_is_to_tell_is_told() {
        let root = tree(&[
            ("proc/loadavg", "0.52 1.10 2.00 3/250 4711\n"),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/capacity", "80\n"),
            ("sys/class/power_supply/BAT0/status", "Discharging\n"),
            ("sys/class/hwmon/hwmon0/name", "k10temp\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "51250\n"),
            ("proc/net/dev", "eth0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n"),
        ]);
        let mut meter = VitalsMeter::of(root.path());
        assert_eq!(meter.read(None).net, None, "there is no interval yet");
        put(root.path(), "proc/net/dev", "eth0: 15 0 0 0 0 0 0 0 40 0 0 0 0 0 0 0\n");
        let vitals = meter.read(Some(&Disk { total: 4 << 30, free: 3 << 29 }));
        assert_eq!(vitals.load, Some([0.52, 1.1, 2.0]));
        assert_eq!((vitals.disk_total_gb, vitals.disk_free_gb), (Some(4.0), Some(1.5)));
        assert_eq!(vitals.net, Some(Traffic { rx_bytes: 5, tx_bytes: 20 }));
        assert_eq!(vitals.power, Some(Power { battery_percent: Some(80.0), on_battery: true }));
        assert_eq!(vitals.cpu_temp_c, Some(51.25));
    }

    #[test]
    fn where_there_is_nothing_to_see_nothing_is_told() {
        let root = tree(&[]);
        let mut meter = VitalsMeter::of(root.path());
        assert_eq!((meter.read(None), meter.read(None)), (Vitals::default(), Vitals::default()));
    }

    #[test]
    fn a_load_that_is_none_is_not_told() {
        for text in ["", "0.1 0.2", "a b c", "0.1 -1 0.3", "nan 0 0", "inf 0 0"] {
            assert_eq!(load(tree(&[("loadavg", text)]).path()), None, "{text:?}");
        }
    }

    #[test]
    fn any_machine_tells_its_load_and_its_network() {
        let mut meter = VitalsMeter::new();
        meter.read(None);
        let vitals = meter.read(None);
        assert!(vitals.load.is_some() && vitals.net.is_some(), "{vitals:?}");
    }
}
