//! The thread of one job: taken → staged → run → collected → recorded, each step on disk before the
//! next can be seen.

use std::cell::RefCell;
use std::io::PipeReader;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::event::Event;
use super::{Shared, log_error};
use crate::backend::wire::LAST_ATTEMPT;
use crate::cid::Cid;
use crate::job::{self, Charge, Limits, Missing, Offer, Run, Watch};
use crate::machine::{self, EnergyMeter, HostMeter};
use crate::process::{Bound, Bounds, Child, Group, Program};
use crate::reading::{GpuSpecs, GpuUsage, Reading};
use crate::store::{Phase, Record, Reusable, named_artefacts, replace};
use crate::work::{
    Attempt, Blame, Decline, Ending, Failure, Job, Key, Object, Outcome, Reason, Report, Stage,
    Task,
};
use crate::{cli, clock, crash, runner};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

/// How often an outcome that cannot be written is tried again.
pub(super) const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// A disk with less room than this is full.
const DISK_FULL: u64 = 1 << 20;

/// A job, and all its thread needs.
pub(super) struct Assignment<'a> {
    pub(super) shared: &'a Shared,
    pub(super) key: Key,
    pub(super) attempt: Attempt,
    /// Of an hour, whatever it becomes meanwhile.
    pub(super) price: f64,
    pub(super) offer: Offer,
    pub(super) orders: PipeReader,
    pub(super) events: Sender<Event>,
    /// To the thread that offers files to the IPFS node.
    pub(super) files: Sender<Cid>,
}

/// Takes the job and sees it through to its recorded outcome.
pub(super) fn run(assignment: Assignment<'_>) {
    let taken = assignment.record(Phase::Taken, Some(assignment.offer.text.clone()));
    if let Err(error) = assignment.shared.store.write(&assignment.key, &taken) {
        let error = error.to_string();
        return assignment.tell(Event::NotTaken { key: assignment.key.clone(), error });
    }
    crash::point("taken");
    let Some(outcome) = assignment.outcome() else { return };
    log_end(&assignment.attempt, &outcome);
    let verdict = outcome.verdict();
    let files = artefacts(&outcome);
    crash::point("ended");
    if assignment.record_for_sure(outcome) {
        crash::point("outcome-recorded");
        assignment.tell(Event::Ended { key: assignment.key.clone(), verdict });
        for file in files {
            // Without a node nobody listens.
            assignment.files.send(file).ok();
        }
    }
}

/// What an hour of it costs: as now, but for a job that an earlier run of the agent took.
pub(super) fn price(shared: &Shared, key: &Key, attempt: &Attempt) -> f64 {
    let taken = shared.store.read(key).ok().filter(|record| record.attempt == *attempt);
    taken.and_then(|record| record.price).unwrap_or_else(|| shared.config().identity.price)
}

