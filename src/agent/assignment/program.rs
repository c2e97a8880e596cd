//! The programs of a job, each started held and let go when its handle is on disk.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Assignment;
use super::ending::one_line;
use crate::agent::limits;
use crate::job::Limits;
use crate::process::{Bound, Bounds, Child, Group, Groups, Program};
use crate::runner;
use crate::store::Phase;
use crate::work::{Blame, Failure, Handle, Job, Reason, Stage, Task};
use crate::{cli, crash};

/// Between TERM and KILL.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// What a child that moves files may write to at most; by other limits it stops much earlier.
const MOVING: u64 = 1 << 30;

impl Assignment<'_> {
    /// Starts the program of a stage, held; records its handle.
    pub(super) fn begin(&self, job: &Job, work: &Path, limits: &Limits) -> Result<Child, Failure> {
        let stage = limits.stage;
        let starting = |error: String| not_started(stage, &error);
        let program = match stage {
            Stage::Run => self.program(job, work, limits)?,
            Stage::Inputs => runner::engine(&job.id, work, cli::SUPPLY, &moving_bounds()),
            Stage::Outputs => runner::engine(&job.id, work, cli::REMOVE, &moving_bounds()),
        };
        let child = Child::start(&program, self.group(job, stage))
            .map_err(|error| starting(error.to_string()))?;
        if let Some(what) = self.objection(job, limits, &child) {
            return Err(starting(format!("it would not be held to its limits: {what}")));
        }
        crash::point("program-held");
        let handle = child.handle().map_err(|error| starting(error.to_string()))?;
        let running =
            self.record(Phase::Running(Handle::Process(handle)), Some(self.offer.text.clone()));
        let store = &self.shared.store;
        store.write(&self.key, &running).map_err(|error| starting(error.to_string()))?;
        crash::point("handle-recorded");
        Ok(child)
    }

    /// One of its own where there can be one; a job goes without if that fails.
    fn group(&self, job: &Job, stage: Stage) -> Option<Group> {
        let groups = self.shared.groups.as_ref()?;
        let limits = &self.shared.config().jobs.limits;
        let (memory, cpus) = match stage {
            Stage::Run => (limits::memory(&job.task, limits), limits::cpus(&job.task, limits)),
            Stage::Inputs | Stage::Outputs => (limits::given_memory(limits), None),
        };
        let made = groups.make(self.key.as_str(), memory, cpus);
        let failed = |error| log::warn!("a job runs without a control group: {error}");
        made.map_err(failed).ok()
    }

    /// Why a stranger's program would not be held to what it is limited to.
    fn objection(&self, job: &Job, limits: &Limits, child: &Child) -> Option<String> {
        let is_theirs = matches!(job.task, Task::Script(_)) && limits.stage == Stage::Run;
        let must_be_held = is_theirs && !self.shared.config().jobs.limits_by_polling;
        must_be_held.then(|| child.not_held_to(limits.memory)).flatten()
    }

    fn program(&self, job: &Job, work: &Path, limits: &Limits) -> Result<Program, Failure> {
        let failed = |error: String| not_started(Stage::Run, &error);
        let given = &self.shared.config().jobs.limits;
        let disk = limits.disk.as_ref().and_then(|disk| disk.most).unwrap_or(given.disk);
        let in_groups = self.shared.groups.as_ref().is_some_and(Groups::bound_processes);
        let bounds = limits::bounds(job, given, disk, GRACE, in_groups);
        match &job.task {
            Task::Training(_) | Task::FineTuning(_) | Task::Inference(_) | Task::Compute(_) => {
                Ok(runner::engine(&job.id, work, cli::ENGINE, &bounds))
            }
            Task::Script(script) => {
                // Which its inputs may have made hard.
                let told = |error: io::Error| Failure {
                    blame: Blame::Unclear,
                    ..failed(format!("the script cannot be laid out: {error}"))
                };
                let sandbox = self.shared.sandbox.as_ref();
                let sandbox = sandbox.ok_or_else(|| failed("there is no sandbox".into()))?;
                runner::lay_out(sandbox, &job.id, script, work).map_err(told)?;
                runner::script(sandbox, cli::LIMIT, script, work, &bounds).map_err(failed)
            }
            // Made by its engine: see `contain`.
            Task::Container(_) => Err(failed("it runs in a container".to_owned())),
        }
    }
}

fn not_started(stage: Stage, error: &str) -> Failure {
    let error = format!("the program cannot be started: {}", one_line(error));
    Failure::of_worker(Reason::StartFailed, stage, error)
}

/// What holds for a child that moves files.
fn moving_bounds() -> Bounds {
    Bounds(vec![
        (Bound::Nice, 10),
        (Bound::OomScore, 500),
        (Bound::Data, MOVING),
        (Bound::FileSize, 20 << 30),
        (Bound::Core, 0),
        (Bound::Files, 1024),
    ])
}

/// The engine is ours, and was given nothing that was not checked: it fails for want of threads or
/// memory, or on a machine that computes wrong.
pub(super) fn author(task: &Task) -> Blame {
    match task {
        Task::Training(_) | Task::FineTuning(_) | Task::Inference(_) | Task::Compute(_) => {
            Blame::Worker
        }
        Task::Script(_) | Task::Container(_) => Blame::Job,
    }
}
