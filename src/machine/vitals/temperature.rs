//! How hot the CPU is, by the first kind of sensor that there is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{read_line, read_number};

/// Chips that measure a CPU; `cpu_thermal` and the like are known by their first letters.
const CHIPS: [&str; 5] = ["coretemp", "k10temp", "k8temp", "via_cputemp", "zenpower"];

/// What a sensor of the whole package is called, the better first: Tctl is what the fan shall go by,
/// on some processors 20 °C above the true Tdie. Where none is called so, any of the chip's counts.
const LABELS: [&str; 4] = ["Package id", "Physical id", "Tdie", "Tctl"];

/// Files to read; they are looked for once.
#[derive(Default)]
pub(super) struct Thermometer {
    sensors: Vec<PathBuf>,
}

impl Thermometer {
    pub(super) fn find(sys: &Path) -> Self {
        let chips = entries(&sys.join("class/hwmon"));
        let chips = chips.iter().filter(|chip| read_line(&chip.join("name")).is_some_and(is_chip));
        let sensors: Vec<PathBuf> = chips.flat_map(|chip| package_sensors(chip)).collect();
        let sensors = if sensors.is_empty() { zones(sys) } else { sensors };
        Self { sensors }
    }

    /// The hottest package, in °C.
    pub(super) fn read(&self) -> Option<f64> {
        let millis = self.sensors.iter().filter_map(|sensor| read_number::<f64>(sensor));
        let degrees = millis.map(|millis| millis / 1000.0).filter(is_possible);
        degrees.reduce(f64::max)
    }
}

fn is_chip(name: String) -> bool {
    CHIPS.contains(&name.as_str()) || is_cpu_zone(&name)
}

fn package_sensors(chip: &Path) -> Vec<PathBuf> {
    let labelled = |file: PathBuf| {
        let name = file.file_name()?.to_str()?.strip_suffix("_input")?;
        let number = name.strip_prefix("temp")?;
        let label = read_line(&chip.join(format!("temp{number}_label"))).unwrap_or_default();
        Some((label, file))
    };
    let sensors: Vec<_> = entries(chip).into_iter().filter_map(labelled).collect();
    let called = |label: &&str| sensors.iter().any(|(name, _)| name.starts_with(*label));
    let best = LABELS.iter().copied().find(called).unwrap_or("");
    sensors.into_iter().filter(|(name, _)| name.starts_with(best)).map(|(_, file)| file).collect()
}

fn zones(sys: &Path) -> Vec<PathBuf> {
    let kind = |zone: &PathBuf| read_line(&zone.join("type"));
    let is_cpu = |zone: &PathBuf| {
        kind(zone).is_some_and(|kind| kind == "x86_pkg_temp" || is_cpu_zone(&kind))
    };
    let zones = entries(&sys.join("class/thermal")).into_iter().filter(is_cpu);
    zones.map(|zone| zone.join("temp")).collect()
}

/// `cpu-thermal`, `cpu0_thermal`, `CPU-therm`: ARM boards spell it in many ways.
fn is_cpu_zone(name: &str) -> bool {
    name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("cpu"))
}

/// Sensors that are off or broken tell 0 or something that no CPU survives.
fn is_possible(degrees: &f64) -> bool {
    *degrees != 0.0 && *degrees > -50.0 && *degrees < 150.0
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{put, tree};

    /// One chip: its name, then `temp1=51000` or `temp1=51000 Tdie`.
    fn chip(sys: &Path, number: u32, name: &str, sensors: &[&str]) {
        let chip = format!("class/hwmon/hwmon{number}");
        put(sys, &format!("{chip}/name"), &format!("{name}\n"));
        for sensor in sensors {
            let (sensor, value) = sensor.split_once('=').unwrap();
            let (value, label) = value.split_once(' ').unwrap_or((value, ""));
            put(sys, &format!("{chip}/{sensor}_input"), &format!("{value}\n"));
            if !label.is_empty() {
                put(sys, &format!("{chip}/{sensor}_label"), &format!("{label}\n"));
            }
        }
    }

    fn told(name: &str, sensors: &[&str]) -> Option<f64> {
        let sys = tree(&[]);
        chip(sys.path(), 0, name, sensors);
        Thermometer::find(sys.path()).read()
    }

    #[test]
    fn the_package_is_told_and_not_a_core_or_what_the_fan_goes_by() {
        for (name, sensors, degrees) in [
            ("coretemp", &["temp1=55000 Package id 0", "temp2=61000 Core 0"][..], Some(55.0)),
            ("coretemp", &["temp2=61000 Core 0", "temp3=60000 Core 1"], Some(61.0)),
            ("k10temp", &["temp1=75000 Tctl", "temp2=55000 Tdie", "temp3=58000 Tccd1"], Some(55.0)),
            ("k10temp", &["temp1=52125 Tctl", "temp3=58000 Tccd1"], Some(52.125)),
            ("k10temp", &["temp1=52125"], Some(52.125)),
            ("zenpower", &["temp1=50000 Tdie", "temp2=70000 Tctl"], Some(50.0)),
            ("cpu_thermal", &["temp1=48312"], Some(48.312)),
            ("nvme", &["temp1=40000 Composite"], None),
            ("acpitz", &["temp1=27800"], None),
            ("k10temp", &[], None),
        ] {
            assert_eq!(told(name, sensors), degrees, "{name} {sensors:?}");
        }
    }

    #[test]
    fn of_two_packages_the_hotter_is_told() {
        let sys = tree(&[]);
        chip(sys.path(), 3, "coretemp", &["temp1=55000 Package id 0"]);
        chip(sys.path(), 4, "coretemp", &["temp1=66000 Package id 1"]);
        let thermometer = Thermometer::find(sys.path());
        assert_eq!(thermometer.read(), Some(66.0));
        chip(sys.path(), 4, "coretemp", &["temp1=0 Package id 1"]);
        assert_eq!(thermometer.read(), Some(55.0), "the other one's sensor is off");
    }

    #[test]
    fn thermal_zones_are_read_where_there_is_no_chip() {
        let sys = tree(&[
            ("class/thermal/thermal_zone0/type", "acpitz\n"),
            ("class/thermal/thermal_zone0/temp", "27800\n"),
            ("class/thermal/thermal_zone1/type", "x86_pkg_temp\n"),
            ("class/thermal/thermal_zone1/temp", "44000\n"),
            ("class/thermal/cooling_device0/type", "Processor\n"),
        ]);
        assert_eq!(Thermometer::find(sys.path()).read(), Some(44.0));
        put(sys.path(), "class/thermal/thermal_zone0/type", "CPU-therm\n");
        put(sys.path(), "class/thermal/thermal_zone0/temp", "45000\n");
        assert_eq!(Thermometer::find(sys.path()).read(), Some(45.0));
        chip(sys.path(), 0, "coretemp", &["temp1=50000 Package id 0"]);
        assert_eq!(Thermometer::find(sys.path()).read(), Some(50.0));
    }

    #[test]
    fn what_no_cpu_can_have_is_not_told() {
        for value in ["0", "-50000", "150000", "-128000", "", "hot", "nan", "inf", "\u{0}"] {
            assert_eq!(told("k10temp", &[&format!("temp1={value}")]), None, "{value:?}");
        }
        assert_eq!(told("k10temp", &["temp1=-1000"]), Some(-1.0), "a cold start");
    }
}
