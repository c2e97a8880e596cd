//! The command line as plain data, no I/O: `settings` has what can be set, `tell` the subcommands that tell
//! the owner something, and this file the others.

mod settings;
mod tell;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, Command, ValueHint};

use settings::Topic::Log;
pub(crate) use settings::{SETTINGS, Setting};
use settings::{log_and, settings};

/// How values are written, for every command that takes one.
const UNITS: &str = "Durations are written 30s, 5m, 1h30m; sizes 500MB, 1GiB.";

const EXAMPLES: &str = "\
Examples:
  worker demo
      See it work: an embedded backend, this worker, real jobs.
  worker --backend https://market.example --token-file token --price 2.5
      Sell this machine's time until you press Ctrl-C.
  worker --config /etc/qubix-worker/worker.toml --slots 2 --log-format json
      The same as a service.

Exit codes: 0 stopped as asked, 1 internal, 2 usage or configuration, 3 refused by the backend,
4 state directory unusable or in use, 5 --once or --max-jobs ended with a failed job.";

const STATUS_EXAMPLES: &str = "\
Where no agent has a state directory of yours, and a service runs on this machine, it shows what the
service tells everybody. As root, and of the service alone: --state-dir /var/lib/qubix-worker.

Examples:
  worker status
  worker status --json | jq -r .state
      starting, online, busy, paused, unreachable, stopping or stopped.
  worker status -q || echo 'nobody works here'

Exit codes: 0 an agent runs, whatever it does; 6 none does; 4 what it left cannot be read.";

const PAUSE_EXAMPLES: &str = "\
The agent takes no new jobs from now on; what runs goes on. It tells the backend so, with the reason.
A pause outlives restarts. Without --for it lasts until `worker resume`.

Examples:
  worker pause
  worker pause --for 2h --reason gaming
  sudo worker pause --state-dir /var/lib/qubix-worker
      The agent that runs as a service.";

const MOCK_EXAMPLES: &str = "\
Faults are written ROUTE[@N[-[M]]]=WHAT. ROUTE is register, heartbeat, progress, complete, job,
pending or any. @2 is the second request to it, @2-4 the second to the fourth, @2- all from the
second on. WHAT is one of
  refuse                the connection is reset, nothing is done
  lost                  the request is processed, then the connection is reset
  reset                 the request is processed, its reply cut in the middle
  delay:2s              the reply comes late
  401 404 500 503 429   that status; 503:7 and 429:7 with Retry-After
  html garbage deep huge    a reply that is none
  duplicate             only heartbeat: jobs are offered twice

Examples:
  worker mock-backend --listen 127.0.0.1:3001 --jobs jobs.json
  worker mock-backend --faults complete@1=lost --faults heartbeat@3-5=503:2
  curl -d '{\"jobType\":\"compute\",\"computeNeeded\":0.1}' 127.0.0.1:3001/api/jobs/submit";

/// The flag that prints the licences.
pub(crate) const LICENSES: &str = "licenses";

/// The hidden subcommand under which a job's engine runs.
pub(crate) const ENGINE: &str = "engine";

/// The hidden subcommand under which the agent measures the processor.
pub(crate) const SPEED: &str = "engine-speed";

/// The ones that fetch a job's inputs, and bring its outputs away.
pub(crate) const SUPPLY: &str = "supply";
pub(crate) const REMOVE: &str = "remove";

/// The one that limits itself and becomes another program.
pub(crate) const LIMIT: &str = "limit";

/// The argument of these that says the limits.
pub(crate) const BOUNDS: &str = "bounds";

const BENCH_EXAMPLES: &str = "\
It takes 4 seconds. The figure is kept in speed.json in the state directory, from where the worker
registers it as its compute power when it starts. A worker measures by itself where there is none.
Measure when nothing else runs: the figure of a busy machine is shown, but not kept.

Examples:
  worker bench
  worker bench --json | jq .gflops";

const CID_EXAMPLES: &str = "\
A line a file: its address, how many bytes it has, its path. Without --v0 the address is that of
`ipfs add --cid-version=1 --raw-leaves` with chunks of 256 KiB, and the one that results name.

Example:
  worker cid model.safetensors";

/// All of it, the subcommands too that only the agent itself starts.
pub(crate) fn command() -> Command {
    shown()
        .subcommand(Command::new(ENGINE).hide(true).arg(Arg::new(BOUNDS)))
        .subcommand(Command::new(SUPPLY).hide(true).arg(Arg::new(BOUNDS)))
        .subcommand(Command::new(REMOVE).hide(true).arg(Arg::new(BOUNDS)))
        .subcommand(Command::new(LIMIT).hide(true).arg(words()))
        .subcommand(Command::new(SPEED).hide(true))
}

