//! One program after another under the same orders: what fetches a job's inputs, the job's own program,
//! and what brings its outputs away. The engine fetches for itself, so that its jobs have one stage.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Assignment;
use super::ending::{in_sandbox, on_disk, staging};
use super::program::{GRACE, author};
use crate::agent::allot::Allotment;
use crate::agent::event::Event;
use crate::agent::limits;
use crate::agent::outward::without_paths;
use crate::cid::Cid;
use crate::job::{
    self, Charge, Costs, Disk, Limits, Missing, Network, Removal, Run, Span, Supply, Watch,
};
use crate::machine::{self, EnergyMeter, HostMeter};
use crate::reading::{GpuSpecs, GpuUsage, Reading};
use crate::runner::Running;
use crate::store::{JobLog, replace};
use crate::work::{
    Blame, ContainerHandle, Ending, Failure, Job, LogLine, Object, Outcome, Reason, Report, Stage,
    Task, Transfer,
};
use crate::{clock, crash};

/// How much of a job's progress its inputs are, and how much its outputs, in percent.
const INPUTS: Span = Span { from: 0.0, to: 10.0 };
const RUN: Span = Span { from: 10.0, to: 90.0 };
const OUTPUTS: Span = Span { from: 90.0, to: 100.0 };
const WHOLE: Span = Span { from: 0.0, to: 100.0 };

/// The memory of a child that moves files: it needs no tenth of it, but an archive may want more.
const MOVING: u64 = 512 << 20;

/// What a job has come to on its way.
pub(super) struct Trip<'a> {
    pub(super) costs: Option<Costs>,
    /// What the stages so far have left of their time.
    time_left: Duration,
    log: JobLog,
    /// Those that its processes were seen on, by their place.
    gpus: BTreeSet<u32>,
    /// Those that are its alone, until it ends.
    pub(super) allotted: Allotment<'a>,
}

/// Why no further stage follows.
pub(super) enum Halt {
    Ended(Ending),
    /// The agent goes away: nothing may be recorded any more.
    Abandoned,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Ended(Ending::Failed(failure))
    }
}

impl<'a> Assignment<'a> {
    /// Takes the job through its stages. Nothing when the agent went away meanwhile.
    ///
    /// From its own program on, if that goes on in a container since an earlier agent.
    pub(super) fn through(&self, job: &Job, left: Option<&ContainerHandle>) -> Option<Outcome> {
        let log = self.shared.store.job_log(&self.key, clock::wall());
        let mut trip = Trip {
            costs: None,
            time_left: Duration::ZERO,
            log,
            gpus: BTreeSet::new(),
            allotted: self.shared.allotments.none(),
        };
        let ending = match self.stages(job, left, &mut trip) {
            Ok(result) => Ending::Completed(result),
            Err(Halt::Ended(ending)) => ending,
            Err(Halt::Abandoned) => return None,
        };
        trip.log.close();
        let Some(costs) = trip.costs else {
            return Some(Outcome::without_run(ending, clock::wall()));
        };
        Some(Outcome {
            ending,
            metrics: job::metrics(&costs, clock::since_boot()),
            final_metrics: job::final_metrics(&costs),
            gpus: names(&trip.gpus, &self.shared.gpus.latest().specs),
            at: clock::wall(),
        })
    }

    fn stages(
        &self,
        job: &Job,
        left: Option<&ContainerHandle>,
        trip: &mut Trip<'a>,
    ) -> Result<Object, Halt> {
        let Some(transfer) = &job.transfer else {
            let work = self.make_work()?;
            self.lay_out(job, &work.join("in"))?;
            crash::point("staged");
            let printed = self.pass(job, Stage::Run, &work, trip)?;
            return Ok(self.collect(printed)?);
        };
        let work = self.shared.store.work_dir(&self.key);
        let printed = match left {
            None => self.up_to_its_end(job, transfer, trip)?,
            Some(handle) => self.rejoin(job, handle, trip)?,
        };
        // Not worth a child, where nothing is wanted and nothing there.
        if !transfer.outputs.is_empty() || !job::left_nothing(&work.join("out")) {
            let removal = Removal::new(transfer.outputs.clone(), self.network());
            job::charge(&work, &removal).map_err(|error| staging(&error))?;
            self.pass(job, Stage::Outputs, &work, trip)?;
        }
        Ok(self.take_outputs(&work, printed)?)
    }