impl Assignment<'_> {
    /// Runs the job. Nothing when the agent went away meanwhile: the next start finds the record.
    fn outcome(&self) -> Option<Outcome> {
        // Only jobs that could be understood are assigned.
        let job = self.offer.job.as_ref().ok()?;
        let like = self.shared.config().artefacts.reuse.then(|| like(&job.task)).flatten();
        if let Some(outcome) = like.as_deref().and_then(|like| self.reused(like)) {
            return Some(outcome);
        }
        let outcome = match self.begin(job) {
            Ok(child) => self.watch(job, child)?,
            Err(failure) => Outcome::without_run(Ending::Failed(failure), clock::wall()),
        };
        if let (Some(like), Ending::Completed(result)) = (like, &outcome.ending) {
            let (result, metrics) = (result.clone(), outcome.metrics.clone());
            log_error(self.shared.store.keep_reusable(&like, result, metrics));
        }
        Some(outcome)
    }

    /// The outcome of a job like this one, if all its files are still here.
    fn reused(&self, like: &str) -> Option<Outcome> {
        let store = &self.shared.store;
        let Reusable { mut result, metrics, .. } = store.reusable(like)?;
        let is_here = |cid: &Cid| store.artefact(cid, clock::wall()).is_some();
        if !named_artefacts(&result).iter().all(is_here) {
            return None;
        }
        result.insert("cached".into(), true.into());
        // A backend's clock starts by a report.
        let report = Report {
            percent: 1,
            operation: "answered from an earlier result".into(),
            lines: vec![],
            worked: Duration::ZERO,
            reading: None,
            energy_kwh: None,
            at: clock::wall(),
        };
        self.tell(Event::Progress { key: self.key.clone(), report: Box::new(report) });
        let ending = Ending::Completed(result);
        Some(Outcome { metrics, ..Outcome::without_run(ending, clock::wall()) })
    }

    /// Stages the job and starts its program, held; records its handle.
    fn begin(&self, job: &Job) -> Result<Child, Failure> {
        let store = &self.shared.store;
        let work = store.make_work(&self.key).map_err(|error| staging(&error.to_string()))?;
        self.stage(job, &work.join("in"))?;
        crash::point("staged");
        let starting = |error: String| {
            let error = format!("the program cannot be started: {}", one_line(&error));
            Failure::of_worker(Reason::StartFailed, Stage::Run, error)
        };
        let program = program(job, &work).map_err(starting)?;
        let child =
            Child::start(&program, self.group()).map_err(|error| starting(error.to_string()))?;
        crash::point("program-held");
        let handle = child.handle().map_err(|error| starting(error.to_string()))?;
        let running = self.record(Phase::Running(handle), Some(self.offer.text.clone()));
        store.write(&self.key, &running).map_err(|error| starting(error.to_string()))?;
        crash::point("handle-recorded");
        Ok(child)
    }

    /// One of its own where there can be one; a job goes without if that fails.
    fn group(&self) -> Option<Group> {
        let groups = self.shared.groups.as_ref()?;
        let made = groups.make(self.key.as_str(), memory_limit(machine::memory()));
        let failed = |error| log::warn!("a job runs without a control group: {error}");
        made.map_err(failed).ok()
    }

    fn stage(&self, job: &Job, input: &Path) -> Result<(), Failure> {
        let store = &self.shared.store;
        let write =
            |path: &Path, content: &[u8]| replace(path, content).map_err(|error| error.to_string());
        let artefact = |cid: &Cid| store.artefact(cid, clock::wall());
        let charge = Charge {
            task: job.task.clone(),
            memory: memory_limit(machine::memory()),
            private_downloads: self.shared.config().rules.private_downloads,
        };
        job::stage(charge, input, write, artefact).map_err(|missing| match missing {
            Missing::Artefact(error) => {
                Failure { reason: Reason::BadInput, blame: Blame::Job, ..staging(&error) }
            }
            Missing::Failed(error) => staging(&error),
        })
    }

    fn watch(&self, job: &Job, child: Child) -> Option<Outcome> {
        let mut meter = HostMeter::new();
        let gpus = &self.shared.gpus;
        let mut read = || Reading { host: meter.read(), gpus: gpus.latest().usage };
        let mut energy_meter = EnergyMeter::new(child.id());
        let mut energy = |cpu| {
            let usage = gpus.latest().usage;
            let ours =
                |gpu: &GpuUsage| gpu.users.as_ref().is_some_and(|users| !users.own.is_empty());
            if usage.iter().any(ours) {
                // What it costs is to be known to its end, and not to the last look before.
                gpus.look_soon();
            }
            energy_meter.read(cpu, &usage)
        };
        let kept = RefCell::new(self.shared.store.job_log(&self.key, clock::wall()));
        let mut report = |report: Report| {
            // Whoever looks on sees what it printed as late as how far it is.
            kept.borrow_mut().flush();
            let report = Box::new(report);
            self.tell(Event::Progress { key: self.key.clone(), report });
        };
        let limits = Limits {
            time: job.time_limit,
            memory: memory_limit(machine::memory()),
            report_every: self.shared.config().rules.progress_interval,
            grace: GRACE,
            author: author(&job.task),
        };
        let mut watch = Watch {
            orders: &self.orders,
            limits,
            read: &mut read,
            energy: &mut energy,
            report: &mut report,
            log: &mut |line| kept.borrow_mut().line(line),
        };
        let watched = job::watch(child, &mut watch);
        kept.into_inner().close();
        let (run, costs) = match watched {
            Ok(ended) => ended,
            Err(error) => {
                let error = format!("the program was lost sight of: {error}");
                let failure = Failure::of_worker(Reason::Internal, Stage::Run, error);
                return Some(Outcome::without_run(Ending::Failed(failure), clock::wall()));
            }
        };
        let ending = match run {
            Run::Done(printed) => self.collect(printed),
            Run::Failed(failure) => {
                let disk = machine::disk(&self.shared.config().identity.state_dir);
                let free = disk.map(|disk| disk.free);
                Ending::Failed(on_disk(failure, free))
            }
            Run::Cancelled => Ending::Cancelled,
            Run::Abandoned => return None,
        };
        Some(Outcome {
            ending,
            metrics: job::metrics(&costs, clock::since_boot()),
            final_metrics: job::final_metrics(&costs),
            gpus: names(energy_meter.gpus(), &gpus.latest().specs),
            at: clock::wall(),
        })
    }

    /// Takes the result, and the files that it names into the store.
    fn collect(&self, printed: Option<Object>) -> Ending {
        let store = &self.shared.store;
        let out = store.work_dir(&self.key).join("out");
        let keep = |path: &Path| {
            store.put_artefact(path, clock::wall()).map_err(|error| error.to_string())
        };
        let collected = job::collect(&out, printed).and_then(|mut result| {
            job::keep_artefacts(&mut result, &out, keep)?;
            Ok(result)
        });
        match collected {
            Ok(result) => {
                store.bound_artefacts(self.shared.config().artefacts.space, clock::wall());
                Ending::Completed(result)
            }
            Err(error) => {
                Ending::Failed(Failure::of_worker(Reason::Internal, Stage::Outputs, error))
            }
        }
    }

    fn record(&self, phase: Phase, offer: Option<String>) -> Record {
        Record {
            attempt: self.attempt.clone(),
            origin: self.shared.config().connection.backend.origin.clone(),
            worker: Some(self.shared.worker_id.clone()),
            kind: self.offer.kind.clone(),
            price: Some(self.price),
            offer,
            progressed: false,
            phase,
        }
    }

    /// Records the outcome, however long that takes: without its record it may not be sent. False
    /// when the agent went away first.
    fn record_for_sure(&self, outcome: Outcome) -> bool {
        let record = self.record(Phase::Finished { outcome, waited: Duration::ZERO }, None);
        let mut said = false;
        while let Err(error) = self.shared.store.write(&self.key, &record) {
            if !said {
                log::error!("{error}; the result of job={} waits in memory", self.attempt.id);
                said = true;
            }
            if self.agent_gone_within(RECORD_AGAIN) {
                return false;
            }
        }
        true
    }

    fn agent_gone_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.orders.as_fd(), PollFlags::empty())];
        let Ok(time) = Timespec::try_from(time) else { return false };
        // Only the end of the pipe is looked for: an order means nothing any more.
        poll(&mut fds, Some(&time)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    fn tell(&self, event: Event) {
        // Without a loop the agent is ending; the record tells the next one.
        self.events.send(event).ok();
    }
}

