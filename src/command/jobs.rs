//! `worker jobs`: what ran here lately; and where the log of one is, for `worker logs`.

use std::io::{self, Write as _};
use std::path::Path;

use clap::ArgMatches;
use serde::Serialize;

use super::look_into;
use super::table::{Side, table};
use crate::config::state_dir_from_args;
use crate::exit::Exit;
use crate::process::{boot_id, is_running};
use crate::store::{Entry, FileError, Phase, Record, open_jobs, read_ledger};
use crate::work::{Ending, Handle, JobId, Key, Outcome};
use crate::{clock, logging, text};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (state_dir, log) = state_dir_from_args(args)?;
    logging::start(log);
    look_into(&state_dir)?;
    let mut jobs = all(&state_dir)?;
    jobs.truncate(args.get_one::<u32>("last").map_or(usize::MAX, |last| *last as usize));
    let told = if args.get_flag("json") {
        format!("{}\n", text::visible_json(&serde_json::to_string_pretty(&jobs)?))
    } else if jobs.is_empty() {
        format!("no job has come here yet: {} has none\n", state_dir.display())
    } else {
        rows(&jobs)
    };
    io::stdout().write_all(told.as_bytes())?;
    Ok(Exit::Stopped)
}

/// An attempt at a job, as it is told.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) id: String,
    kind: String,
    attempt: u32,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// When it ended; none while it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The name of its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
}

/// What is not over first, then what ended last.
pub(super) fn all(state_dir: &Path) -> Result<Vec<Told>, FileError> {
    let open = open_jobs(state_dir)?;
    let mut open: Vec<Told> =
        open.into_iter().map(|(key, record)| of_record(&key, record)).collect();
    open.sort_by(|a, b| b.ended.cmp(&a.ended).then_with(|| a.id.cmp(&b.id)));
    // Those without an end come first.
    let unended = open.partition_point(|job| job.ended.is_some());
    open.rotate_left(unended);
    open.extend(read_ledger(state_dir)?.into_iter().rev().map(of_line));
    Ok(open)
}

fn of_record(key: &Key, record: Record) -> Told {
    let (status, outcome) = match record.phase {
        Phase::Taken => ("taken", None),
        Phase::Running(Handle::Process(handle)) if is_running(&handle) => ("running", None),
        // It goes on by itself until the machine ends.
        Phase::Running(Handle::Container(container))
            if boot_id().is_ok_and(|id| id == container.boot_id) =>
        {
            ("running", None)
        }
        // Of an agent that was killed: the next start sees to it.
        Phase::Running(_) => ("interrupted", None),
        Phase::Finished { outcome, .. } => ("waits for delivery", Some(outcome)),
        Phase::Delivered { .. } | Phase::Tombstone { .. } => ("over", None),
    };
    let metric = |outcome: &Outcome| outcome.metrics.get("processingTimeSeconds")?.as_f64();
    Told {
        id: record.attempt.id.to_string(),
        kind: text::one_line(&record.kind, 60),
        attempt: record.attempt.number,
        status: status.into(),
        seconds: outcome.as_ref().and_then(metric),
        ended: outcome.as_ref().map(|outcome| clock::rfc3339(outcome.at)),
        why: outcome.and_then(|outcome| why(&outcome.ending)),
        key: Some(key.as_str().to_owned()),
    }
}

fn why(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Completed(_) => None,
        Ending::Cancelled => Some("cancelled".into()),
        Ending::Failed(failure) => Some(text::one_line(&failure.error, 300)),
        Ending::Declined(decline) => Some(text::one_line(&decline.error(), 300)),
    }
}

fn of_line(line: Entry) -> Told {
    let key = JobId::parse(&line.id).map(|id| Key::of(&line.origin, &id).as_str().to_owned());
    Told {
        id: line.id,
        kind: line.kind,
        attempt: line.attempt,
        status: line.status,
        seconds: line.seconds,
        ended: Some(line.ended),
        why: line.reason,
        key,
    }
}

fn rows(jobs: &[Told]) -> String {
    let columns = ["JOB", "KIND", "ATTEMPT", "STATUS", "SECONDS", "ENDED", "WHY"];
    let side = |name| if matches!(name, "ATTEMPT" | "SECONDS") { Side::Right } else { Side::Left };
    let row = |job: &Told| {
        let ended = job.ended.as_deref().map(|at| at.get(..19).unwrap_or(at).replace('T', " "));
        vec![
            job.id.clone(),
            job.kind.clone(),
            job.attempt.to_string(),
            job.status.clone(),
            job.seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.1}")),
            ended.unwrap_or_else(|| "-".into()),
            text::cap(job.why.as_deref().unwrap_or_default(), 100),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    table(&columns.map(|name| (name, side(name))), &rows)
}
