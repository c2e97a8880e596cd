//! `record.json`: where one job is in its life, in one atomic file; and `id.json`, which job that is.
//!
//! `{"format":1,"sha256":"…","record":{…}}`; the checksum is over the text of `record` as it stands.
//! Any newer format keeps this frame, with a checksum over its number, a colon and that text: so a
//! newer file, which is refused and never rewritten, is told from one whose number was damaged. Whatever
//! does not read back is damage. The structs here are the format: they are converted from and to the
//! plain values of `work` at this border and used nowhere else.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::file::{self, FileError};
use crate::work::{
    Attempt, Blame, ContainerHandle, Decline, DeclineCode, Ending, Failure, Handle, JobId, Object,
    Outcome, ProcessHandle, Reason, Stage,
};
use crate::{clock, text};

const FORMAT: u64 = 1;

/// What is known of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) attempt: Attempt,
    /// The backend it came from; its outcome goes nowhere else.
    pub(crate) origin: String,
    /// The worker that took it, as the backend knows it; its outcome is told under no other name.
    /// Unknown in a record of a version that did not write it.
    pub(crate) worker: Option<String>,
    pub(crate) kind: String,
    /// Of an hour, when it was taken: what it earns follows no later change. Unknown in a record of a
    /// version that did not write it.
    pub(crate) price: Option<f64>,
    /// The offer as it came, which any version can read again. Gone once the job has ended.
    pub(crate) offer: Option<String>,
    /// Whether the backend had heard of its progress, noted of a failure: a job that waits there again
    /// was then put back by it.
    pub(crate) progressed: bool,
    pub(crate) phase: Phase,
}

/// How far a job is. It only ever moves forward.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// Ours; its program was never let go.
    Taken,
    Running(Handle),
    /// The outcome waits for delivery, and has so far for so long.
    Finished {
        outcome: Outcome,
        waited: Duration,
    },
    Delivered {
        outcome: Outcome,
        at: SystemTime,
    },
    /// Delivered so long ago that only the number of attempts is kept.
    Tombstone {
        at: SystemTime,
    },
}

impl Phase {
    /// Whether nothing is left to be done about it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Delivered { .. } | Self::Tombstone { .. })
    }
}

impl Record {
    /// The record as it first was, without the offer: all that must be known of a job should the rest
    /// be damaged.
    pub(super) fn first(&self) -> Self {
        Self {
            attempt: self.attempt.clone(),
            origin: self.origin.clone(),
            worker: self.worker.clone(),
            kind: self.kind.clone(),
            price: self.price,
            offer: None,
            progressed: false,
            phase: Phase::Taken,
        }
    }

    pub(super) fn over_since(&self) -> SystemTime {
        match &self.phase {
            Phase::Delivered { at, .. } | Phase::Tombstone { at } => *at,
            Phase::Taken | Phase::Running(_) | Phase::Finished { .. } => SystemTime::UNIX_EPOCH,
        }
    }
}

/// More than any record has: an offer and a result are some MiB at most.
const MAX_BYTES: u64 = 64 << 20;

/// Why a record could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no record")]
    Absent,
    /// The disk's trouble and not the record's: it may be there again later.
    #[error("{0}")]
    Io(io::Error),
    #[error("written by a newer version (format {format})")]
    Newer { format: u64 },
    #[error("damaged: {0}")]
    Damaged(String),
}

pub(super) fn write(path: &Path, record: &Record) -> Result<(), FileError> {
    let failed = |error: serde_json::Error| FileError::new("write", path, error.into());
    let record = serde_json::value::to_raw_value(&RecordFile::from(record)).map_err(failed)?;
    let file = Frame { format: FORMAT, sha256: checksum(&record), record: &record };
    file::replace(path, &serde_json::to_vec(&file).map_err(failed)?)
}

pub(super) fn read(path: &Path) -> Result<Record, ReadError> {
    match file::read_up_to(path, MAX_BYTES) {
        Ok(content) => parse(&content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Absent),
        Err(error) => Err(ReadError::Io(error)),
    }
}