/// What is left is for the agent, and for whoever else is on the machine.
fn memory_limit(machine: u64) -> u64 {
    match machine {
        // Not told.
        0 => u64::MAX,
        all => all / 5 * 4,
    }
}

/// What holds where neither a control group does nor the watch, which looks once a second, and after
/// the agent's end.
fn bounds(job: &Job, cores: u64) -> Bounds {
    // Of each process; of all of them together the watch does it.
    let cpu = (job.time_limit + GRACE).as_secs().saturating_mul(cores);
    Bounds(vec![
        // Below everything a person runs; its reads and writes too, whose priority the kernel takes
        // from this one.
        (Bound::Nice, 10),
        (Bound::OomScore, 500),
        (Bound::Cpu, cpu),
        (Bound::FileSize, 20 << 30),
        (Bound::Core, 0),
        (Bound::Files, 4096),
    ])
}

fn program(job: &Job, work: &Path) -> Result<Program, String> {
    match &job.task {
        Task::Training(_) | Task::FineTuning(_) | Task::Inference(_) | Task::Compute(_) => {
            let cores = machine::threads() as u64;
            let bounds = bounds(job, cores);
            Ok(runner::engine(&job.id, work, cli::ENGINE, &bounds))
        }
        Task::Script(_) | Task::Container(_) => Err("there is no runner for it".to_owned()),
    }
}

/// The engine is ours, and was given nothing that was not checked: it fails for want of threads or
/// memory, or on a machine that computes wrong.
fn author(task: &Task) -> Blame {
    match task {
        Task::Training(_) | Task::FineTuning(_) | Task::Inference(_) | Task::Compute(_) => {
            Blame::Worker
        }
        Task::Script(_) | Task::Container(_) => Blame::Job,
    }
}

