//! Other people's images, run by podman or docker.
//!
//! A container is made, then recorded, then started: a kill of the agent leaves none that no record knows
//! but one that never ran. It is the engine's and not the agent's child, so it goes on without the
//! agent; what it prints is kept by the engine, so a later agent reads it all again from the beginning,
//! and knows no less than if it had been there.
//!
//! - `engine`: which one there is, and whether it keeps its promises.
//! - `argv`: a container as a command line. `image`: what images are called.
//! - `seccomp`: what its containers may ask of the kernel. `client`: calls of the engine. `check`: that what it was told is in force.

mod argv;
mod check;
mod client;
mod engine;
mod image;
mod seccomp;

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Ended, NotStarted};
use crate::process::{
    Child, Counters, Program, Stream, Usage, Woken, has_ended, kills_for_memory, pidfd_of,
    wait_for_order,
};
use crate::work::Blame;
pub(crate) use argv::{Mount, Plan};
use client::{CALL, complaint};
pub(crate) use engine::Engine;
pub(crate) use image::{full_name, is_allowed};

/// How often a container's first process is looked for, and an engine that does not answer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_secs(1);

/// So long an engine may be away, as it is while it is updated, before its container counts as lost.
const AWAY: Duration = Duration::from_secs(300);

/// How a runtime says that it does not fit into a container's memory itself.
const TOO_LITTLE: &str = "memory limit too low";

/// What is asked of a container, an answer a field.
const STATE: &str =
    "{{.State.Status}}|{{.State.Pid}}|{{.State.ExitCode}}|{{.State.OOMKilled}}|{{.State.Error}}";

/// A container of ours, and whoever reads what it prints.
#[derive(Debug)]
pub(crate) struct Container {
    engine: Engine,
    name: String,
    /// What it must be held to; unknown of one that an earlier agent made, and checked.
    plan: Option<Plan>,
    /// The client that hands on what it prints.
    client: Option<Child>,
    /// Its first process, once it is known.
    first: Option<First>,
    look_at: Instant,
    away_since: Option<Instant>,
    /// What the client complained of last.
    complaint: Vec<String>,
    /// Whether it has printed anything, or its log was read for want of that.
    is_heard: bool,
    kills_before: Option<u64>,
    ran_out: bool,
    /// What was promised and is not in force.
    objection: Option<String>,
    state: Option<State>,
}

#[derive(Debug)]
struct First {
    process: OwnedFd,
    counters: Counters,
}

/// What the engine says of a container.
#[derive(Debug, Clone, PartialEq)]
struct State {
    how: How,
    pid: u32,
    code: i32,
    ran_out: bool,
    error: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    NeverStarted,
    Running,
    Ended,
}

impl Container {
    /// Makes it, not yet started.
    pub(crate) fn create(engine: &Engine, plan: Plan) -> Result<Self, String> {
        let args = argv::create(&plan, engine);
        let made = engine.call_with(&args, CALL)?.told();
        if let Err(error) = made {
            // It may be there all the same, half made.
            remove(engine, &plan.name);
            return Err(error);
        }
        let name = plan.name.clone();
        Ok(Self { plan: Some(plan), ..Self::of(engine, name) })
    }

    /// One that an earlier agent made. Nothing if it is not there any more.
    pub(crate) fn find(engine: &Engine, name: &str) -> Result<Option<Self>, String> {
        let state = state(engine, name)?;
        Ok(state.map(|state| Self { state: Some(state), ..Self::of(engine, name.to_owned()) }))
    }

    fn of(engine: &Engine, name: String) -> Self {
        Self {
            engine: engine.clone(),
            name,
            plan: None,
            client: None,
            first: None,
            look_at: Instant::now() + LOOK_EVERY,
            away_since: None,
            complaint: vec![],
            is_heard: false,
            kills_before: kills_for_memory(),
            ran_out: false,
            objection: None,
            state: None,
        }
    }

