//! What becomes of a job when its programs are done.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::Assignment;
use crate::cid::{Address, Cid};
use crate::clock;
use crate::job;
use crate::runner;
use crate::work::{Blame, Failure, Object, Reason, Stage, Task};

/// A disk with less room than this is full.
const DISK_FULL: u64 = 1 << 20;

impl Assignment<'_> {
    /// Takes the engine's result, and the files that it names into the store.
    pub(super) fn collect(&self, printed: Option<Object>) -> Result<Object, Failure> {
        let store = &self.shared.store;
        let out = store.work_dir(&self.key).join("out");
        let keep = |path: &Path| self.keep(path);
        let collected = job::collect(&out, printed, keep).and_then(|(mut result, large)| {
            job::keep_artefacts(&mut result, &out, keep)?;
            if let Some(large) = large {
                result.insert("artefacts".into(), json!([large]));
            }
            Ok(result)
        });
        let result = collected
            .map_err(|error| Failure::of_worker(Reason::Internal, Stage::Outputs, error))?;
        store.bound_artefacts(self.shared.config().artefacts.space, clock::wall());
        Ok(result)
    }

    fn keep(&self, file: &Path) -> Result<Address, String> {
        let kept = self.shared.store.put_artefact(file, clock::wall());
        kept.map_err(|error| error.to_string())
    }

    /// What the job's own program printed before, if another one failed that brings its files.
    pub(super) fn with_last_words(&self, failure: Failure) -> Failure {
        if failure.stage == Stage::Run {
            return failure;
        }
        Failure { log: self.shared.store.log_end(self.key.as_str()), ..failure }
    }

    /// Takes the result of another's program, which need not have any, and what was found in its output
    /// folder.
    pub(super) fn take_outputs(
        &self,
        work: &Path,
        printed: Option<Object>,
    ) -> Result<Object, Failure> {
        let store = &self.shared.store;
        let internal = |error| Failure::of_worker(Reason::Internal, Stage::Outputs, error);
        let mut removed = job::take_answer(work).map_err(internal)?;
        let kept = removed.artefacts.iter().filter(|artefact| artefact.upload.is_none());
        // Outputs of the same content have one address, and are one file.
        let kept: BTreeSet<&Cid> = kept.map(|artefact| &artefact.cid).collect();
        for cid in kept {
            let path = job::kept_dir(work).join(cid.to_string());
            let taken = store.take_artefact(&path, cid, clock::wall());
            taken.map_err(|error| internal(error.to_string()))?;
        }
        let printed = printed.or_else(|| Some(Object::new()));
        let collected = job::collect(&work.join("out"), printed, |file| self.keep(file));
        let (mut result, large) = collected.map_err(|error| Failure {
            reason: Reason::BadInput,
            blame: Blame::Job,
            ..internal(error)
        })?;
        removed.artefacts.extend(large);
        result.insert("artefacts".into(), json!(removed.artefacts));
        if !removed.skipped.is_empty() {
            result.insert("skipped".into(), json!(removed.skipped));
        }
        store.bound_artefacts(self.shared.config().artefacts.space, clock::wall());
        Ok(result)
    }
}

/// A script that never began was no fault of its author's: its sandbox could not be made.
pub(super) fn in_sandbox(task: &Task, work: &Path, failure: Failure) -> Failure {
    let may_not_have_begun = matches!(task, Task::Script(_))
        && failure.stage == Stage::Run
        && failure.reason == Reason::NonzeroExit;
    if !may_not_have_begun || runner::has_ended(work) {
        return failure;
    }
    let why = failure.log.last().unwrap_or(&failure.error);
    let error = format!("the sandbox could not be made: {}", one_line(why));
    Failure { reason: Reason::StartFailed, blame: Blame::Worker, error, ..failure }
}

/// A program that ends by itself on a full disk ends because of that, which is no fault of the job's that did
/// not fill it.
pub(super) fn on_disk(
    failure: Failure,
    free: Option<u64>,
    blame: impl FnOnce(u64) -> Blame,
) -> Failure {
    let by_itself = matches!(failure.reason, Reason::NonzeroExit | Reason::KilledSignal);
    let Some(free) = free.filter(|free| by_itself && *free < DISK_FULL) else { return failure };
    let error = format!("the worker's disk is full: {}", failure.error);
    match blame(free) {
        Blame::Job => Failure { blame: Blame::Job, error, ..failure },
        Blame::Worker | Blame::Unclear => {
            Failure { reason: Reason::Internal, blame: Blame::Unclear, error, ..failure }
        }
    }
}

pub(super) fn staging(error: &str) -> Failure {
    Failure::of_worker(Reason::Internal, Stage::Inputs, one_line(error))
}

pub(super) fn one_line(text: &str) -> String {
    crate::text::one_line(text, 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_on_a_full_disk_is_no_fault_of_a_job_that_did_not_fill_it() {
        let failure = |reason| {
            let failure = Failure::of_worker(reason, Stage::Run, "exit code 1".into());
            Failure { blame: Blame::Job, ..failure }
        };
        let worker = |_| Blame::Worker;
        let told = on_disk(failure(Reason::NonzeroExit), Some(0), worker);
        assert_eq!((told.blame, told.reason), (Blame::Unclear, Reason::Internal));
        assert_eq!(told.error, "the worker's disk is full: exit code 1");
        for (reason, free) in [
            (Reason::NonzeroExit, Some(DISK_FULL)),
            (Reason::NonzeroExit, None),
            (Reason::Timeout, Some(0)),
        ] {
            assert_eq!(
                on_disk(failure(reason), free, worker).blame,
                Blame::Job,
                "{reason:?} {free:?}"
            );
        }
        let told = on_disk(failure(Reason::NonzeroExit), Some(0), |_| Blame::Job);
        assert_eq!((told.blame, told.reason), (Blame::Job, Reason::NonzeroExit));
    }
}
