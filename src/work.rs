//! The plain values that several rooms speak of: kinds, jobs, attempts and outcomes.
//!
//! Nothing here knows the wire or the disk; both convert at their own border.

mod task;
mod transfer;

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::text;

pub(crate) use task::{
    Code, Compute, Container, FineTuning, Horde, Inference, Kernel, Script, Share, Source, Task,
    Training,
};
pub(crate) use transfer::{
    Archive, Form, Input, Origin, Output, Repository, RepositoryKind, Times, Transfer, Upload,
};

/// How many jobs that are over are remembered, oldest forgotten first: a backend may offer junk at every
/// beat.
pub(crate) const REMEMBERED_MAX: usize = 10_000;

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// A job id fit to be written into a log, a file and an URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(String);

impl JobId {
    /// `[A-Za-z0-9._:-]{1,128}`, but neither `.` nor `..`.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let ok = (1..=128).contains(&id.len()) && id.bytes().all(fit) && id != "." && id != "..";
        ok.then(|| Self(id.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a job's folder: a hash, so that no id can name a path, and another backend's `job-1` is
/// another job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn of(origin: &str, id: &JobId) -> Self {
        Self(digest(&[origin, id.as_str()]))
    }

    /// A folder's name that looks like a key.
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        let ok = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        ok.then(|| Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first half of a SHA-256 over the parts, each with its length before it.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    text::hex(&hash.finalize()[..16])
}

/// The kinds of job this worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Training,
    Inference,
    FineTuning,
    Compute,
    Script,
    Container,
}

impl Kind {
    /// What is part of this program, and always run.
    pub(crate) const ENGINE: [Self; 4] =
        [Self::Training, Self::Inference, Self::FineTuning, Self::Compute];

    pub(crate) const ALL: [Self; 6] = [
        Self::Training,
        Self::Inference,
        Self::FineTuning,
        Self::Compute,
        Self::Script,
        Self::Container,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Inference => "inference",
            Self::FineTuning => "fine-tuning",
            Self::Compute => "compute",
            Self::Script => "script",
            Self::Container => "container",
        }
    }

    /// Finds the kind by any of the names it goes by, compared without case, `_` and spaces as `-`.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let name = name.trim().to_lowercase().replace(['_', ' '], "-");
        match name.as_str() {
            "training" | "train" | "mnist" | "mnist-training" => Some(Self::Training),
            "inference" | "infer" => Some(Self::Inference),
            "fine-tuning" | "finetune" | "finetuning" => Some(Self::FineTuning),
            "compute" | "generic" | "generic-compute" | "benchmark" => Some(Self::Compute),
            "script" | "custom-script" => Some(Self::Script),
            "container" | "docker" => Some(Self::Container),
            _ => None,
        }
    }
}

/// A job that can be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) task: Task,
    /// Of all its stages together.
    pub(crate) time_limit: Duration,
    /// Of another's program; the engine is given its inputs in its own way.
    pub(crate) transfer: Option<Transfer>,
}

/// Which job, and which try at it, a record or a completion is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) id: JobId,
    /// A hash of what the job asks for: other content under the same id is another job.
    pub(crate) content: String,
    /// Counts all attempts under this id, from 1; part of the idempotency key.
    pub(crate) number: u32,
    /// The first attempt at this content.
    pub(crate) first: u32,
}

impl Attempt {
    /// How often this content was tried, this attempt included.
    pub(crate) fn tries(&self) -> u32 {
        self.number - self.first + 1
    }
}

/// What runs a job, so that another run of the agent can find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handle {
    /// Ends with the agent.
    Process(ProcessHandle),
    /// Goes on without the agent.
    Container(ContainerHandle),
}

/// A container of this machine's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerHandle {
    pub(crate) engine: String,
    pub(crate) name: String,
    /// When its job's time began, since boot; with the boot id it tells a container that ended with
    /// the machine.
    pub(crate) since: Duration,
    /// How long it may take.
    pub(crate) time: Duration,
    pub(crate) boot_id: String,
    /// Which GPUs are its own, by UUID.
    pub(crate) gpus: Vec<String>,
}

