//! The energy that one program costs: what the GPUs it runs on use meanwhile, and its share of what
//! the processor uses, by the CPU time that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::rapl::{Rapl, busy_cpu_seconds};
use crate::process::descends_from;
use crate::reading::GpuUsage;

const JOULES_PER_KWH: f64 = 3.6e6;

/// Sums up what one program costs from its start on.
pub(crate) struct EnergyMeter {
    /// Its pid, and with that its descendants.
    program: u32,
    cpu: Option<Cpu>,
    /// What each GPU had used at the last reading, and whether the program was on it.
    gpus: BTreeMap<u32, (f64, bool)>,
    /// Those that it was ever on.
    used: BTreeSet<u32>,
    /// What was measured so far; nothing while nothing could be.
    joules: Option<f64>,
    /// The processor's meter failed on the way: what it has cost meanwhile is not known.
    is_broken: bool,
}

/// The processor at the last reading, all since some moment before.
struct Cpu {
    rapl: Rapl,
    joules: f64,
    busy_seconds: f64,
    program_seconds: f64,
}

impl EnergyMeter {
    pub(crate) fn new(program: u32) -> Self {
        let cpu = Cpu::start(Path::new("/sys"), Path::new("/proc"));
        Self {
            program,
            cpu,
            gpus: BTreeMap::new(),
            used: BTreeSet::new(),
            joules: None,
            is_broken: false,
        }
    }

    /// Returns the kilowatt-hours so far, given the CPU time that the program has used.
    pub(crate) fn read(&mut self, program: Option<Duration>, gpus: &[GpuUsage]) -> Option<f64> {
        let mut cpu = None;
        if let (Some(meter), Some(program)) = (&mut self.cpu, program) {
            cpu = meter.share(Path::new("/proc"), program);
            self.is_broken |= cpu.is_none();
        }
        for joules in cpu.into_iter().chain(self.gpu_joules(gpus)) {
            *self.joules.get_or_insert(0.0) += joules;
        }
        if self.is_broken {
            return None;
        }
        // To the thousandth of a milliwatt-hour, which is below what any meter tells.
        self.joules.map(|joules| (joules / JOULES_PER_KWH * 1e9).round() / 1e9)
    }

    /// The GPUs that the program was seen on.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = u32> {
        self.used.iter().copied()
    }

    fn gpu_joules(&mut self, gpus: &[GpuUsage]) -> Option<f64> {
        let mut sum = None;
        for gpu in gpus {
            let users = gpu.users.as_ref().map_or(&[][..], |users| &users.own);
            let is_on = users.iter().any(|pid| descends_from(*pid, self.program));
            if is_on {
                self.used.insert(gpu.index);
            }
            let Some(now) = gpu.energy_j else { continue };
            let (last, was_on) = self.gpus.insert(gpu.index, (now, is_on)).unwrap_or((now, is_on));
            if was_on || is_on {
                *sum.get_or_insert(0.0) += (now - last).max(0.0);
            }
        }
        sum
    }
}

impl Cpu {
    fn start(sys: &Path, proc: &Path) -> Option<Self> {
        let mut rapl = Rapl::find(sys)?;
        let joules = rapl.read()?;
        Some(Self { rapl, joules, busy_seconds: busy_cpu_seconds(proc)?, program_seconds: 0.0 })
    }

    /// The program's part of what was used since the last reading.
    fn share(&mut self, proc: &Path, program: Duration) -> Option<f64> {
        let (joules, busy_seconds) = (self.rapl.read()?, busy_cpu_seconds(proc)?);
        let program_seconds = program.as_secs_f64();
        let used = (program_seconds - self.program_seconds).max(0.0);
        // Counted in hundredths of a second each: a part may seem to be more than the whole.
        let part = used / (busy_seconds - self.busy_seconds).max(used).max(f64::MIN_POSITIVE);
        let share = (joules - self.joules).max(0.0) * part;
        (self.joules, self.busy_seconds, self.program_seconds) =
            (joules, busy_seconds, program_seconds);
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::put;
    use crate::reading::GpuUsers;

    /// A machine whose processor has used so much energy and been busy for so long.
    fn machine(root: &Path, microjoules: u64, busy_ticks: u64) {
        let zone = "sys/class/powercap/intel-rapl:0";
        put(root, &format!("{zone}/name"), "package-0\n");
        put(root, &format!("{zone}/max_energy_range_uj"), "262143328850\n");
        put(root, &format!("{zone}/energy_uj"), &format!("{microjoules}\n"));
        put(root, "proc/stat", &format!("cpu  {busy_ticks} 0 0 900 0 0 0 0 0 0\n"));
    }

    fn gpu(index: u32, joules: f64, own: &[u32]) -> GpuUsage {
        let users = GpuUsers { own: own.to_vec(), others: 1 };
        GpuUsage { index, energy_j: Some(joules), users: Some(users), ..GpuUsage::default() }
    }

    fn meter() -> EnergyMeter {
        EnergyMeter { cpu: None, ..EnergyMeter::new(std::process::id()) }
    }

    #[test]
    fn a_program_pays_for_its_part_of_the_busy_time() {
        let root = tempfile::tempdir().unwrap();
        let (sys, proc) = (root.path().join("sys"), root.path().join("proc"));
        machine(root.path(), 1_000_000, 1000);
        let mut cpu = Cpu::start(&sys, &proc).unwrap();
        // 40 J in 4 s of busy processors, of which the program had one second.
        machine(root.path(), 41_000_000, 1400);
        assert_eq!(cpu.share(&proc, Duration::from_secs(1)), Some(10.0));
        // Nothing but the program ran.
        machine(root.path(), 51_000_000, 1450);
        assert_eq!(cpu.share(&proc, Duration::from_millis(1510)), Some(10.0));
        // It slept.
        machine(root.path(), 61_000_000, 1450);
        assert_eq!(cpu.share(&proc, Duration::from_millis(1510)), Some(0.0));
    }

    #[test]
    fn a_program_pays_for_the_gpus_that_it_runs_on_from_its_start() {
        let (mut meter, ours) = (meter(), std::process::id());
        assert_eq!(meter.read(None, &[gpu(0, 500.0, &[]), gpu(1, 700.0, &[ours])]), Some(0.0));
        let kwh = meter.read(None, &[gpu(0, 900.0, &[]), gpu(1, 1060.0, &[ours])]).unwrap();
        assert!((kwh - 1e-4).abs() < 1e-12, "360 J and not 760: {kwh}");
        assert_eq!(meter.gpus().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn where_nothing_is_measured_there_is_no_figure() {
        let silent = GpuUsage { energy_j: None, ..gpu(0, 0.0, &[std::process::id()]) };
        assert_eq!(meter().read(Some(Duration::from_secs(9)), &[silent]), None);
        assert_eq!(meter().read(Some(Duration::from_secs(9)), &[gpu(0, 5.0, &[1])]), None);
    }
}
