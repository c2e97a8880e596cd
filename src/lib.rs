//! `worker`: the agent that sells a computer's time to a compute marketplace.
//!
//! A job moves one way through these rooms, and never back:
//!
//! ```text
//! heartbeat reply ─► accept ─► record ─► stage ─► run ─► collect ─► record ─► courier ─► ledger
//!  backend           agent     store     job      runner  job       store     agent     store
//! ```
//! - `main`, `cli`, `config`, `exit`, `logging`: from the command line to a settled configuration.
//! - `command`: one file a subcommand; the only place that prints to stdout.
//! - `agent`: the loop. `agent::core` decides and is pure; the threads around it do.
//! - `backend`: the wire. `job`: one job. `store`: the disk. `machine`: this computer.
//! - `runner`: where a job's program runs. `engine`: the embedded compute. `process`: children.
//! - `status`: the page, the metrics and the health, when asked for.
//! - `work`, `reading`, `snapshot`: the plain values that several rooms speak of.
//! - `cgroup`: which control groups we are in. `cid`: what a file is called on IPFS. `ipfs`: adds it to a
//!   node there.
//! - `fetch`, `upload`, `tls`: files from and to the servers that a job names. `archive`: unpacks them.
//!   `beneath`: files in a stranger's folder. `pattern`: which of them.
//! - `serve`: HTTP for `status` and for `mock`, the embedded backend of `demo`, `mock-backend` and the
//!   tests.
//! - `notify`: what the service manager is told.
//! - `crash`: where the tests let the agent be killed.
//!
//! Imports point down this list; `tests/tidy.rs` checks it.

mod agent;
mod archive;
mod backend;
mod beneath;
mod cgroup;
mod cid;
mod cli;
mod clock;
mod command;
mod config;
mod crash;
mod engine;
mod exit;
mod fetch;
#[cfg(test)]
mod fuzz;
mod ipfs;
mod job;
mod logging;
mod machine;
mod mock;
mod notify;
mod pattern;
mod process;
mod reading;
mod retry;
mod runner;
mod secret;
mod serve;
mod snapshot;
mod status;
mod store;
mod text;
mod tls;
mod upload;
mod work;

use std::process::ExitCode;

use clap::ArgMatches;

use exit::Exit;

/// Runs the program: parse, log, command, exit code.
pub fn main() -> ExitCode {
    let typed = match cli::command().try_get_matches() {
        Ok(typed) => typed,
        Err(said) => {
            // Help that nobody reads any more is no failure.
            said.print().ok();
            let exit = if said.use_stderr() { Exit::Usage } else { Exit::Stopped };
            return exit.into();
        }
    };
    match run(&typed) {
        Ok(exit) => exit.into(),
        Err(error) if command::is_unread(&error) => Exit::Stopped.into(),
        Err(error) => {
            command::complain(&error);
            exit_of(&error).into()
        }
    }
}

fn run(typed: &ArgMatches) -> anyhow::Result<Exit> {
    if typed.get_flag(cli::LICENSES) {
        return command::licenses::run();
    }
    let (name, args) = typed.subcommand().unwrap_or(("run", typed));
    if name == cli::ENGINE {
        return command::engine::run(args);
    }
    if name == cli::LIMIT {
        return command::limit::run(args);
    }
    if name == cli::SUPPLY {
        return command::supply::run(args);
    }
    if name == cli::REMOVE {
        return command::remove::run(args);
    }
    if name == cli::SPEED {
        return command::engine::speed();
    }
    match name {
        "bench" => command::bench::run(args),
        "cid" => command::cid::run(args),
        "completions" => command::completions::run(args),
        "demo" => command::demo::run(args),
        "doctor" => command::doctor::run(args),
        "earnings" => command::earnings::run(args),
        "jobs" => command::jobs::run(args),
        "logs" => command::logs::run(args),
        "man" => command::man::run(),
        "mock-backend" => command::mock_backend::run(args),
        "pause" => command::pause::pause(args),
        "resume" => command::pause::resume(args),
        "specs" => command::specs::run(args),
        "status" => command::status::run(args),
        _ => command::run::run(args),
    }
}

/// The exit code that a failed command's error stands for.
fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<config::Problems>() {
        return Exit::Usage;
    }
    if error.is::<store::FileError>() {
        return Exit::State;
    }
    match error.downcast_ref() {
        Some(agent::Error::Config(_)) => Exit::Usage,
        Some(agent::Error::State(_)) => Exit::State,
        Some(agent::Error::Start { .. } | agent::Error::Panicked(_)) | None => Exit::Internal,
    }
}
