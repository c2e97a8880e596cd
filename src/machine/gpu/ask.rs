//! What is asked of one GPU, and what is made of the answers.

use std::collections::BTreeMap;
use std::process;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, ComputeMode, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;

use crate::machine::gib;
use crate::process::descends_from;
use crate::reading::{GpuSpecs, GpuUsage, GpuUsers, MigSpecs, percent};

const MIB: u64 = 1 << 20;

/// The answers of one GPU: what it would not tell, and whether it is there at all.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// What is not told, and why.
    pub(super) silent: Vec<String>,
    /// Set once a question was answered so: no further one is asked.
    pub(super) lost: Option<&'static str>,
}

impl Answers {
    /// Asks for something that every GPU could tell.
    pub(super) fn ask<T>(
        &mut self,
        what: &str,
        question: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        match self.try_ask(question)? {
            Ok(value) => Some(value),
            Err(error) => {
                let silence = format!("{what} ({})", why_silent(&error));
                if !self.silent.contains(&silence) {
                    self.silent.push(silence);
                }
                None
            }
        }
    }

    /// Asks for something that some GPUs do not have.
    fn ask_if_any<T>(&mut self, question: impl FnOnce() -> Result<T, NvmlError>) -> Option<T> {
        self.try_ask(question)?.ok()
    }

    fn try_ask<T>(
        &mut self,
        question: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<Result<T, NvmlError>> {
        if self.lost.is_some() {
            return None;
        }
        let answer = question();
        self.lost = match &answer {
            Err(NvmlError::GpuLost) => Some("fell off the bus"),
            Err(NvmlError::ResetRequired) => Some("has to be reset"),
            _ => None,
        };
        Some(answer).filter(|_| self.lost.is_none())
    }
}

fn why_silent(error: &NvmlError) -> String {
    match error {
        NvmlError::NotSupported => "not supported".to_owned(),
        // The loader's words would be long, and the same for each.
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            "not in this driver".to_owned()
        }
        other => other.to_string(),
    }
}

pub(super) fn specs(
    device: &Device<'_>,
    index: u32,
    driver: Option<&str>,
    answers: &mut Answers,
) -> GpuSpecs {
    let cores = answers.ask("cores", || device.num_cores());
    let max_mhz = answers.ask("highest clock", || device.max_clock_info(Clock::SM));
    GpuSpecs {
        index,
        uuid: answers.ask("uuid", || device.uuid()),
        name: answers.ask("name", || device.name()),
        vram_gb: answers.ask("memory", || device.memory_info()).map(|memory| gib(memory.total)),
        driver: driver.map(str::to_owned),
        power_limit_w: answers.ask("power limit", || device.enforced_power_limit()).map(watts),
        pci: answers.ask("PCI address", || device.pci_info()).map(|pci| pci.bus_id),
        theoretical_gflops: cores.zip(max_mhz).map(|(cores, mhz)| {
            // A fused multiply-add is two operations.
            2.0 * f64::from(cores) * f64::from(mhz) / 1e3
        }),
        compute_mode: answers.ask_if_any(|| device.compute_mode()).and_then(unshared),
        mig: instances(device, answers),
    }
}

/// The name of a mode in which not everybody may compute.
fn unshared(mode: ComputeMode) -> Option<&'static str> {
    match mode {
        ComputeMode::Default => None,
        ComputeMode::Prohibited => Some("prohibited"),
        ComputeMode::ExclusiveProcess => Some("exclusive-process"),
        ComputeMode::ExclusiveThread => Some("exclusive-thread"),
    }
}

fn instances(device: &Device<'_>, answers: &mut Answers) -> Vec<MigSpecs> {
    let divided = answers.ask_if_any(|| device.mig_mode()).is_some_and(|mode| mode.current == 1);
    if !divided {
        return vec![];
    }
    let places = answers.ask("number of MIG instances", || device.mig_device_count()).unwrap_or(0);
    // Most places are empty.
    let instances =
        (0..places).filter_map(|place| answers.ask_if_any(|| device.mig_device_by_index(place)));
    instances.collect::<Vec<_>>().iter().map(|instance| instance_specs(instance, answers)).collect()
}

fn instance_specs(instance: &Device<'_>, answers: &mut Answers) -> MigSpecs {
    let memory = answers.ask_if_any(|| instance.memory_info());
    MigSpecs {
        uuid: answers.ask_if_any(|| instance.uuid()),
        name: answers.ask_if_any(|| instance.name()),
        vram_gb: memory.map(|memory| gib(memory.total)),
    }
}

/// Which processes are ours, each looked up once: many are on every GPU.
#[derive(Debug, Default)]
pub(super) struct Kin(BTreeMap<u32, bool>);

impl Kin {
    fn is_ours(&mut self, pid: u32) -> bool {
        *self.0.entry(pid).or_insert_with(|| descends_from(pid, process::id()))
    }
}

