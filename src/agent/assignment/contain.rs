//! A job in a container: its image fetched, its folders handed over, the container made and recorded, or
//! found again by an agent that was away meanwhile.

use std::fs;
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, getegid, geteuid, getrlimit};

use super::Assignment;
use super::ending::one_line;
use super::program::GRACE;
use super::stages::{Halt, Trip};
use crate::agent::{Shared, limits};
use crate::beneath::Folder;
use crate::config::Pull;
use crate::crash;
use crate::job::Limits;
use crate::machine;
use crate::process::{Child, boot_id};
use crate::runner::{self, Container, Engine, Mount, Plan, Running};
use crate::store::{Phase, replace};
use crate::work::{
    self, Blame, ContainerHandle, Ending, Failure, Handle, Job, Object, Reason, Stage, digest,
};

/// Whoever is nobody on this machine: what gets out of a container is nobody either.
const NOBODY: u32 = 65534;

/// The script of a job of the marketplace's older kind, in the work folder.
const SCRIPT: &str = "script.py";

/// Processes and threads of one container.
const PROCESSES: u64 = 4096;

/// Those of all containers.
const PROCESSES_OF_ALL: u64 = 32_768;

/// Whose containers are ours: this worker's, on this state directory.
fn owner(shared: &Shared) -> String {
    let place = fs::metadata(&shared.config().identity.state_dir);
    let place = place.map(|meta| format!("{:x}-{:x}", meta.dev(), meta.ino())).unwrap_or_default();
    digest(&[&shared.worker_id, &place])
}

impl<'a> Assignment<'a> {
    /// Gets it the GPUs that it asks for, before anything else is done for it.
    pub(super) fn allot(&self, task: &work::Container, trip: &mut Trip<'a>) -> Result<(), Halt> {
        let specs = self.shared.gpus.latest().specs;
        let all: Vec<String> = specs.iter().filter_map(|gpu| gpu.uuid.clone()).collect();
        let allotted = self.shared.allotments.take(task.gpus, &all);
        trip.allotted = allotted.map_err(|decline| Halt::Ended(Ending::Declined(decline)))?;
        Ok(())
    }

    /// Gets the image, if that is to be done, in a time of its own.
    pub(super) fn fetch_image(
        &self,
        job: &Job,
        task: &work::Container,
        trip: &mut Trip<'_>,
    ) -> Result<(), Halt> {
        let engine = self.engine()?;
        let image = runner::full_name(&task.image);
        let config = self.shared.config();
        let pull = config.jobs.containers.pull;
        let is_here = || runner::has_image(engine, &image).map_err(|error| not_started(&error));
        if pull != Pull::Always && is_here()? {
            return Ok(());
        }
        if pull == Pull::Never {
            let error = format!("the image {image} is not on this machine, which fetches none");
            let failure = Failure::of_worker(Reason::BadInput, Stage::Inputs, error);
            return Err(Failure { blame: Blame::Job, ..failure }.into());
        }
        let client = Child::start(&runner::pull(engine, &image), None);
        let client = client.map_err(|error| not_started(&error.to_string()))?;
        let memory = limits::given_memory(&config.jobs.limits);
        let limits = self.limits(job, Stage::Inputs, trip);
        // However little it leaves for its own inputs.
        let time = limits.time.max(job.time_limit / 5);
        // An engine keeps its images where it likes.
        let limits = Limits { time, memory, disk: None, ..limits };
        let doing = format!("fetching {image}");
        let fetched =
            self.see_through(Running::Process(Box::new(client)), limits, Some(&doing), trip);
        fetched.map(drop).map_err(|halt| match halt {
            Halt::Ended(Ending::Failed(failure)) => not_fetched(&image, failure).into(),
            halt => halt,
        })
    }

