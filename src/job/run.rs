//! Watches one program to its end: reports its progress, keeps its deadline, stops it on order.
//!
//! The stop ladder is TERM to the group, a grace, KILL to the group, and after another grace it is
//! given up: a process stuck in the kernel must not hold the slot, nor the agent's exit.

use std::io::{self, PipeReader};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::disk::{DEPTH_MAX, Disk, ENTRIES_MAX, Excess, Meter, Shortage};
use super::output::Output;
use crate::backend::wire;
use crate::clock;
use crate::crash;
use crate::process::{Stream, Usage, Woken, kills_for_memory};
use crate::reading::{Reading, flatten};
use crate::runner::{Ended, Running};
use crate::work::{Blame, Failure, Object, Order, Reason, Report, Stage};

/// What bounds a run.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) stage: Stage,
    /// What its progress is of the job's.
    pub(crate) span: Span,
    /// When its time began: before now, if an earlier agent started it.
    pub(crate) since: Duration,
    pub(crate) time: Duration,
    /// Of all its processes, in bytes.
    pub(crate) memory: u64,
    /// What it may take of the disk.
    pub(crate) disk: Option<Disk>,
    pub(crate) report_every: Duration,
    /// Between TERM and KILL, and between KILL and giving up.
    pub(crate) grace: Duration,
    /// Whose fault it is if the program ends badly by itself: that of whoever wrote it.
    pub(crate) author: Blame,
}

/// A part of a job's progress, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Span {
    fn at(self, percent: f64) -> f64 {
        self.from + (self.to - self.from) * percent / 100.0
    }
}

/// How often a program's memory and energy are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a program's run ended.
#[derive(Debug)]
pub(crate) enum Run {
    /// It exited with success; what it printed as its result, if anything.
    Done(Option<Object>),
    Failed(Failure),
    /// The backend took the job away.
    Cancelled,
    /// The agent is going away at once: nothing may be recorded any more.
    Abandoned,
}

/// Why a program is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    TimedOut,
    OutOfMemory,
    OutOfDisk(Excess),
    Ordered(Order),
    AgentGone,
}

/// Where on the stop ladder it is.
#[derive(Debug, Clone, Copy)]
enum Ladder {
    Up,
    Termed { why: Why, kill_at: Duration },
    Killed { why: Why, give_up_at: Duration },
}

/// The averages of a run, and what it used.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    started: Duration,
    cpu: Mean,
    ram: Mean,
    gpu: Mean,
    last: Option<Reading>,
    usage: Usage,
    energy_kwh: Option<f64>,
}

#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

/// A program being watched.
pub(crate) struct Watch<'a> {
    pub(crate) orders: &'a PipeReader,
    pub(crate) limits: Limits,
    /// What the job has cost before.
    pub(crate) before: Option<&'a Costs>,
    /// Looks at the machine, for the report.
    pub(crate) read: &'a mut dyn FnMut() -> Reading,
    /// Tells the energy that the program has cost so far, given the CPU time it has used, in kWh.
    pub(crate) energy: &'a mut dyn FnMut(Option<Duration>) -> Option<f64>,
    pub(crate) report: &'a mut dyn FnMut(Report),
    /// Keeps the lines that are no messages to us, fit for a terminal.
    pub(crate) log: &'a mut dyn FnMut(&str),
}