    /// Starts it if it never was, and begins to read what it prints.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        match self.state.take().map(|state| state.how) {
            None | Some(How::NeverStarted) => self.attend(&["start", "--attach"]),
            Some(How::Running | How::Ended) => self.attend(&["logs", "--follow"]),
        }
    }

    fn attend(&mut self, command: &[&str]) -> io::Result<()> {
        let args = command.iter().copied().chain([self.name.as_str()]);
        let args: Vec<String> = args.map(str::to_owned).collect();
        let mut client = Child::start(&self.engine.program(&args), None)?;
        client.release()?;
        self.client = Some(client);
        self.first = None;
        Ok(())
    }

    /// Waits for what it prints, an order or its end.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        orders: Option<&PipeReader>,
        sink: &mut dyn FnMut(Stream, &str),
    ) -> io::Result<Woken> {
        let now = Instant::now();
        if now >= self.look_at {
            self.look();
        }
        let at_most = at_most.min(self.look_at.saturating_duration_since(now).max(LOOK_EVERY));
        let Some(client) = &mut self.client else {
            return match wait_for_order(orders, at_most)? {
                Some(order) => Ok(Woken::Order(order)),
                None => self.ask_after_it(),
            };
        };
        let mut listen = |stream, line: &str| {
            self.is_heard = true;
            keep(&mut self.complaint, stream, line);
            sink(stream, line);
        };
        let woken = client.wait(at_most, orders, &mut listen)?;
        // Before the engine, which hears of it at the same moment, removes the group.
        if self.first.as_ref().is_some_and(|first| has_ended(&first.process)) {
            self.count();
        }
        if woken != Woken::Exited {
            return Ok(woken);
        }
        if let Some(client) = self.client.take() {
            client.finish(&mut |stream, line| {
                self.is_heard = true;
                keep(&mut self.complaint, stream, line);
                sink(stream, line);
            })?;
        }
        self.ask_after_it()
    }

    fn count(&mut self) {
        let counters = self.first.as_ref().map(|first| &first.counters);
        self.ran_out |= counters.is_some_and(Counters::ran_out_of_memory);
    }

    /// Its client has ended, which it does with the container; or else by the engine's own restart.
    fn ask_after_it(&mut self) -> io::Result<Woken> {
        let now = Instant::now();
        if self.away_since.is_some() && now < self.look_at {
            return Ok(Woken::Timeout);
        }
        match state(&self.engine, &self.name) {
            Ok(Some(State { how: How::Running, .. })) => {
                self.away_since = None;
                self.attend(&["logs", "--follow", "--tail=0"])?;
                Ok(Woken::Timeout)
            }
            // A client that joins one that ends at once may miss all of what it printed.
            Ok(Some(State { how: How::Ended, .. })) if !self.is_heard => {
                self.is_heard = true;
                let first = self.first.take();
                self.attend(&["logs"])?;
                self.first = first;
                Ok(Woken::Timeout)
            }
            Ok(Some(state)) => {
                self.state = Some(state);
                Ok(Woken::Exited)
            }
            Ok(None) => Err(io::Error::other("somebody removed its container")),
            Err(error) => {
                let since = *self.away_since.get_or_insert(now);
                self.look_at = now + ASK_EVERY;
                if now.duration_since(since) < AWAY {
                    return Ok(Woken::Timeout);
                }
                Err(io::Error::other(error))
            }
        }
    }

    /// Looks for its first process until that is known.
    fn look(&mut self) {
        self.look_at = Instant::now() + if self.first.is_some() { AWAY } else { LOOK_EVERY };
        if self.first.is_some() {
            return;
        }
        let Ok(Some(State { how: How::Running, pid, .. })) = state(&self.engine, &self.name) else {
            return;
        };
        let Some(process) = pidfd_of(pid) else { return };
        if let (Some(client), Ok(other)) = (&mut self.client, process.try_clone()) {
            client.wake_with(other);
        }
        let counters = Counters::of_process(pid);
        if let Some(plan) = &self.plan {
            self.objection = check::objection(plan, pid, &counters);
        }
        self.first = Some(First { process, counters });
        if self.objection.is_some() {
            self.kill();
        }
    }

    /// Tells its first process to end, which it may take as it likes.
    pub(crate) fn ask(&self, signal: Signal) {
        if signal == Signal::TERM {
            self.tell(&["kill", "--signal=TERM", &self.name]);
        }
    }

    pub(crate) fn kill(&self) {
        self.tell(&["kill", &self.name]);
    }

    fn tell(&self, args: &[&str]) {
        // It may have ended, which is what is wanted.
        if let Err(error) = self.engine.call(args, CALL).and_then(client::Answer::told) {
            log::debug!("{} {}: {error}", self.engine.speech.name(), args.join(" "));
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.first.as_ref().map(|first| first.counters.usage()).unwrap_or_default()
    }

    pub(crate) fn unlinked(&self, device: u64) -> u64 {
        self.first.as_ref().map_or(0, |first| first.counters.unlinked(device))
    }

    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let now = || self.first.as_ref().is_some_and(|first| first.counters.ran_out_of_memory());
        self.ran_out || now()
    }

    /// Tells how it ended, and removes it.
    pub(crate) fn finish(self) -> Ended {
        remove(&self.engine, &self.name);
        let Some(state) = &self.state else {
            return Ended { status: ExitStatus::from_raw(0), ran_out: false, not_started: None };
        };
        // Where its group was never seen, the machine's count is all there is.
        let killed = || self.first.is_none() && kills_for_memory() > self.kills_before;
        let ran_out = self.ran_out || state.ran_out || state.code == 137 && killed();
        Ended { status: status(state.code), ran_out, not_started: self.not_started(state) }
    }

    fn not_started(&self, state: &State) -> Option<NotStarted> {
        if let Some(what) = &self.objection {
            let error = format!("its container would not be held to its limits: {what}");
            return Some(NotStarted { blame: Blame::Worker, error });
        }
        if let Some(told) = init_said(&self.complaint).filter(|_| state.code != 0) {
            let error = format!("its program cannot be started: {told}");
            return Some(NotStarted { blame: Blame::Job, error });
        }
        if state.how != How::NeverStarted {
            return None;
        }
        let told =
            if state.error.is_empty() { complaint(&self.complaint) } else { state.error.clone() };
        // 126 and 127: there is no such program in the image, or it cannot be run.
        let is_jobs = matches!(state.code, 126 | 127) || told.contains(TOO_LITTLE);
        let blame = if is_jobs { Blame::Job } else { self.engine.blame() };
        let error =
            format!("its container cannot be started: {}", crate::text::one_line(&told, 500));
        Some(NotStarted { blame, error })
    }

    /// Removes it, whatever it does.
    pub(crate) fn give_up(self) {
        remove(&self.engine, &self.name);
    }
}