/// What people see of it.
pub(crate) fn shown() -> Command {
    Command::new("worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Sells this computer's time to a compute marketplace")
        .after_help(format!("{UNITS}\n\n{EXAMPLES}"))
        .styles(Styles::styled().header(AnsiColor::Green.on_default().bold()))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .args(settings(|_| true))
        .arg(
            Arg::new(LICENSES)
                .long(LICENSES)
                .action(ArgAction::SetTrue)
                .exclusive(true)
                .help("Print the licence, and whose the embedded datasets are"),
        )
        .subcommand(
            Command::new("run")
                .about("Work for a backend (what `worker` alone does)")
                .after_help(format!("{UNITS}\n\n{EXAMPLES}"))
                .args(settings(|_| true)),
        )
        .subcommand(
            Command::new("demo")
                .about("See it work: an embedded backend, this worker, one job of each kind")
                .args(settings(|topic| topic == Log)),
        )
        .subcommand(
            Command::new("bench")
                .about("Measure the processor: f32 matrix products on all cores")
                .after_help(BENCH_EXAMPLES)
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print the result as JSON"),
                )
                .args(log_and(&["state-dir"])),
        )
        .subcommand(cid())
        .subcommand(pause())
        .subcommand(resume())
        .subcommand(status())
        .subcommand(mock_backend())
        .subcommand(
            Command::new("specs")
                .about("Print what would be registered, as JSON")
                .arg(
                    Arg::new("human")
                        .long("human")
                        .action(ArgAction::SetTrue)
                        .help("Print a card for people to read instead"),
                )
                .args(settings(|_| true)),
        )
        .subcommands(tell::commands())
}

/// What leads to a running agent's state.
const PLACE: &[&str] = &["state-dir", "config"];

fn status() -> Command {
    Command::new("status")
        .about("Show what the agent is doing, or did last")
        .after_help(STATUS_EXAMPLES)
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print it as JSON, with \"running\" besides what status.json has"),
        )
        .args(log_and(PLACE))
}

fn pause() -> Command {
    Command::new("pause")
        .about("Take no new jobs for a while; what runs goes on")
        .after_help(format!("{UNITS}\n\n{PAUSE_EXAMPLES}"))
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("DUR")
                .value_parser(humantime::parse_duration)
                .help("Take jobs again by itself after so long"),
        )
        .arg(
            Arg::new("reason")
                .long("reason")
                .value_name("TEXT")
                .help("What the status, the log and the backend are told"),
        )
        .args(log_and(PLACE))
}

fn resume() -> Command {
    Command::new("resume").about("End a pause: take jobs again").args(log_and(PLACE))
}

fn cid() -> Command {
    let files = Arg::new("files").value_name("FILE").num_args(1..).required(true);
    Command::new("cid")
        .about("Print the content addresses of files, as IPFS gives them")
        .after_help(CID_EXAMPLES)
        .arg(
            files
                .value_hint(ValueHint::FilePath)
                .value_parser(clap::value_parser!(std::path::PathBuf)),
        )
        .arg(
            Arg::new("v0")
                .long("v0")
                .action(ArgAction::SetTrue)
                .help("In version 0 (Qm…), as plain `ipfs add` gives it"),
        )
}

/// The limits, the program, and whatever the program is to be given.
fn words() -> Arg {
    Arg::new(BOUNDS)
        .num_args(1..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(clap::value_parser!(std::ffi::OsString))
}

fn mock_backend() -> Command {
    let faults = Arg::new("faults").long("faults").value_name("SPEC").action(ArgAction::Append);
    Command::new("mock-backend")
        .about("A backend to try a worker against, with faults on request")
        .after_help(format!("{UNITS}\n\n{MOCK_EXAMPLES}"))
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDR")
                .default_value("127.0.0.1:3001")
                .help("Where to listen; port 0 picks a free one"),
        )
        .arg(file_arg("jobs").help("A JSON list of jobs to offer from the start"))
        .arg(
            Arg::new("heartbeat-interval")
                .long("heartbeat-interval")
                .value_name("DUR")
                .value_parser(humantime::parse_duration)
                .help("Ask workers for this pace (they accept 5s to 10m)"),
        )
        .arg(file_arg("token-file").help("Refuse workers without this bearer token"))
        .arg(faults.help("What should go wrong; may be given again"))
        .arg(file_arg("faults-file").help("The same from a file, one a line"))
        .args(settings(|topic| topic == Log))
}

fn file_arg(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(clap::value_parser!(std::path::PathBuf))
}

#[cfg(test)]
mod tests {
    use super::settings::Topic::{Backend, Files, Machine, Pace, Page, Work};
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn worker_alone_is_worker_run() {
        let typed = command().try_get_matches_from(["worker", "--backend", "http://a"]).unwrap();
        assert!(typed.subcommand().is_none());
        assert_eq!(typed.get_one::<String>("backend").map(String::as_str), Some("http://a"));
    }

    #[test]
    fn the_help_teaches() {
        let help = command().render_long_help().to_string();
        for setting in SETTINGS {
            assert!(help.contains(&format!("--{}", setting.key)), "--{} is missing", setting.key);
        }
        for topic in [Backend, Machine, Work, Pace, Files, Page, Log] {
            assert!(help.contains(topic.heading()), "{topic:?} has no heading");
        }
        assert_eq!(help.matches("\n  worker ").count(), 3, "three examples");
    }
}
