//! The GPUs, as NVIDIA's NVML tells of them.
//!
//! One thread asks the driver; everybody else reads its last answer from a shared slot. A driver
//! that hangs delays nobody: the last answer grows old, and is then no longer given out. Without a
//! driver or a GPU the thread ends at once.

use std::ffi::OsStr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::clock;
use crate::reading::{GpuSpecs, GpuUsage, percent};

use super::gib;

const LIBRARY: &str = "libnvidia-ml.so.1";

/// Beyond two missed samples: a slow answer is no reason to leave it out.
const PATIENCE: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// All GPUs at one moment. `trouble` says why something that should be there is not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpus {
    pub(crate) specs: Arc<[GpuSpecs]>,
    pub(crate) usage: Vec<GpuUsage>,
    pub(crate) trouble: Option<String>,
}

impl Gpus {
    fn none(trouble: String) -> Self {
        Self { specs: Arc::default(), usage: Vec::new(), trouble: Some(trouble) }
    }
}

/// A view of the GPUs; the thread behind it ends when this is dropped.
pub(crate) struct GpuWatch {
    slot: Arc<Slot>,
    /// Nothing is ever sent: its end is what the thread waits for.
    _alive: Sender<()>,
    period: Duration,
}

/// Shared by the watch, which reads it, and its thread, which writes it.
#[derive(Default)]
struct Slot {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
enum Seen {
    #[default]
    Nothing,
    /// There is nothing to watch, and why.
    NoGpu(String),
    /// Asked of the driver so long after boot.
    Sample(Duration, Gpus),
}

/// Samples the GPUs every `period` from now on.
pub(crate) fn watch(period: Duration) -> GpuWatch {
    watch_through(LIBRARY, period)
}

fn watch_through(library: &'static str, period: Duration) -> GpuWatch {
    let slot = Arc::new(Slot::default());
    let (alive, ended) = mpsc::channel();
    let theirs = Arc::clone(&slot);
    // Outside any scope, and never joined: a call into a driver that hangs may never return, and a
    // scope would wait for it for ever. The thread holds nothing that anybody waits for.
    let thread = thread::Builder::new().name("gpu".to_owned());
    if let Err(error) = thread.spawn(move || sample(library, &theirs, &ended, period)) {
        slot.put(Seen::NoGpu(format!("cannot start the thread that asks the GPU driver: {error}")));
    }
    GpuWatch { slot, _alive: alive, period }
}

impl GpuWatch {
    /// Returns the first sample, or after `at_most` the reason why there is none yet.
    pub(crate) fn wait_first(&self, at_most: Duration) -> Gpus {
        let seen = self.slot.lock();
        let nothing = |seen: &mut Seen| matches!(seen, Seen::Nothing);
        let (seen, _) = self
            .slot
            .changed
            .wait_timeout_while(seen, at_most, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        give(&seen, clock::since_boot(), self.period)
    }

    /// Returns the newest sample without waiting for the driver.
    pub(crate) fn latest(&self) -> Gpus {
        give(&self.slot.lock(), clock::since_boot(), self.period)
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, seen: Seen) {
        *self.lock() = seen;
        self.changed.notify_all();
    }
}

/// What may be given out at `now`: of a sample that is too old only what the GPUs are.
fn give(seen: &Seen, now: Duration, period: Duration) -> Gpus {
    match seen {
        Seen::Nothing => Gpus::none("the NVIDIA driver has not answered yet".to_owned()),
        Seen::NoGpu(reason) => Gpus::none(reason.clone()),
        Seen::Sample(at, gpus) => {
            let age = now.saturating_sub(*at);
            if age > 2 * period + PATIENCE { stale(gpus, age) } else { gpus.clone() }
        }
    }
}

fn stale(gpus: &Gpus, age: Duration) -> Gpus {
    let trouble = format!("the NVIDIA driver last answered {} s ago", age.as_secs());
    Gpus { specs: Arc::clone(&gpus.specs), usage: Vec::new(), trouble: Some(trouble) }
}

fn sample(library: &str, slot: &Slot, ended: &Receiver<()>, period: Duration) {
    let (nvml, count) = match open(library) {
        Ok(opened) => opened,
        Err(reason) => return slot.put(Seen::NoGpu(reason)),
    };
    loop {
        let at = clock::since_boot();
        slot.put(Seen::Sample(at, look(&nvml, count)));
        match ended.recv_timeout(period) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Returns the library and how many GPUs it knows, which is at least one.
fn open(library: &str) -> Result<(Nvml, u32), String> {
    let nvml = Nvml::builder().lib_path(OsStr::new(library)).init().map_err(|error| why(&error))?;
    match nvml.device_count().map_err(|error| why(&error))? {
        0 => Err("the NVIDIA driver knows no GPU".to_owned()),
        count => Ok((nvml, count)),
    }
}

fn why(error: &NvmlError) -> String {
    match error {
        // The loader's own words, which name the library.
        NvmlError::LibloadingError(cause) => format!("no NVIDIA driver: {cause}"),
        other => format!("the NVIDIA driver does not work: {other}"),
    }
}

/// Asks everything anew, also what seldom changes: that costs little, and a GPU that was lost for a
/// while is whole again at the next look.
fn look(nvml: &Nvml, count: u32) -> Gpus {
    let mut troubles = Vec::new();
    let driver = known("driver version", nvml.sys_driver_version(), &mut troubles);
    let (specs, usage): (Vec<_>, Vec<_>) = (0..count)
        .filter_map(|index| look_at(nvml, index, driver.as_deref(), &mut troubles))
        .unzip();
    let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
    Gpus { specs: specs.into(), usage, trouble }
}

fn look_at(
    nvml: &Nvml,
    index: u32,
    driver: Option<&str>,
    troubles: &mut Vec<String>,
) -> Option<(GpuSpecs, GpuUsage)> {
    let mut own = Vec::new();
    let device = known("handle", nvml.device_by_index(index), &mut own);
    let gpu = device.map(|device| ask_all(&device, index, driver, &mut own));
    // The first is enough: a GPU that fell off the bus answers every question alike.
    troubles.extend(own.first().map(|trouble| format!("GPU {index}: {trouble}")));
    gpu
}

fn ask_all(
    device: &Device<'_>,
    index: u32,
    driver: Option<&str>,
    troubles: &mut Vec<String>,
) -> (GpuSpecs, GpuUsage) {
    let memory = known("memory", device.memory_info(), troubles);
    let power_limit_w = known("power limit", device.enforced_power_limit(), troubles).map(watts);
    let sensor = TemperatureSensor::Gpu;
    let specs = GpuSpecs {
        index,
        uuid: known("uuid", device.uuid(), troubles),
        name: known("name", device.name(), troubles),
        vram_gb: memory.as_ref().map(|memory| gib(memory.total)),
        driver: driver.map(str::to_owned),
        power_limit_w,
    };
    let usage = GpuUsage {
        index,
        percent: known("utilisation", device.utilization_rates(), troubles)
            .map(|rates| f64::from(rates.gpu)),
        memory_percent: memory.as_ref().and_then(|memory| percent(memory.used, memory.total)),
        temp_c: known("temperature", device.temperature(sensor), troubles).map(f64::from),
        mem_used_mb: memory.as_ref().map(|memory| memory.used / MIB),
        mem_total_mb: memory.as_ref().map(|memory| memory.total / MIB),
        power_w: known("power", device.power_usage(), troubles).map(watts),
        power_limit_w,
    };
    (specs, usage)
}

/// The answer, if there is one. That a GPU lacks a sensor is no trouble; every other reason is.
fn known<T>(what: &str, answer: Result<T, NvmlError>, troubles: &mut Vec<String>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(NvmlError::NotSupported) => None,
        Err(error) => {
            troubles.push(format!("{what}: {error}"));
            None
        }
    }
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);
    const AT: Duration = Duration::from_secs(1000);

    fn one_gpu() -> Gpus {
        let specs = GpuSpecs {
            index: 0,
            uuid: Some("GPU-1".to_owned()),
            name: Some("NVIDIA GeForce RTX 3090".to_owned()),
            vram_gb: Some(24.0),
            driver: Some("580.95".to_owned()),
            power_limit_w: Some(350.0),
        };
        let usage = GpuUsage {
            index: 0,
            percent: Some(97.0),
            memory_percent: None,
            temp_c: Some(66.0),
            mem_used_mb: None,
            mem_total_mb: None,
            power_w: None,
            power_limit_w: Some(350.0),
        };
        Gpus { specs: [specs].into(), usage: vec![usage], trouble: None }
    }

    #[test]
    fn an_answer_is_given_out_until_it_is_too_old() {
        let seen = Seen::Sample(AT, one_gpu());
        let limit = AT + 2 * PERIOD + PATIENCE;
        for now in [AT, AT + PERIOD, limit, AT - PERIOD] {
            assert_eq!(give(&seen, now, PERIOD), one_gpu(), "{now:?}");
        }
        let trouble = Some("the NVIDIA driver last answered 21 s ago".to_owned());
        let stale = Gpus { usage: Vec::new(), trouble, ..one_gpu() };
        assert_eq!(give(&seen, limit + Duration::from_secs(1), PERIOD), stale);
    }

    #[test]
    fn before_the_first_answer_there_is_a_reason_and_no_gpu() {
        let gpus = give(&Seen::Nothing, AT, PERIOD);
        assert_eq!(gpus, Gpus::none("the NVIDIA driver has not answered yet".to_owned()));
    }

    #[test]
    fn without_the_library_the_reason_names_it_and_the_thread_ends() {
        let watch = watch_through("libno-such-driver.so.1", PERIOD);
        let gpus = watch.wait_first(Duration::from_secs(60));
        let trouble = gpus.trouble.clone().unwrap();
        assert!(trouble.starts_with("no NVIDIA driver: libno-such-driver.so.1"), "{trouble}");
        assert_eq!(gpus, Gpus::none(trouble));
        assert_eq!(watch.latest(), gpus);
        let deadline = clock::since_boot() + Duration::from_secs(60);
        while Arc::strong_count(&watch.slot) > 1 {
            assert!(clock::since_boot() < deadline, "the thread goes on");
            thread::yield_now();
        }
    }

    #[test]
    fn a_missing_sensor_is_no_trouble_and_a_lost_gpu_is() {
        let mut troubles = Vec::new();
        assert_eq!(known("power", Ok(5), &mut troubles), Some(5));
        assert_eq!(known::<u32>("power", Err(NvmlError::NotSupported), &mut troubles), None);
        assert_eq!(troubles, Vec::<String>::new());
        assert_eq!(known::<u32>("power", Err(NvmlError::NoPermission), &mut troubles), None);
        assert_eq!(troubles, [format!("power: {}", NvmlError::NoPermission)]);
    }
}