/// A started program, so that another run of the agent can tell whether it still lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessHandle {
    pub(crate) pid: i32,
    /// In clock ticks since boot; with the boot id it tells a recycled pid from ours.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
}

/// Who made a job fail: a failure of the worker's is worth another attempt elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    Job,
    /// No job can cause it.
    Worker,
    /// The worker's as far as others are told, though a job could have caused it: it says nothing about
    /// this machine.
    Unclear,
}

impl Blame {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Worker | Self::Unclear => "worker",
        }
    }
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Declined,
    BadInput,
    DownloadFailed,
    StartFailed,
    NonzeroExit,
    KilledSignal,
    OutOfMemory,
    Timeout,
    Cancelled,
    Lost,
    UploadFailed,
    Internal,
}

impl Reason {
    pub(crate) const ALL: [Self; 12] = [
        Self::Declined,
        Self::BadInput,
        Self::DownloadFailed,
        Self::StartFailed,
        Self::NonzeroExit,
        Self::KilledSignal,
        Self::OutOfMemory,
        Self::Timeout,
        Self::Cancelled,
        Self::Lost,
        Self::UploadFailed,
        Self::Internal,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::BadInput => "bad_input",
            Self::DownloadFailed => "download_failed",
            Self::StartFailed => "start_failed",
            Self::NonzeroExit => "nonzero_exit",
            Self::KilledSignal => "killed_signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::UploadFailed => "upload_failed",
            Self::Internal => "internal",
        }
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decline {
    pub(crate) code: DeclineCode,
    pub(crate) reason: String,
}

impl Decline {
    /// The line that the backend and the log are told.
    pub(crate) fn error(&self) -> String {
        format!("declined: {}", self.reason)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeclineCode {
    Busy,
    UnknownKind,
    NotAllowed,
    BadInput,
    TooLarge,
    NoGpuFits,
}

impl DeclineCode {
    pub(crate) const ALL: [Self; 6] = [
        Self::Busy,
        Self::UnknownKind,
        Self::NotAllowed,
        Self::BadInput,
        Self::TooLarge,
        Self::NoGpuFits,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::UnknownKind => "unknown_kind",
            Self::NotAllowed => "not_allowed",
            Self::BadInput => "bad_input",
            Self::TooLarge => "too_large",
            Self::NoGpuFits => "no_gpu_fits",
        }
    }

    /// A busy worker is not the job's fault; what the job asks for is.
    pub(crate) fn blame(self) -> Blame {
        match self {
            Self::Busy => Blame::Worker,
            Self::UnknownKind
            | Self::NotAllowed
            | Self::BadInput
            | Self::TooLarge
            | Self::NoGpuFits => Blame::Job,
        }
    }
}

/// Where in its life a job was when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Inputs,
    Run,
    Outputs,
}

impl Stage {
    pub(crate) const ALL: [Self; 3] = [Self::Inputs, Self::Run, Self::Outputs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Run => "run",
            Self::Outputs => "outputs",
        }
    }
}

/// A failed job, as it is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) blame: Blame,
    pub(crate) stage: Stage,
    /// One readable line.
    pub(crate) error: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The last lines the program printed.
    pub(crate) log: Vec<String>,
}

impl Failure {
    /// A failure that no program had a part in. One that comes with inputs or outputs may come from what
    /// these are.
    pub(crate) fn of_worker(reason: Reason, stage: Stage, error: String) -> Self {
        let blame = match stage {
            Stage::Run => Blame::Worker,
            Stage::Inputs | Stage::Outputs => Blame::Unclear,
        };
        Self { blame, reason, stage, error, exit_code: None, signal: None, log: vec![] }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    Completed(Object),
    Failed(Failure),
    Declined(Decline),
    /// The backend took the job away: nothing is reported.
    Cancelled,
}

/// How an attempt ended, with what it cost. Once recorded it never changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) metrics: Object,
    /// The GPUs at the end; empty where there are none.
    pub(crate) final_metrics: Object,
    /// The GPUs that its processes were seen on, by the driver's names for them.
    pub(crate) gpus: Vec<String>,
    pub(crate) at: SystemTime,
}