pub(super) fn parse(content: &[u8]) -> Result<Record, ReadError> {
    let text = str::from_utf8(content).map_err(|error| ReadError::Damaged(error.to_string()))?;
    let damaged = |error: serde_json::Error| ReadError::Damaged(error.to_string());
    let Frame { format, sha256, record } = serde_json::from_str(text).map_err(damaged)?;
    if checksum(record) != sha256 {
        let is_newer = format > FORMAT && sha256 == newer_checksum(format, record);
        let damaged = || ReadError::Damaged("its checksum does not match".into());
        return Err(if is_newer { ReadError::Newer { format } } else { damaged() });
    }
    // It is of this format by its checksum, whatever became of the number.
    let record: RecordFile = serde_json::from_str(record.get()).map_err(damaged)?;
    record.try_into().map_err(ReadError::Damaged)
}

fn checksum(record: &RawValue) -> String {
    text::hex(&Sha256::digest(record.get()))
}

fn newer_checksum(format: u64, record: &RawValue) -> String {
    text::hex(&Sha256::digest(format!("{format}:{record}")))
}

#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    format: u64,
    sha256: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct RecordFile {
    id: String,
    content: String,
    attempt: u32,
    first_attempt: u32,
    origin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offer: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    progressed: bool,
    phase: PhaseFile,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseFile {
    Taken,
    Running {
        pid: i32,
        start_time: u64,
        boot_id: String,
    },
    Contained {
        engine: String,
        name: String,
        since_milliseconds: u64,
        time_milliseconds: u64,
        boot_id: String,
        gpus: Vec<String>,
    },
    Finished {
        outcome: OutcomeFile,
        waited_seconds: u64,
    },
    Delivered {
        outcome: OutcomeFile,
        at: String,
    },
    Tombstone {
        at: String,
    },
}

#[derive(Serialize, Deserialize)]
struct OutcomeFile {
    at: String,
    metrics: Object,
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    final_metrics: Object,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<String>,
    ending: EndingFile,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndingFile {
    Completed(Object),
    Failed {
        reason: String,
        blame: String,
        stage: String,
        error: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        log: Vec<String>,
    },
    Declined {
        code: String,
        reason: String,
    },
    Cancelled,
}

impl From<&Record> for RecordFile {
    fn from(record: &Record) -> Self {
        Self {
            id: record.attempt.id.as_str().to_owned(),
            content: record.attempt.content.clone(),
            attempt: record.attempt.number,
            first_attempt: record.attempt.first,
            origin: record.origin.clone(),
            worker: record.worker.clone(),
            kind: record.kind.clone(),
            price: record.price,
            offer: record.offer.clone(),
            progressed: record.progressed,
            phase: match &record.phase {
                Phase::Taken => PhaseFile::Taken,
                Phase::Running(handle) => handle.into(),
                Phase::Finished { outcome, waited } => PhaseFile::Finished {
                    outcome: outcome.into(),
                    waited_seconds: waited.as_secs(),
                },
                Phase::Delivered { outcome, at } => {
                    PhaseFile::Delivered { outcome: outcome.into(), at: clock::rfc3339(*at) }
                }
                Phase::Tombstone { at } => PhaseFile::Tombstone { at: clock::rfc3339(*at) },
            },
        }
    }
}

impl From<&Handle> for PhaseFile {
    fn from(handle: &Handle) -> Self {
        match handle.clone() {
            Handle::Process(ProcessHandle { pid, start_time, boot_id }) => {
                Self::Running { pid, start_time, boot_id }
            }
            Handle::Container(ContainerHandle { engine, name, since, time, boot_id, gpus }) => {
                let [since_milliseconds, time_milliseconds] =
                    [since, time].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                Self::Contained {
                    engine,
                    name,
                    since_milliseconds,
                    time_milliseconds,
                    boot_id,
                    gpus,
                }
            }
        }
    }
}

impl TryFrom<RecordFile> for Record {
    type Error = String;

    fn try_from(file: RecordFile) -> Result<Self, String> {
        if file.first_attempt == 0 || file.attempt < file.first_attempt {
            return Err(format!("attempt {} before its first one", file.attempt));
        }
        Ok(Self {
            attempt: Attempt {
                id: JobId::parse(&file.id).ok_or("no job id")?,
                content: file.content,
                number: file.attempt,
                first: file.first_attempt,
            },
            origin: file.origin,
            kind: file.kind,
            price: file.price,
            worker: file.worker,
            offer: file.offer,
            progressed: file.progressed,
            phase: match file.phase {
                PhaseFile::Taken => Phase::Taken,
                PhaseFile::Running { pid, start_time, boot_id } => {
                    Phase::Running(Handle::Process(ProcessHandle { pid, start_time, boot_id }))
                }
                PhaseFile::Contained {
                    engine,
                    name,
                    since_milliseconds,
                    time_milliseconds,
                    boot_id,
                    gpus,
                } => {
                    let [since, time] =
                        [since_milliseconds, time_milliseconds].map(Duration::from_millis);
                    let handle = ContainerHandle { engine, name, since, time, boot_id, gpus };
                    Phase::Running(Handle::Container(handle))
                }
                PhaseFile::Finished { outcome, waited_seconds } => Phase::Finished {
                    outcome: outcome.try_into()?,
                    waited: Duration::from_secs(waited_seconds),
                },
                PhaseFile::Delivered { outcome, at } => {
                    Phase::Delivered { outcome: outcome.try_into()?, at: time(&at)? }
                }
                PhaseFile::Tombstone { at } => Phase::Tombstone { at: time(&at)? },
            },
        })
    }
}

impl From<&Outcome> for OutcomeFile {
    fn from(outcome: &Outcome) -> Self {
        let ending = match &outcome.ending {
            Ending::Completed(result) => EndingFile::Completed(result.clone()),
            Ending::Failed(failure) => EndingFile::Failed {
                reason: failure.reason.name().to_owned(),
                blame: failure.blame.name().to_owned(),
                stage: failure.stage.name().to_owned(),
                error: failure.error.clone(),
                exit_code: failure.exit_code,
                signal: failure.signal,
                log: failure.log.clone(),
            },
            Ending::Declined(Decline { code, reason }) => {
                EndingFile::Declined { code: code.name().to_owned(), reason: reason.clone() }
            }
            Ending::Cancelled => EndingFile::Cancelled,
        };
        Self {
            at: clock::rfc3339(outcome.at),
            metrics: outcome.metrics.clone(),
            final_metrics: outcome.final_metrics.clone(),
            gpus: outcome.gpus.clone(),
            ending,
        }
    }
}

impl TryFrom<OutcomeFile> for Outcome {
    type Error = String;

    fn try_from(file: OutcomeFile) -> Result<Self, String> {
        let ending = match file.ending {
            EndingFile::Completed(result) => Ending::Completed(result),
            EndingFile::Failed { reason, blame, stage, error, exit_code, signal, log } => {
                Ending::Failed(Failure {
                    reason: by_name(&Reason::ALL, Reason::name, &reason)?,
                    blame: by_name(&[Blame::Job, Blame::Worker], Blame::name, &blame)?,
                    stage: by_name(&Stage::ALL, Stage::name, &stage)?,
                    error,
                    exit_code,
                    signal,
                    log,
                })
            }
            EndingFile::Declined { code, reason } => Ending::Declined(Decline {
                code: by_name(&DeclineCode::ALL, DeclineCode::name, &code)?,
                reason,
            }),
            EndingFile::Cancelled => Ending::Cancelled,
        };
        let at = time(&file.at)?;
        Ok(Self {
            ending,
            metrics: file.metrics,
            final_metrics: file.final_metrics,
            gpus: file.gpus,
            at,
        })
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn by_name<T: Copy>(all: &[T], name: fn(T) -> &'static str, wanted: &str) -> Result<T, String> {
    let found = all.iter().copied().find(|value| name(*value) == wanted);
    found.ok_or_else(|| format!("unknown word \"{wanted}\""))
}

fn time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text).map_err(|error| format!("time \"{text}\": {error}"))
}