    fn make_work(&self) -> Result<PathBuf, Failure> {
        self.shared.store.make_work(&self.key).map_err(|error| staging(&error.to_string()))
    }

    /// What comes before the outputs.
    fn up_to_its_end(
        &self,
        job: &Job,
        transfer: &Transfer,
        trip: &mut Trip<'a>,
    ) -> Result<Option<Object>, Halt> {
        if let Task::Container(task) = &job.task {
            self.allot(task, trip)?;
            self.fetch_image(job, task, trip)?;
        }
        let work = self.make_work()?;
        let supply = self.supply(job, transfer);
        if !supply.inputs.is_empty() || supply.code.is_some() {
            job::charge(&work, &supply).map_err(|error| staging(&error))?;
            self.pass(job, Stage::Inputs, &work, trip)?;
        }
        crash::point("staged");
        self.pass(job, Stage::Run, &work, trip)
    }

    fn supply(&self, job: &Job, transfer: &Transfer) -> Supply {
        let code = job.task.code_url().map(str::to_owned);
        let artefacts = self.shared.store.artefacts();
        Supply::new(transfer.inputs.clone(), code, self.network(), artefacts)
    }

    fn network(&self) -> Network {
        let config = self.shared.config();
        Network {
            private: config.rules.private_downloads,
            ca_cert: config.connection.ca_cert.clone(),
        }
    }

    /// One program from its start to its end.
    fn pass(
        &self,
        job: &Job,
        stage: Stage,
        work: &Path,
        trip: &mut Trip<'_>,
    ) -> Result<Option<Object>, Halt> {
        let limits = self.limits(job, stage, trip);
        let program = match &job.task {
            Task::Container(task) if stage == Stage::Run => {
                self.make(job, task, work, &limits, trip)?
            }
            _ => Running::Process(Box::new(self.begin(job, work, &limits)?)),
        };
        self.see_through(program, limits, None, trip).map_err(|halt| match halt {
            Halt::Ended(Ending::Failed(failure)) => in_sandbox(&job.task, work, failure).into(),
            halt @ (Halt::Ended(_) | Halt::Abandoned) => halt,
        })
    }

    /// What it is doing is for it to say, unless `doing` does.
    pub(super) fn see_through(
        &self,
        program: Running,
        limits: Limits,
        doing: Option<&str>,
        trip: &mut Trip<'_>,
    ) -> Result<Option<Object>, Halt> {
        let Limits { stage, since, time, .. } = limits;
        let disk = limits.disk.clone();
        let (run, costs) = self.watch(program, limits, doing, trip).map_err(|error| {
            let error = format!("the program was lost sight of: {error}");
            Failure::of_worker(Reason::Internal, stage, error)
        })?;
        trip.costs = Some(match trip.costs.take() {
            Some(before) => before.and(costs),
            None => costs,
        });
        trip.time_left = time.saturating_sub(clock::since_boot().saturating_sub(since));
        match run {
            Run::Done(printed) => Ok(printed),
            Run::Failed(failure) => {
                let free = machine::disk(&self.shared.config().identity.state_dir);
                let failure = on_disk(failure, free.map(|disk| disk.free), |free| {
                    disk.map_or(Blame::Worker, |disk| disk.blame(job::held(&disk.folder), free))
                });
                trip.log.flush();
                Err(self.with_last_words(failure).into())
            }
            Run::Cancelled => Err(Halt::Ended(Ending::Cancelled)),
            Run::Abandoned => Err(Halt::Abandoned),
        }
    }