    /// Makes the container and records it; it is not started yet.
    pub(super) fn make(
        &self,
        job: &Job,
        task: &work::Container,
        work: &Path,
        limits: &Limits,
        trip: &Trip<'_>,
    ) -> Result<Running, Failure> {
        let failed = |error: String| not_started(&error);
        let engine = self.engine()?;
        let gpus = &trip.allotted.gpus;
        let image = runner::full_name(&task.image);
        if let Some(why) = runner::image_objection(engine, &image).map_err(failed)? {
            let error = format!("the image {image} {why}");
            let failure = Failure::of_worker(Reason::BadInput, Stage::Run, error);
            return Err(Failure { blame: Blame::Job, ..failure });
        }
        let seccomp = seccomp_file(engine, work).map_err(failed)?;
        let plan = self.plan(job, task, work, limits).map_err(failed)?;
        let plan = Plan { gpus: gpus.clone(), seccomp, ..plan };
        hand_over(work, plan.user).map_err(|error| failed(error.to_string()))?;
        let name = plan.name.clone();
        let read_once = [Some(plan.env_file.clone()), plan.seccomp.clone()];
        let container = Container::create(engine, plan);
        // The engine has read them.
        for file in read_once.iter().flatten() {
            fs::remove_file(file).ok();
        }
        let container =
            container.map_err(|error| Failure { blame: engine.blame(), ..not_started(&error) });
        let container = Running::Container(Box::new(container?));
        crash::point("program-held");
        let boot_id = boot_id().map_err(|error| failed(error.to_string()))?;
        let handle = ContainerHandle {
            engine: engine.to_string(),
            name,
            since: limits.since,
            time: limits.time,
            boot_id,
            gpus: gpus.clone(),
        };
        let phase = Phase::Running(Handle::Container(handle));
        let record = self.record(phase, Some(self.offer.text.clone()));
        if let Err(error) = self.shared.store.write(&self.key, &record) {
            container.give_up();
            return Err(failed(error.to_string()));
        }
        crash::point("handle-recorded");
        Ok(container)
    }

    fn engine(&self) -> Result<&Engine, Failure> {
        let engine = self.shared.engine.as_ref();
        engine.ok_or_else(|| not_started("there is no container engine any more"))
    }

    fn plan(
        &self,
        job: &Job,
        task: &work::Container,
        work: &Path,
        limits: &Limits,
    ) -> Result<Plan, String> {
        let owner = owner(self.shared);
        let (key, number) = (self.key.as_str(), self.attempt.number);
        let given = &self.shared.config().jobs.limits;
        let threads = machine::threads() as f64;
        let mount = |from: &str, inside: &str, read_only| {
            let host = text(&work.join(from))?;
            Ok::<_, String>(Mount { host, inside: inside.to_owned(), read_only })
        };
        let mut mounts = vec![mount("in", "/input", true)?, mount("out", "/output", false)?];
        let mut command = task.command.clone();
        let mut args = vec![];
        if let Some(horde) = &task.horde {
            mounts.push(mount("in", "/volume", false)?);
            if let Some(folder) = &horde.artifacts {
                mounts.push(mount("out", folder, false)?);
            }
            if let Some(script) = &horde.script {
                write(&work.join(SCRIPT), script)?;
                mounts.push(mount(SCRIPT, "/script.py", true)?);
                if command.is_empty() {
                    command = ["python", "/script.py"].map(str::to_owned).to_vec();
                }
            }
            // There a command is what the image's own entry point is given.
            args = mem::take(&mut command);
        }
        let (env_file, env) = (work.join("env"), env(job, &task.env));
        // As the engines read it: a line each, taken as it stands.
        let lines: String = env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        write(&env_file, &lines)?;
        Ok(Plan {
            name: format!("qubix-worker-{}-{}-{number}", &owner[..8], &key[..12]),
            owner,
            job: key.to_owned(),
            id: job.id.to_string(),
            image: runner::full_name(&task.image),
            command,
            args,
            env_file: text(&env_file)?,
            env: env.into_iter().map(|(name, _)| name).collect(),
            mounts,
            user: user(),
            // In whole pages, as the kernel has it.
            memory: limits.memory & !0xfff,
            cpus: limits::cpus(&job.task, given).unwrap_or(threads).clamp(0.01, threads),
            processes: PROCESSES,
            processes_of_all: processes_of_all(),
            file_size: limits.disk.as_ref().and_then(|disk| disk.most).unwrap_or(given.disk),
            gpus: vec![],
            seccomp: None,
            time: limits.time + 2 * GRACE,
        })
    }

    /// Goes on with the container of an earlier agent.
    pub(super) fn rejoin(
        &self,
        job: &Job,
        handle: &ContainerHandle,
        trip: &mut Trip<'a>,
    ) -> Result<Option<Object>, Halt> {
        trip.allotted = self.shared.allotments.again(&handle.gpus);
        let container = self.found_again(handle).map_err(|why| {
            Failure::of_worker(Reason::Lost, Stage::Run, format!("lost: {}", one_line(&why)))
        })?;
        log::info!("job goes on job={}: its container still is there", self.attempt.id);
        let (since, time) = (handle.since, handle.time);
        let limits = Limits { since, time, ..self.limits(job, Stage::Run, trip) };
        self.see_through(Running::Container(Box::new(container)), limits, None, trip)
    }