/// Lets the program go and watches it to its end.
pub(crate) fn watch(mut child: Running, watch: &mut Watch<'_>) -> io::Result<(Run, Costs)> {
    let started = watch.limits.since;
    let mut costs = Costs { started, ..Costs::default() };
    let mut output = Output::default();
    let mut ladder = Ladder::Up;
    let begun = clock::since_boot();
    // What an earlier agent has reported already is read again first, so that no report goes back.
    let is_old = begun > started + LOOK_EVERY;
    let mut next_report = if is_old { begun + LOOK_EVERY } else { begun };
    let mut next_look = begun;
    let mut disk = watch.limits.disk.clone().map(|disk| Meter::new(disk, begun));
    let killed_before = kills_for_memory();
    if let Err(error) = child.release() {
        // Nobody looks after it any more.
        child.give_up();
        return Err(error);
    }
    crash::point("program-let-go");
    let given_up = loop {
        let now = clock::since_boot();
        if now >= next_look {
            costs.look(&child, watch.energy);
            let limit = watch.limits.memory;
            if child.ran_out_of_memory() || costs.usage.memory > limit && child.has_more_than(limit)
            {
                step(&mut ladder, &child, &watch.limits, Some(Why::OutOfMemory));
            }
            next_look = now + LOOK_EVERY;
        }
        if let Some(excess) = disk.as_mut().and_then(|disk| disk.look(&child, now)) {
            step(&mut ladder, &child, &watch.limits, Some(Why::OutOfDisk(excess)));
        }
        if now >= next_report {
            watch.tell(&mut output, &mut costs, now);
            next_report = now + watch.limits.report_every;
        }
        let Some(deadline) = climb(&mut ladder, &child, &watch.limits, started, now) else {
            break true;
        };
        let next_look_at_disk = disk.as_ref().map_or(next_look, Meter::look_at);
        let next = deadline.min(next_report).min(next_look).min(next_look_at_disk);
        // A pipe whose other end is gone would wake us over and over.
        let orders = Some(watch.orders).filter(|_| ladder.why() != Some(Why::AgentGone));
        let mut sink = |stream, line: &str| watch.hear(&mut output, stream, line);
        match child.wait(next.saturating_sub(now), orders, &mut sink) {
            Err(error) => {
                child.give_up();
                return Err(error);
            }
            Ok(Woken::Exited) => break false,
            Ok(Woken::Order(order)) => {
                let why = order
                    .map_or(Some(Why::AgentGone), |byte| Order::from_byte(byte).map(Why::Ordered));
                if why == Some(Why::AgentGone) && child.outlives_us() {
                    return Ok((Run::Abandoned, costs));
                }
                step(&mut ladder, &child, &watch.limits, why);
            }
            Ok(Woken::Timeout) => {}
        }
    };
    costs.look(&child, watch.energy);
    costs.last = Some((watch.read)());
    let why = ladder.why();
    if given_up {
        child.give_up();
        return Ok((stuck(why, &watch.limits, &output), costs));
    }
    let ended = child.finish(&mut |stream, line| watch.hear(&mut output, stream, line))?;
    // `None` where the kernel does not count, before and after.
    let kernel_killed = kills_for_memory() > killed_before;
    let is_short = why == Some(Why::OutOfDisk(Excess::TheRoom));
    let shortage = disk.filter(|_| is_short).map(|disk| disk.shortage());
    let end = End { ended, why, kernel_killed, shortage };
    Ok((verdict(&end, &watch.limits, output), costs))
}

impl Watch<'_> {
    fn hear(&mut self, output: &mut Output, stream: Stream, line: &str) {
        if let Some(line) = output.take(stream, line, clock::wall()) {
            (self.log)(line);
        }
    }

    fn tell(&mut self, output: &mut Output, costs: &mut Costs, now: Duration) {
        let reading = (self.read)();
        costs.cpu.add(reading.host.cpu_percent);
        costs.ram.add(Some(reading.host.ram_percent));
        costs.gpu.add(flatten(&reading.gpus).percent);
        let before = self.before;
        let began = before.map_or(costs.started, |before| before.started);
        let energy_before = before.and_then(|before| before.energy_kwh);
        (self.report)(Report {
            percent: wire_percent(self.limits.span.at(output.percent)),
            operation: output.operation.clone().unwrap_or_else(|| "starting".into()),
            lines: output.report_lines(),
            worked: now.saturating_sub(began),
            reading: Some(reading),
            energy_kwh: sum(energy_before, costs.energy_kwh),
            at: clock::wall(),
        });
    }
}

/// A backend starts a job's clock by any progress strictly between 0 and 100, and 100 is for the
/// completion to say.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn wire_percent(percent: f64) -> u8 {
    percent.clamp(1.0, 99.0) as u8
}

impl Ladder {
    fn why(self) -> Option<Why> {
        match self {
            Self::Up => None,
            Self::Termed { why, .. } | Self::Killed { why, .. } => Some(why),
        }
    }
}