/// A program that ends by itself on a full disk ends because of that, which is no fault of the job's.
fn on_disk(failure: Failure, free: Option<u64>) -> Failure {
    let by_itself = matches!(failure.reason, Reason::NonzeroExit | Reason::KilledSignal);
    if !by_itself || free.is_none_or(|free| free >= DISK_FULL) {
        return failure;
    }
    let error = format!("the worker's disk is full: {}", failure.error);
    Failure { reason: Reason::Internal, blame: Blame::Worker, error, ..failure }
}

/// By what a GPU is known wherever it sits, or else by its place.
fn names(gpus: impl Iterator<Item = u32>, specs: &[GpuSpecs]) -> Vec<String> {
    let name = |index: u32| {
        let gpu = specs.iter().find(|gpu| gpu.index == index);
        gpu.and_then(|gpu| gpu.uuid.clone()).unwrap_or_else(|| index.to_string())
    };
    gpus.map(name).collect()
}

/// The name under which a job's result can be used again, for kinds whose files are worth it.
fn like(task: &Task) -> Option<String> {
    match task {
        Task::Training(_) | Task::FineTuning(_) => job::identity(task),
        Task::Inference(_) | Task::Compute(_) | Task::Script(_) | Task::Container(_) => None,
    }
}

fn artefacts(outcome: &Outcome) -> Vec<Cid> {
    match &outcome.ending {
        Ending::Completed(result) => named_artefacts(result),
        Ending::Failed(_) | Ending::Declined(_) | Ending::Cancelled => vec![],
    }
}

fn staging(error: &str) -> Failure {
    Failure::of_worker(Reason::Internal, Stage::Inputs, one_line(error))
}

fn one_line(text: &str) -> String {
    crate::text::one_line(text, 300)
}

fn log_end(attempt: &Attempt, outcome: &Outcome) {
    let seconds = outcome.metrics.get("processingTimeSeconds").and_then(Value::as_f64);
    let seconds = seconds.unwrap_or(0.0);
    let id = &attempt.id;
    match &outcome.ending {
        Ending::Completed(_) => log::info!("job completed job={id} seconds={seconds:.1}"),
        Ending::Failed(failure) => {
            log::warn!("job failed job={id} seconds={seconds:.1}: {}", failure.error);
        }
        Ending::Declined(_) | Ending::Cancelled => {
            log::info!("job cancelled job={id} seconds={seconds:.1}");
        }
    }
}

pub(super) fn declined(decline: Decline) -> Outcome {
    Outcome::without_run(Ending::Declined(decline), clock::wall())
}

pub(super) fn cancelled() -> Outcome {
    Outcome::without_run(Ending::Cancelled, clock::wall())
}

/// The same failure once more, with the words that tell the backend to stop handing it back.
pub(super) fn final_failure(outcome: Outcome) -> Outcome {
    let marked = |error: String| match error.strip_suffix(LAST_ATTEMPT) {
        Some(_) => error,
        None => error + LAST_ATTEMPT,
    };
    let ending = match outcome.ending {
        Ending::Failed(failure) => {
            Ending::Failed(Failure { error: marked(failure.error.clone()), ..failure })
        }
        Ending::Declined(decline) => {
            Ending::Declined(Decline { reason: marked(decline.reason), ..decline })
        }
        ending @ (Ending::Completed(_) | Ending::Cancelled) => ending,
    };
    let at: SystemTime = clock::wall();
    Outcome { ending, at, ..outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_on_a_full_disk_is_no_fault_of_the_jobs() {
        let failure = |reason| {
            let failure = Failure::of_worker(reason, Stage::Run, "exit code 1".into());
            Failure { blame: Blame::Job, ..failure }
        };
        let told = on_disk(failure(Reason::NonzeroExit), Some(0));
        assert_eq!((told.blame, told.reason), (Blame::Worker, Reason::Internal));
        assert_eq!(told.error, "the worker's disk is full: exit code 1");
        for (reason, free) in [
            (Reason::NonzeroExit, Some(DISK_FULL)),
            (Reason::NonzeroExit, None),
            (Reason::Timeout, Some(0)),
        ] {
            assert_eq!(on_disk(failure(reason), free).blame, Blame::Job, "{reason:?} {free:?}");
        }
    }
}
