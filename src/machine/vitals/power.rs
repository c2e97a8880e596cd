//! Battery and mains, where there is a battery.

use std::fs;
use std::path::Path;

use crate::machine::{read_line, read_number};
use crate::reading::Power;

/// What the supplies say together; nothing where none of them is a battery of the machine's own.
///
/// They are listed each time, as docks and chargers come and go.
pub(super) fn read(sys: &Path) -> Option<Power> {
    let supplies = fs::read_dir(sys.join("class/power_supply")).ok()?;
    let mut seen = Seen::default();
    for supply in supplies.flatten() {
        seen.add(&supply.path());
    }
    (seen.batteries > 0).then(|| seen.power())
}

#[derive(Default)]
struct Seen {
    batteries: usize,
    percents: Vec<f64>,
    is_discharging: bool,
    has_mains: bool,
    is_plugged_in: bool,
}

impl Seen {
    fn add(&mut self, supply: &Path) {
        let says = |name, what| read_line(&supply.join(name)).is_some_and(|said| said == what);
        match read_line(&supply.join("type")).as_deref() {
            // Of a mouse or a headset, the scope is `Device`. An empty bay is not present.
            Some("Battery") if !says("scope", "Device") && !says("present", "0") => {
                self.batteries += 1;
                self.percents.extend(percent(&supply.join("capacity")));
                self.is_discharging |= says("status", "Discharging");
            }
            Some("Mains") => {
                self.has_mains = true;
                self.is_plugged_in |= !says("online", "0");
            }
            Some("USB") => self.is_plugged_in |= read_number(&supply.join("online")) > Some(0),
            _ => {}
        }
    }

    fn power(&self) -> Power {
        let sum: f64 = self.percents.iter().sum();
        let count = self.percents.len();
        Power {
            battery_percent: (count > 0).then(|| sum / count as f64),
            // A plug for mains that has none says so by itself; an empty USB socket says nothing.
            on_battery: !self.is_plugged_in && (self.has_mains || self.is_discharging),
        }
    }
}

fn percent(capacity: &Path) -> Option<f64> {
    let percent: f64 = read_number(capacity)?;
    // A battery that is better than its maker thought is full.
    (percent >= 0.0).then(|| percent.min(100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tree;

    /// A supply as `BAT0/type=Battery`, a file each.
    fn power(files: &[&str]) -> Option<Power> {
        let files: Vec<_> = files.iter().map(|file| file.split_once('=').unwrap()).collect();
        let paths: Vec<_> =
            files.iter().map(|(path, _)| format!("class/power_supply/{path}")).collect();
        let files: Vec<_> =
            paths.iter().zip(&files).map(|(path, (_, text))| (path.as_str(), *text)).collect();
        read(tree(&files).path())
    }

    const BATTERY: [&str; 2] = ["BAT0/type=Battery\n", "BAT0/capacity=64\n"];

    fn with_battery(more: &[&str]) -> Power {
        power(&[&BATTERY, more].concat()).unwrap()
    }

    #[test]
    fn a_laptop_is_on_battery_when_nothing_feeds_it() {
        for (more, on_battery) in [
            (&["AC/type=Mains\n", "AC/online=1\n"][..], false),
            (&["AC/type=Mains\n", "AC/online=0\n"], true),
            (&["AC/type=Mains", "AC/online=1", "BAT0/status=Discharging"], false),
            (&["AC/type=Mains", "AC/online=0", "C/type=USB", "C/online=1"], false),
            (&["C/type=USB", "C/online=0", "BAT0/status=Discharging"], true),
            (&["C/type=USB", "C/online=0", "BAT0/status=Full"], false),
            (&["BAT0/status=Discharging\n"], true),
            (&["BAT0/status=Charging\n"], false),
            (&[], false),
        ] {
            let expected = Power { battery_percent: Some(64.0), on_battery };
            assert_eq!(with_battery(more), expected, "{more:?}");
        }
    }

    #[test]
    fn several_batteries_tell_their_mean() {
        let second = ["BAT1/type=Battery", "BAT1/capacity=104"];
        assert_eq!(with_battery(&second).battery_percent, Some(82.0));
        let odd = ["BAT1/type=Battery", "BAT1/capacity=-1", "BAT1/status=Discharging"];
        assert_eq!(
            with_battery(&odd),
            Power { battery_percent: Some(64.0), on_battery: true },
            "one that does not tell its charge"
        );
        assert_eq!(power(&BATTERY[..1]).unwrap().battery_percent, None);
    }

    #[test]
    fn a_machine_without_a_battery_of_its_own_says_nothing() {
        for files in [
            &[][..],
            &["AC/type=Mains", "AC/online=1"],
            &["mouse/type=Battery", "mouse/scope=Device\n", "mouse/capacity=50"],
            &["BAT1/type=Battery", "BAT1/present=0\n"],
            &["BAT0/type=\u{0}"],
        ] {
            assert_eq!(power(files), None, "{files:?}");
        }
    }
}