/// Takes the next step of the ladder if it is due. Returns when the one after is, or nothing when
/// there is none left.
fn climb(
    ladder: &mut Ladder,
    child: &Running,
    limits: &Limits,
    started: Duration,
    now: Duration,
) -> Option<Duration> {
    match *ladder {
        Ladder::Up if now >= started + limits.time => {
            step(ladder, child, limits, Some(Why::TimedOut));
        }
        Ladder::Termed { why, kill_at } if now >= kill_at => {
            child.kill();
            *ladder = Ladder::Killed { why, give_up_at: now + limits.grace };
        }
        Ladder::Killed { give_up_at, .. } if now >= give_up_at => return None,
        Ladder::Up | Ladder::Termed { .. } | Ladder::Killed { .. } => {}
    }
    Some(match *ladder {
        Ladder::Up => started + limits.time,
        Ladder::Termed { kill_at, .. } => kill_at,
        Ladder::Killed { give_up_at, .. } => give_up_at,
    })
}

/// Begins to stop the program, or makes haste if it is being stopped already.
fn step(ladder: &mut Ladder, child: &Running, limits: &Limits, why: Option<Why>) {
    let Some(why) = why else { return };
    let now = clock::since_boot();
    match (*ladder, why) {
        // Without a grace, in which it would take yet more.
        (Ladder::Up, Why::AgentGone | Why::OutOfMemory | Why::OutOfDisk(_)) => {
            child.kill();
            *ladder = Ladder::Killed { why, give_up_at: now + limits.grace };
        }
        (Ladder::Up, _) => {
            child.ask(Signal::TERM);
            // A stopped process hears nothing before it goes on.
            child.ask(Signal::CONT);
            *ladder = Ladder::Termed { why, kill_at: now + limits.grace };
        }
        // The first reason stands, unless the agent itself goes away.
        (Ladder::Termed { .. }, Why::AgentGone) => {
            *ladder = Ladder::Termed { why, kill_at: now };
        }
        (Ladder::Termed { why, .. }, Why::OutOfMemory | Why::OutOfDisk(_)) => {
            *ladder = Ladder::Termed { why, kill_at: now };
        }
        (Ladder::Killed { give_up_at, .. }, Why::AgentGone) => {
            *ladder = Ladder::Killed { why, give_up_at };
        }
        (Ladder::Termed { .. } | Ladder::Killed { .. }, _) => {}
    }
}

/// What is known of a program's end.
struct End {
    ended: Ended,
    why: Option<Why>,
    /// It, or another program of the machine, for lack of memory.
    kernel_killed: bool,
    /// Where it was stopped for that.
    shortage: Option<Shortage>,
}

fn verdict(end: &End, limits: &Limits, output: Output) -> Run {
    let End { ended: Ended { status, ran_out, not_started }, why, kernel_killed, shortage } = end;
    let (status, kernel_killed) = (*status, *kernel_killed);
    let too_much = || {
        let error = format!("killed: memory limit of {} MiB", limits.memory >> 20);
        (Reason::OutOfMemory, Blame::Job, error)
    };
    let mut stage = limits.stage;
    let (reason, blame, error) = match *why {
        Some(Why::AgentGone) => return Run::Abandoned,
        Some(Why::Ordered(Order::Cancel)) => return Run::Cancelled,
        Some(Why::Ordered(Order::Stop)) => {
            (Reason::Cancelled, Blame::Worker, "stopped: the worker is shutting down".to_owned())
        }
        Some(Why::TimedOut) => {
            let time = humantime::format_duration(whole(limits.time));
            let stage = limits.stage.name();
            (Reason::Timeout, Blame::Job, format!("timeout after {time} in stage {stage}"))
        }
        Some(Why::OutOfMemory) => too_much(),
        None if let Some(not) = not_started => (Reason::StartFailed, not.blame, not.error.clone()),
        Some(Why::OutOfDisk(_)) if let Some(short) = shortage => {
            (Reason::KilledSignal, short.blame, short.error.clone())
        }
        Some(Why::OutOfDisk(_)) => {
            let most = limits.disk.as_ref().and_then(|disk| disk.most).unwrap_or_default() >> 20;
            let error = format!(
                "killed: disk limit of {most} MiB, {ENTRIES_MAX} files, {DEPTH_MAX} folders deep"
            );
            (Reason::KilledSignal, Blame::Job, error)
        }
        None if status.success() => return Run::Done(output.result),
        None if *ran_out => too_much(),
        // Within its limit, so that it may well do on a machine with more room.
        None if kernel_killed && status.signal() == Some(Signal::KILL.as_raw()) => {
            let error = "killed: the machine ran out of memory".to_owned();
            (Reason::OutOfMemory, Blame::Unclear, error)
        }
        None => match (status.code(), &output.failure) {
            (Some(_), Some(told)) => {
                stage = told.stage;
                let ours = told.reason == Reason::Internal;
                let blame = if ours { limits.author } else { Blame::Job };
                (told.reason, blame, told.error.clone())
            }
            (Some(code), None) => (Reason::NonzeroExit, limits.author, format!("exit code {code}")),
            (None, _) => (
                Reason::KilledSignal,
                limits.author,
                format!("killed by signal {}", status.signal().unwrap_or_default()),
            ),
        },
    };
    Run::Failed(Failure {
        reason,
        blame,
        stage,
        error,
        exit_code: status.code(),
        signal: status.signal(),
        log: output.last_lines(),
    })
}