/// The newest come first.
fn keep(complaint: &mut Vec<String>, stream: Stream, line: &str) {
    if stream == Stream::Stderr {
        complaint.truncate(8);
        complaint.insert(0, line.to_owned());
    }
}

/// What the first process, which is the engine's, says where there is no such program in the image, or it
/// cannot be run. A job that says the same has only itself to blame.
fn init_said(lines: &[String]) -> Option<String> {
    lines.iter().find_map(|line| {
        let told = match line.strip_prefix("ERROR (catatonit:") {
            Some(told) => told.split_once("): failed to exec pid1: ")?.1,
            None => line.strip_prefix("[FATAL tini (")?.split_once(")] exec ")?.1,
        };
        Some(crate::text::one_line(told, 500))
    })
}

/// Removes a container and what it alone has; one that runs is killed.
pub(crate) fn remove(engine: &Engine, name: &str) {
    let removed = engine.call(&["rm", "--force", "--volumes", name], CALL);
    if let Err(error) = removed.and_then(client::Answer::told) {
        log::debug!("{} rm {name}: {error}", engine.speech.name());
    }
}

/// Removes the containers of this owner but these.
pub(crate) fn sweep(engine: &Engine, owner: &str, keep: &[String]) -> Result<(), String> {
    let filter = format!("--filter=label={}={owner}", argv::LABEL_OWNER);
    let names = engine.call(&["ps", "--all", &filter, "--format={{.Names}}"], CALL)?.told()?;
    for name in names.iter().filter(|name| !keep.contains(name)) {
        log::info!("removing a container of an earlier run: {name}");
        remove(engine, name);
    }
    Ok(())
}

/// Whether the image is on this machine.
pub(crate) fn has_image(engine: &Engine, image: &str) -> Result<bool, String> {
    Ok(engine.call(&["image", "inspect", "--format={{.Id}}", image], CALL)?.code == Some(0))
}

