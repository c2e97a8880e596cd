//! What a GPU is and how busy it is.

/// What one GPU is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GpuSpecs {
    pub(crate) index: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) vram_gb: Option<f64>,
    pub(crate) driver: Option<String>,
    pub(crate) power_limit_w: Option<f64>,
    /// Its address on the bus, such as `00000000:01:00.0`.
    pub(crate) pci: Option<String>,
    /// Cores times highest clock times two: what no program reaches.
    pub(crate) theoretical_gflops: Option<f64>,
    /// Set where programs do not simply share the GPU, such as `exclusive-process`.
    pub(crate) compute_mode: Option<&'static str>,
    /// The instances that it is divided into.
    pub(crate) mig: Vec<MigSpecs>,
}

/// What one instance of a divided GPU is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct MigSpecs {
    pub(crate) uuid: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) vram_gb: Option<f64>,
}

impl GpuSpecs {
    /// Whether this is the same GPU in the same state. Its power limit is not looked at: a laptop's
    /// changes every few seconds.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        *self == Self { power_limit_w: self.power_limit_w, ..other.clone() }
    }
}

/// How busy one GPU is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GpuUsage {
    pub(crate) index: u32,
    pub(crate) percent: Option<f64>,
    /// Of the memory's capacity.
    pub(crate) memory_percent: Option<f64>,
    /// Of the time, in which the memory was read or written.
    pub(crate) memory_busy_percent: Option<f64>,
    pub(crate) temp_c: Option<f64>,
    pub(crate) mem_used_mb: Option<u64>,
    pub(crate) mem_total_mb: Option<u64>,
    pub(crate) power_w: Option<f64>,
    pub(crate) power_limit_w: Option<f64>,
    /// Of its fans, the mean.
    pub(crate) fan_percent: Option<f64>,
    pub(crate) clock_mhz: Option<u32>,
    pub(crate) mem_clock_mhz: Option<u32>,
    /// What slows it down, such as `thermal`.
    pub(crate) throttle: Vec<&'static str>,
    /// Used since it was first looked at.
    pub(crate) energy_j: Option<f64>,
    pub(crate) users: Option<GpuUsers>,
}

/// The processes on one GPU.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GpuUsers {
    /// Those that this agent started, or that these started.
    pub(crate) own: Vec<u32>,
    pub(crate) others: usize,
}