impl Outcome {
    /// An outcome of a job that never ran.
    pub(crate) fn without_run(ending: Ending, at: SystemTime) -> Self {
        Self { ending, metrics: Object::new(), final_metrics: Object::new(), gpus: vec![], at }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match &self.ending {
            Ending::Completed(_) => Verdict::Completed,
            Ending::Failed(failure) => Verdict::Failed(failure.blame),
            Ending::Declined(decline) => Verdict::Declined(decline.code.blame()),
            Ending::Cancelled => Verdict::Cancelled,
        }
    }
}

/// What the loop needs to know of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Completed,
    Failed(Blame),
    Declined(Blame),
    Cancelled,
}

/// How the delivery of an outcome ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Booking {
    /// The backend has it.
    Delivered,
    /// The backend would not have it from us: the reason it gave.
    Rejected(String),
    /// The backend had taken the job away.
    Cancelled,
    /// The backend could not be reached for the whole budget of time.
    Undelivered,
}

/// What a running job is told by the loop; one byte through its pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The backend took the job away.
    Cancel,
    /// The agent stops.
    Stop,
}

impl Order {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Cancel => b'c',
            Self::Stop => b's',
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Cancel, Self::Stop].into_iter().find(|order| order.byte() == byte)
    }
}

/// How far a running job is, and what it printed since the last report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// Between 1 and 99, never going back.
    pub(crate) percent: u8,
    pub(crate) operation: String,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) worked: Duration,
    pub(crate) reading: Option<crate::reading::Reading>,
    /// What the job has cost so far, as far as it was measured.
    pub(crate) energy_kwh: Option<f64>,
    pub(crate) at: SystemTime,
}

impl LogLine {
    /// How many lines, and how many bytes of them, go with one report at most.
    pub(crate) const LINES_MAX: usize = 100;
    pub(crate) const BYTES_MAX: usize = 16 << 10;

    /// Drops the oldest of too many.
    pub(crate) fn keep_newest(lines: &mut Vec<Self>) {
        let (mut count, mut bytes) = (0, 0);
        let kept = lines.iter().rev().take_while(|line| {
            count += 1;
            bytes += line.text.len();
            count <= Self::LINES_MAX && bytes <= Self::BYTES_MAX
        });
        let dropped = lines.len() - kept.count();
        lines.drain(..dropped);
    }
}

/// A line that a job printed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogLine {
    pub(crate) from_stderr: bool,
    pub(crate) text: String,
    pub(crate) at: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_name_a_path_or_break_a_line_are_no_ids() {
        for id in ["", ".", "..", "../../etc", "a/b", "a\0b", "a b", "é", &"x".repeat(129)] {
            assert_eq!(JobId::parse(id), None, "{id:?}");
        }
        for id in ["job-1", "ee7f46ed-ec74-4526-b000-ae9778910935", "a:b.c_d", &"x".repeat(128)] {
            assert_eq!(JobId::parse(id).map(|id| id.to_string()).as_deref(), Some(id));
        }
    }

    #[test]
    fn the_same_id_at_another_backend_is_another_job() {
        let id = JobId::parse("job-1").unwrap();
        let here = Key::of("http://a:80", &id);
        assert_eq!(here, Key::of("http://a:80", &id));
        assert_ne!(here, Key::of("http://b:80", &id));
        assert_eq!(Key::from_folder(here.as_str()), Some(here));
    }

    #[test]
    fn kinds_are_found_by_all_their_names() {
        for name in ["compute", "Generic_Compute", "generic compute", "BENCHMARK"] {
            assert_eq!(Kind::by_name(name), Some(Kind::Compute), "{name}");
        }
        assert_eq!(Kind::by_name("gpt2"), None);
    }
}