    fn found_again(&self, handle: &ContainerHandle) -> Result<Container, String> {
        let config = self.shared.config();
        // The owner may have another one now.
        let engine = Engine::find(Some(Path::new(&handle.engine)), &config.jobs.containers.env)?;
        if boot_id().is_ok_and(|id| id != handle.boot_id) {
            runner::remove(&engine, &handle.name);
            return Err("the machine was started anew while the job ran".to_owned());
        }
        let found = Container::find(&engine, &handle.name)
            .inspect_err(|_| runner::remove(&engine, &handle.name))?;
        found.ok_or_else(|| "its container is not there any more".to_owned())
    }
}

/// What the container may not ask of the kernel, where its engine has to be told.
fn seccomp_file(engine: &Engine, work: &Path) -> Result<Option<String>, String> {
    let Some(profile) = &engine.seccomp else { return Ok(None) };
    let file = work.join("seccomp.json");
    write(&file, profile)?;
    text(&file).map(Some)
}

fn text(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{} cannot be named to an engine", path.display()))
}

/// Removes the containers that bear our label and that no record knows.
pub(in crate::agent) fn sweep(shared: &Shared, running: &[String]) {
    let Some(engine) = &shared.engine else { return };
    if let Err(error) = runner::sweep(engine, &owner(shared), running) {
        log::warn!("cannot look for containers of an earlier run: {error}");
    }
}

/// Removes what an earlier agent began and nobody goes on with.
pub(in crate::agent) fn remove_left(shared: &Shared, handle: &ContainerHandle) {
    let config = shared.config();
    match Engine::find(Some(Path::new(&handle.engine)), &config.jobs.containers.env) {
        Ok(engine) => runner::remove(&engine, &handle.name),
        Err(why) => log::warn!("the container {} may run on: {why}", handle.name),
    }
}

/// Ours, which what it writes belongs to then; but never root.
fn user() -> (u32, u32) {
    match geteuid().is_root() {
        true => (NOBODY, NOBODY),
        false => (geteuid().as_raw(), getegid().as_raw()),
    }
}

/// Gives the folders to whom the container runs as.
fn hand_over(work: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (folder, user, group) = (Folder::open(work)?, Uid::from_raw(user), Gid::from_raw(group));
    let script = Some(SCRIPT).filter(|name| work.join(name).exists());
    let mut names = ["in", "out"].into_iter().chain(script);
    names.try_for_each(|name| folder.give(Path::new(name), user, group))
}

/// What a container finds in its environment.
fn env(job: &Job, own: &[(String, String)]) -> Vec<(String, String)> {
    let ours = [
        ("HOME", "/tmp"),
        ("WORKER_JOB_ID", job.id.as_str()),
        ("WORKER_INPUT_DIR", "/input"),
        ("WORKER_OUTPUT_DIR", "/output"),
    ];
    let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.into_iter().chain(own.iter().cloned()).collect()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    replace(path, text.as_bytes()).map_err(|error| error.to_string())
}

fn not_started(error: &str) -> Failure {
    let error = format!("the container cannot be made: {}", one_line(error));
    Failure::of_worker(Reason::StartFailed, Stage::Run, error)
}

fn not_fetched(image: &str, failure: Failure) -> Failure {
    let by_itself = matches!(failure.reason, Reason::NonzeroExit | Reason::KilledSignal);
    if !by_itself {
        return Failure { stage: Stage::Inputs, ..failure };
    }
    let told = failure.log.last().map_or("the engine did not say why", String::as_str);
    let error = format!("the image {image} cannot be fetched: {}", one_line(told));
    // Another worker may get it; there may be no such image.
    let (reason, blame) = (Reason::DownloadFailed, Blame::Unclear);
    Failure { reason, blame, stage: Stage::Inputs, error, ..failure }
}

/// What is more than we may have ourselves would be refused.
fn processes_of_all() -> u64 {
    let most = getrlimit(Resource::Nproc).maximum;
    most.map_or(PROCESSES_OF_ALL, |most| most.min(PROCESSES_OF_ALL))
}
