//! What the agent is doing, as people and programs are shown it: by the page, by `status.json`, by
//! `worker status`. Plain values; times are RFC 3339.
//!
//! What was not measured is left out, as everywhere.

use serde::{Deserialize, Serialize};

use crate::text;

/// The form of `status.json`. A reader refuses a newer one with words.
pub(crate) const FORMAT: u32 = 1;

/// So many jobs are named in a line.
const LINE_JOBS: usize = 3;

/// The agent at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    pub(crate) format: u32,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) worker_id: String,
    pub(crate) name: String,
    pub(crate) backend: String,
    pub(crate) price_per_hour: f64,
    pub(crate) started: String,
    /// When this was made.
    pub(crate) at: String,
    pub(crate) state: State,
    /// Why it is in that state, if there is more to say: what paused it, what is wrong with the backend.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) why: Option<String>,
    /// When a pause that the owner asked for ends by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) paused_until: Option<String>,
    pub(crate) registered: bool,
    /// When the backend last answered a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) last_heartbeat: Option<String>,
    pub(crate) heartbeat_interval_seconds: f64,
    pub(crate) slots: usize,
    /// Oldest first.
    pub(crate) jobs: Vec<RunningJob>,
    /// Outcomes that the backend does not have yet.
    pub(crate) waiting_results: usize,
    /// Those of them that the backend finds too large.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub(crate) too_large_results: usize,
    pub(crate) since_start: Counts,
    pub(crate) machine: Machine,
    /// None before the first look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) usage: Option<Usage>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What it is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It has not been registered yet.
    Starting,
    /// It waits for jobs.
    Online,
    /// All its slots are taken.
    Busy,
    /// It takes no jobs, for the reason given.
    Paused,
    /// The backend does not answer; jobs go on.
    Unreachable,
    /// It takes no jobs any more and ends when those that run have ended.
    Stopping,
    /// It has ended in good order.
    Stopped,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Unreachable => "unreachable",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl Snapshot {
    /// State and current job, such as `busy: job-1 training, 42 %`.
    pub(crate) fn line(&self) -> String {
        let name = self.state.name();
        let head = match &self.why {
            // It says so itself.
            Some(why) if why.contains(name) => why.clone(),
            Some(why) => format!("{name}: {why}"),
            None => name.to_owned(),
        };
        let job = |job: &RunningJob| format!("{} {}, {} %", job.id, job.kind, job.percent);
        let jobs: Vec<String> = self.jobs.iter().take(LINE_JOBS).map(job).collect();
        let more = match self.jobs.len().saturating_sub(LINE_JOBS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let line = match (jobs.is_empty(), &self.why) {
            (true, _) => head,
            (false, None) => format!("{head}: {}{more}", jobs.join("; ")),
            (false, Some(_)) => format!("{head}; {}{more}", jobs.join("; ")),
        };
        text::one_line(&line, 400)
    }
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningJob {
    /// The name of its folder and of its log.
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) attempt: u32,
    pub(crate) since: String,
    pub(crate) percent: u8,
    pub(crate) operation: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) energy_kwh: Option<f64>,
}

/// What became of jobs since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) declined: u64,
    pub(crate) cancelled: u64,
    pub(crate) heartbeats: u64,
    pub(crate) heartbeats_failed: u64,
    pub(crate) registrations: u64,
}

/// What the machine is. Sizes are in GiB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) os: String,
    pub(crate) cpu_model: String,
    pub(crate) cpu_cores: usize,
    pub(crate) ram_total_gb: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) gflops: Option<f64>,
    pub(crate) gpus: Vec<Gpu>,
    /// Why there is no GPU, or not every one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) gpu_absence: Option<String>,
}

/// What one GPU is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gpu {
    pub(crate) index: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) vram_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) driver: Option<String>,
}

/// How busy the machine is: what the last heartbeat told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) ram_percent: f64,
    pub(crate) ram_used_gb: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cpu_temp_celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) disk_free_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) disk_total_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) on_battery: Option<bool>,
    pub(crate) gpus: Vec<GpuUse>,
}

/// How busy one GPU is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuUse {
    pub(crate) index: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) temp_celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) power_limit_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) memory_used_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) memory_total_mb: Option<u64>,
    /// Since it was first looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) energy_joules: Option<f64>,
}