/// All but the energy, which takes two looks.
pub(super) fn usage(
    device: &Device<'_>,
    index: u32,
    kin: &mut Kin,
    answers: &mut Answers,
) -> GpuUsage {
    let memory = answers.ask("memory", || device.memory_info());
    let used = |memory: &MemoryInfo| percent(memory.used, memory.total);
    let rates = answers.ask("utilisation", || device.utilization_rates());
    let sensor = TemperatureSensor::Gpu;
    let reasons = answers.ask("throttle reasons", || device.current_throttle_reasons());
    GpuUsage {
        index,
        percent: rates.as_ref().map(|rates| f64::from(rates.gpu)),
        memory_percent: memory.as_ref().and_then(used),
        memory_busy_percent: rates.map(|rates| f64::from(rates.memory)),
        temp_c: answers.ask("temperature", || device.temperature(sensor)).map(f64::from),
        mem_used_mb: memory.as_ref().map(|memory| memory.used / MIB),
        mem_total_mb: memory.as_ref().map(|memory| memory.total / MIB),
        power_w: answers.ask("power", || device.power_usage()).map(watts),
        power_limit_w: answers.ask("power limit", || device.enforced_power_limit()).map(watts),
        fan_percent: fans(device, answers),
        clock_mhz: answers.ask("clock", || device.clock_info(Clock::SM)),
        mem_clock_mhz: answers.ask("memory clock", || device.clock_info(Clock::Memory)),
        throttle: reasons.map(throttle_names).unwrap_or_default(),
        energy_j: None,
        users: users(device, kin, answers),
    }
}

/// The mean of the fans, if it has any: many in servers have none.
fn fans(device: &Device<'_>, answers: &mut Answers) -> Option<f64> {
    let count = answers.ask_if_any(|| device.num_fans()).filter(|count| *count > 0)?;
    let speeds: Option<Vec<u32>> =
        (0..count).map(|fan| answers.ask("fan", || device.fan_speed(fan))).collect();
    let sum: f64 = speeds?.into_iter().map(f64::from).sum();
    Some(sum / f64::from(count))
}

/// What slows the GPU down though there is work; being idle is no such reason.
fn throttle_names(reasons: ThrottleReasons) -> Vec<&'static str> {
    let named = [
        (ThrottleReasons::SW_POWER_CAP, "power"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power-brake"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal-hardware"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware"),
        (ThrottleReasons::SYNC_BOOST, "sync-boost"),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "clock-setting"),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display-clock"),
    ];
    named
        .into_iter()
        .filter(|(reason, _)| reasons.contains(*reason))
        .map(|(_, name)| name)
        .collect()
}

/// Those that compute and those that draw; some do both.
fn users(device: &Device<'_>, kin: &mut Kin, answers: &mut Answers) -> Option<GpuUsers> {
    let computing = answers.ask_if_any(|| device.running_compute_processes())?;
    let drawing = answers.ask_if_any(|| device.running_graphics_processes()).unwrap_or_default();
    let mut pids: Vec<u32> =
        computing.into_iter().chain(drawing).map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let (own, others): (Vec<u32>, Vec<u32>) = pids.into_iter().partition(|pid| kin.is_ours(*pid));
    Some(GpuUsers { own, others: others.len() })
}

pub(super) fn energy_mj(device: &Device<'_>, answers: &mut Answers) -> Option<u64> {
    // Older ones have no counter; their power is summed up instead.
    answers.ask_if_any(|| device.total_energy_consumption())
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_does_not_tell_is_said_with_its_reason() {
        let mut answers = Answers::default();
        assert_eq!(answers.ask("name", || Ok(5)), Some(5));
        assert_eq!(answers.ask::<u32>("power", || Err(NvmlError::NotSupported)), None);
        let symbol = || Err(NvmlError::FailedToLoadSymbol("undefined symbol".into()));
        assert_eq!(answers.ask::<u32>("fan", symbol), None);
        assert_eq!(answers.ask::<u32>("clock", || Err(NvmlError::Unknown)), None);
        assert_eq!(answers.ask_if_any::<u32>(|| Err(NvmlError::NotSupported)), None);
        let unknown = format!("clock ({})", NvmlError::Unknown);
        assert_eq!(
            answers.silent,
            ["power (not supported)", "fan (not in this driver)", &*unknown]
        );
        assert_eq!(answers.lost, None);
    }

    #[test]
    fn a_lost_gpu_is_asked_nothing_more() {
        let mut answers = Answers::default();
        assert_eq!(answers.ask::<u32>("name", || Err(NvmlError::GpuLost)), None);
        let asked = || -> Result<u32, NvmlError> { panic!("asked all the same") };
        assert_eq!(answers.ask("uuid", asked), None);
        assert_eq!((answers.lost, answers.silent), (Some("fell off the bus"), vec![]));
    }

    #[test]
    fn idling_is_no_reason_that_slows_a_gpu_down() {
        let idle = ThrottleReasons::GPU_IDLE;
        assert_eq!(throttle_names(idle), Vec::<&str>::new());
        let hot = idle | ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::SW_POWER_CAP;
        assert_eq!(throttle_names(hot), ["power", "thermal"]);
    }
}