/// Why an image is not run, if that is so: it wants what no engine should be asked for, or what docker cannot
/// be told to bound.
pub(crate) fn image_objection(engine: &Engine, image: &str) -> Result<Option<String>, String> {
    let format = "--format={{json .Config.Volumes}}|{{json .Config.WorkingDir}}";
    let told = engine.call(&["image", "inspect", format, image], CALL)?.told()?;
    let (volumes, dir) = told.first().and_then(|line| line.split_once('|')).unwrap_or_default();
    let volumes: Option<BTreeMap<String, Value>> = parsed("volumes", volumes)?;
    let volumes = volumes.unwrap_or_default();
    let dir: Option<String> = parsed("working directory", dir)?;
    Ok(image::objection(
        volumes.keys().map(String::as_str),
        &dir.unwrap_or_default(),
        engine.speech,
    ))
}

fn parsed<T: DeserializeOwned>(what: &str, told: &str) -> Result<T, String> {
    serde_json::from_str(told)
        .map_err(|error| format!("its image's {what} cannot be read: {error}"))
}

/// The client that gets an image.
pub(crate) fn pull(engine: &Engine, image: &str) -> Program {
    engine.program(&["pull".to_owned(), image.to_owned()])
}

/// What the engine says of a container; nothing if there is none of that name.
fn state(engine: &Engine, name: &str) -> Result<Option<State>, String> {
    let format = format!("--format={STATE}");
    let answer = engine.call(&["container", "inspect", &format, name], CALL)?;
    match answer.told() {
        Ok(lines) => {
            let line = lines.first().map_or("", String::as_str);
            parse_state(line).map(Some).ok_or_else(|| format!("it says of its container: {line}"))
        }
        Err(error) => {
            let filter = format!("--filter=name=^{name}$");
            let listed = engine.call(&["ps", "--all", "--quiet", &filter], CALL)?.told()?;
            if listed.is_empty() { Ok(None) } else { Err(error) }
        }
    }
}

fn parse_state(line: &str) -> Option<State> {
    let mut fields = line.splitn(5, '|');
    let how = match fields.next()? {
        "created" | "configured" | "initialized" => How::NeverStarted,
        "exited" | "stopped" | "dead" => How::Ended,
        _ => How::Running,
    };
    let pid = fields.next()?.parse().ok()?;
    let code = fields.next()?.parse().ok()?;
    let ran_out = fields.next()? == "true";
    Some(State { how, pid, code, ran_out, error: fields.next()?.to_owned() })
}

/// As it would be of a process of ours: an engine tells a signal as a shell does.
fn status(code: i32) -> ExitStatus {
    match code {
        129..=159 => ExitStatus::from_raw(code - 128),
        code => ExitStatus::from_raw((code & 0xff) << 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_of_a_container_is_understood() {
        let how = |line| parse_state(line).map(|state| (state.how, state.pid, state.code));
        assert_eq!(how("running|4711|0|false|"), Some((How::Running, 4711, 0)));
        assert_eq!(how("exited|0|7|false|"), Some((How::Ended, 0, 7)));
        assert_eq!(how("exited|0|-1|false|"), Some((How::Ended, 0, -1)));
        assert_eq!(how("created|0|127|false|no | such"), Some((How::NeverStarted, 0, 127)));
        assert_eq!(parse_state("exited|0|137|true|").map(|state| state.ran_out), Some(true));
        assert_eq!(how(""), None);
        assert_eq!(how("<no value>|||"), None);
    }

    #[test]
    fn what_either_engine_says_of_a_program_that_is_not_there_is_understood() {
        let said = |line: &str| init_said(&[line.to_owned()]);
        let podman = said("ERROR (catatonit:6): failed to exec pid1: No such file or directory");
        assert_eq!(podman.as_deref(), Some("No such file or directory"));
        let docker = said("[FATAL tini (7)] exec /bin/nothing failed: Permission denied");
        assert_eq!(docker.as_deref(), Some("/bin/nothing failed: Permission denied"));
        assert_eq!(said("ERROR: No such file or directory"), None);
    }

    #[test]
    fn a_signal_is_told_as_one() {
        assert_eq!(
            (status(0).code(), status(7).code(), status(-1).code()),
            (Some(0), Some(7), Some(255))
        );
        assert_eq!((status(137).signal(), status(143).signal()), (Some(9), Some(15)));
    }
}