fn stuck(why: Option<Why>, limits: &Limits, output: &Output) -> Run {
    if why == Some(Why::AgentGone) {
        return Run::Abandoned;
    }
    let error = "the program could not be killed and was given up".into();
    let failure = Failure::of_worker(Reason::Internal, limits.stage, error);
    Run::Failed(Failure { log: output.last_lines(), ..failure })
}

impl Costs {
    fn look(&mut self, child: &Running, energy: &mut dyn FnMut(Option<Duration>) -> Option<f64>) {
        let now = child.usage();
        self.usage.cpu = now.cpu.or(self.usage.cpu);
        self.usage.memory = now.memory;
        let all = Some(now.memory as f64 / f64::from(1 << 20));
        let peaks = [self.usage.peak_memory_mb, now.peak_memory_mb, all.filter(|mib| *mib > 0.0)];
        self.usage.peak_memory_mb = peaks.into_iter().flatten().reduce(f64::max);
        self.energy_kwh = energy(self.usage.cpu);
    }
}

impl Costs {
    /// Those of two programs of the same job, one after the other.
    pub(crate) fn and(self, later: Self) -> Self {
        let peaks = [self.usage.peak_memory_mb, later.usage.peak_memory_mb];
        Self {
            started: self.started,
            cpu: self.cpu.and(later.cpu),
            ram: self.ram.and(later.ram),
            gpu: self.gpu.and(later.gpu),
            last: later.last.or(self.last),
            usage: Usage {
                cpu: sum(self.usage.cpu, later.usage.cpu),
                peak_memory_mb: peaks.into_iter().flatten().reduce(f64::max),
                ..later.usage
            },
            energy_kwh: sum(self.energy_kwh, later.energy_kwh),
        }
    }
}

/// What is known of both.
fn sum<N: std::ops::Add<Output = N>>(a: Option<N>, b: Option<N>) -> Option<N> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (one, other) => one.or(other),
    }
}

/// In whole seconds where there are any: what a stage was left is of no use to the last nanosecond.
fn whole(time: Duration) -> Duration {
    if time < Duration::from_secs(1) { time } else { Duration::from_secs(time.as_secs()) }
}

/// What goes into `metrics`: only what was measured.
pub(crate) fn metrics(costs: &Costs, now: Duration) -> Object {
    let seconds = now.saturating_sub(costs.started).as_secs_f64();
    let mut metrics = Object::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            metrics.insert(name.into(), json!((value * 1000.0).round() / 1000.0));
        }
    };
    put("processingTimeSeconds", Some(seconds));
    put("workedSeconds", Some(seconds.floor()));
    put("cpuUsageAvg", costs.cpu.get());
    put("ramUsageAvg", costs.ram.get());
    put("gpuUsageAvg", costs.gpu.get());
    put("cpuSeconds", costs.usage.cpu.map(|cpu| cpu.as_secs_f64()));
    put("peakMemoryMb", costs.usage.peak_memory_mb);
    if let Some(kwh) = costs.energy_kwh {
        // Not rounded to thousandths: a short job costs less.
        metrics.insert("energyKwh".into(), json!(kwh));
    }
    metrics
}

/// The GPUs at the end.
pub(crate) fn final_metrics(costs: &Costs) -> Object {
    costs.last.as_ref().map(wire::final_metrics).unwrap_or_default()
}

impl Mean {
    fn and(self, later: Self) -> Self {
        Self { sum: self.sum + later.sum, count: self.count + later.count }
    }

    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1.0;
        }
    }

    fn get(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

#[cfg(test)]
mod tests;
