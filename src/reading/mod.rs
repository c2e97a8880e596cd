//! What was measured of this machine: plain values that the sampler makes and the wire carries.
//!
//! What could not be measured is `None`, never zero.

mod flat;
mod gpu;
mod speed;

pub(crate) use flat::{FlatGpu, flatten};
pub(crate) use gpu::{GpuSpecs, GpuUsage, GpuUsers, MigSpecs};
pub(crate) use speed::{Measured, Speed};

/// What the machine is. Sizes are in GiB, as the backends mean by "GB".
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Specs {
    pub(crate) hostname: String,
    pub(crate) os: String,
    pub(crate) cpu_model: String,
    /// So many may be used.
    pub(crate) cpu_cores: usize,
    /// So many the host has, if more than may be used; the same goes for its memory.
    pub(crate) host_cpu_cores: Option<usize>,
    pub(crate) cpu_freq_ghz: Option<f64>,
    pub(crate) ram_total_gb: f64,
    pub(crate) host_ram_total_gb: Option<f64>,
    pub(crate) ram_available_gb: f64,
    pub(crate) storage_total_gb: Option<f64>,
    pub(crate) storage_free_gb: Option<f64>,
    pub(crate) gpus: Vec<GpuSpecs>,
}

/// How busy the machine was since the meter was last read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostUsage {
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) ram_percent: f64,
    pub(crate) ram_used_gb: f64,
    pub(crate) ram_total_gb: f64,
}

/// How the machine is otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Vitals {
    /// Over 1, 5 and 15 minutes.
    pub(crate) load: Option<[f64; 3]>,
    /// Of the disk that holds the state directory.
    pub(crate) disk_total_gb: Option<f64>,
    pub(crate) disk_free_gb: Option<f64>,
    /// Since the reading before.
    pub(crate) net: Option<Traffic>,
    /// Only where there is a battery.
    pub(crate) power: Option<Power>,
    pub(crate) cpu_temp_c: Option<f64>,
}

/// What the network carried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
}

/// Where the machine's power comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Power {
    pub(crate) battery_percent: Option<f64>,
    pub(crate) on_battery: bool,
}

/// One look at the whole machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) host: HostUsage,
    pub(crate) gpus: Vec<GpuUsage>,
}

/// The share of `part` in `whole`, or nothing where there is no whole.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}
