//! The hidden subcommands under which a job's engine and the measurement of the processor run, as
//! children of the agent.
//!
//! Each waits for one byte on stdin before it does anything, and ends with the end of stdin: the agent
//! is gone then, and nobody would take the result.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use clap::ArgMatches;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use super::learn::{self, Desk, Refused};
use crate::cli;
use crate::config;
use crate::engine::{self, Computed, Progress};
use crate::exit::Exit;
use crate::job::{Charge, RESULT, read_charge};
use crate::machine;
use crate::process::{Bound, Bounds};
use crate::store::replace;
use crate::work::{Compute, Task};

/// Nobody waits for the figure.
const LAST: u64 = 19;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    when_let_go(&bounds(args)?, || {
        let (input, output) =
            config::job_folders().context("this subcommand is for the agent's use")?;
        work(&input, &output)
    })
}

/// Measures the processor for the agent, which takes the result from the last line.
pub(crate) fn speed() -> anyhow::Result<Exit> {
    when_let_go(&Bounds(vec![(Bound::Nice, LAST)]), || {
        let measured = super::bench::measure(&mut tell)?;
        writeln!(io::stdout(), "{}", json!({"result": measured}))?;
        Ok(())
    })
}

/// What the agent has the child limit itself to.
pub(super) fn bounds(args: &ArgMatches) -> anyhow::Result<Bounds> {
    let bounds = args.get_one::<String>(cli::BOUNDS).map(|text| text.parse::<Bounds>());
    Ok(bounds.transpose().map_err(anyhow::Error::msg)?.unwrap_or_default())
}

pub(super) fn when_let_go(
    bounds: &Bounds,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    if io::stdin().read(&mut [0])? == 0 {
        return Ok(Exit::Stopped);
    }
    bounds.apply().context("cannot set limits")?;
    thread::scope(|scope| {
        thread::Builder::new()
            .name("lifeline".into())
            .spawn_scoped(scope, end_with_agent)
            .context("cannot start the lifeline")?;
        let done = work();
        if let Err(error) = &done {
            if let Some(Refused { reason, stage, error }) = error.downcast_ref() {
                let why = json!({"reason": reason.name(), "stage": stage.name(), "error": error});
                writeln!(io::stdout(), "{}", json!({"failure": why}))?;
            }
            super::complain(error);
        }
        leave(if done.is_ok() { Exit::Stopped } else { Exit::Internal })
    })
}

/// Does the job's work, and tells the agent why if it cannot be done.
fn work(input: &Path, output: &Path) -> anyhow::Result<()> {
    let Charge { task, memory, private_downloads } =
        read_charge(input).map_err(anyhow::Error::msg)?;
    let desk = Desk { input, output, memory, private_downloads };
    let result = match &task {
        Task::Compute(task) => compute(task)?,
        Task::Training(task) => learn::train(&desk, task, &mut tell)?,
        Task::FineTuning(task) => learn::fine_tune(&desk, task, &mut tell)?,
        Task::Inference(task) => learn::infer(&desk, task, &mut tell)?,
        Task::Script(_) | Task::Container(_) => anyhow::bail!("the engine runs no such job"),
    };
    replace(&output.join(RESULT), &serde_json::to_vec(&result)?)?;
    Ok(())
}

fn compute(task: &Compute) -> anyhow::Result<Value> {
    let Computed { iterations, result, gflops } = engine::run(task, machine::threads(), &mut tell)?;
    let mut data =
        json!({"kernel": task.kernel.name(), "iterations": iterations, "result": result});
    if let Some(gflops) = gflops {
        data["gflops"] = json!((gflops * 10.0).round() / 10.0);
    }
    Ok(json!({"computationData": data}))
}

fn tell(progress: Progress) {
    let line = json!({"progress": progress.percent, "operation": progress.operation});
    // An agent that listens no more ends us by the lifeline.
    writeln!(io::stdout(), "{line}").ok();
}

fn end_with_agent() {
    let mut byte = [0];
    while matches!(io::stdin().read(&mut byte), Ok(1)) {}
    // The whole process and not this thread: the kernels look at nothing while they compute.
    kill_process(getpid(), Signal::KILL).ok();
}

/// Ends without waiting for the lifeline, which waits for the agent.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a thread blocked on stdin cannot be joined"
)]
fn leave(exit: Exit) -> ! {
    std::process::exit(exit as i32)
}