    pub(super) fn limits(&self, job: &Job, stage: Stage, trip: &Trip<'_>) -> Limits {
        let time = match &job.transfer {
            None => job.time_limit,
            Some(transfer) => transfer.times.of(stage) + trip.time_left,
        };
        let given = &self.shared.config().jobs.limits;
        let memory = limits::memory(&job.task, given);
        let (memory, author) = match stage {
            Stage::Run => (memory, author(&job.task)),
            Stage::Inputs | Stage::Outputs => (MOVING, Blame::Unclear),
        };
        let span = match (&job.transfer, stage) {
            (None, _) => WHOLE,
            (Some(_), Stage::Inputs) => INPUTS,
            (Some(_), Stage::Run) => RUN,
            (Some(_), Stage::Outputs) => OUTPUTS,
        };
        Limits {
            stage,
            span,
            since: clock::since_boot(),
            time,
            memory,
            disk: self.disk(job, stage),
            report_every: self.shared.config().rules.progress_interval,
            grace: GRACE,
            author,
        }
    }

    /// How much our own children write is bounded by themselves.
    fn disk(&self, job: &Job, stage: Stage) -> Option<Disk> {
        let is_theirs = matches!(job.task, Task::Script(_) | Task::Container(_));
        is_theirs.then(|| {
            let config = self.shared.config();
            let (folder, least) = (self.shared.store.work_dir(&self.key), config.rules.min_free);
            let free = machine::disk(&folder).map_or(u64::MAX, |disk| disk.free);
            let most = || limits::disk(&config.jobs.limits, job::held(&folder), free, least);
            let most = (stage == Stage::Run).then(most);
            Disk { folder, most, free, least, room: Arc::clone(&self.shared.room) }
        })
    }

    fn watch(
        &self,
        program: Running,
        limits: Limits,
        doing: Option<&str>,
        trip: &mut Trip<'_>,
    ) -> std::io::Result<(Run, Costs)> {
        let mut meter = HostMeter::new();
        let gpus = &self.shared.gpus;
        let mut read = || Reading { host: meter.read(), gpus: gpus.latest().usage };
        let mut energy_meter = EnergyMeter::new(program.id());
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
        let Trip { costs, log, gpus: seen, .. } = trip;
        let log = RefCell::new(log);
        let mut report = |report: Report| {
            // Whoever looks on sees what it printed as late as how far it is.
            log.borrow_mut().flush();
            let report = match doing {
                None => report,
                Some(doing) => of_an_engine(report, doing),
            };
            self.tell(Event::Progress { key: self.key.clone(), report: Box::new(report) });
        };
        let mut watch = Watch {
            orders: &self.orders,
            limits,
            before: costs.as_ref(),
            read: &mut read,
            energy: &mut energy,
            report: &mut report,
            log: &mut |line| log.borrow_mut().line(line),
        };
        let watched = job::watch(program, &mut watch);
        seen.extend(energy_meter.gpus());
        watched
    }

    /// What the engine is given.
    fn lay_out(&self, job: &Job, input: &Path) -> Result<(), Failure> {
        let store = &self.shared.store;
        let artefact = |cid: &Cid| store.artefact(cid, clock::wall());
        let charge = Charge {
            task: job.task.clone(),
            memory: limits::memory(&job.task, &self.shared.config().jobs.limits),
            private_downloads: self.shared.config().rules.private_downloads,
        };
        job::stage(charge, input, write, artefact).map_err(|missing| match missing {
            Missing::Artefact(error) => {
                Failure { reason: Reason::BadInput, blame: Blame::Job, ..staging(&error) }
            }
            Missing::Failed(error) => staging(&error),
        })
    }
}

/// What a program of this machine prints that does this for a job.
fn of_an_engine(report: Report, doing: &str) -> Report {
    let cut = |line: LogLine| LogLine { text: without_paths(&line.text), ..line };
    let lines = report.lines.into_iter().map(cut).collect();
    Report { operation: doing.to_owned(), lines, ..report }
}

/// By what a GPU is known wherever it sits, or else by its place.
fn names(gpus: &BTreeSet<u32>, specs: &[GpuSpecs]) -> Vec<String> {
    let name = |index: &u32| {
        let gpu = specs.iter().find(|gpu| gpu.index == *index);
        gpu.and_then(|gpu| gpu.uuid.clone()).unwrap_or_else(|| index.to_string())
    };
    gpus.iter().map(name).collect()
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    replace(path, content).map_err(|error| error.to_string())
}
