//! The command line as plain data: every setting stands once in [`SETTINGS`], which makes its flag,
//! its environment variable and its key in `worker.toml`. No I/O here.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, Command, ValueHint};

/// What a setting is about: its heading in `--help`, and which commands take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Backend,
    Machine,
    Work,
    Pace,
    Files,
    Log,
}

impl Topic {
    fn heading(self) -> &'static str {
        match self {
            Self::Backend => "Backend",
            Self::Machine => "This machine, as registered",
            Self::Work => "How much work",
            Self::Pace => "Pace",
            Self::Files => "Files",
            Self::Log => "Log",
        }
    }
}

/// One setting: flag `--key`, variable `WORKER_KEY`, and `key` in `worker.toml`.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) topic: Topic,
    /// The name of its value, or nothing for a switch.
    pub(crate) value: Option<&'static str>,
    help: &'static str,
}

const fn setting(
    topic: Topic,
    key: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, topic, value: Some(value), help }
}

const fn switch(topic: Topic, key: &'static str, help: &'static str) -> Setting {
    Setting { key, topic, value: None, help }
}

use Topic::{Backend, Files, Log, Machine, Pace, Work};

pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        Backend,
        "backend",
        "URL",
        "The marketplace to work for [default: http://127.0.0.1:3001]",
    ),
    setting(
        Backend,
        "token-file",
        "FILE",
        "A file with the bearer token, readable by its owner only [default: $CREDENTIALS_DIRECTORY/token, if it is there]",
    ),
    setting(
        Backend,
        "ca-cert",
        "FILE",
        "A PEM file of certificates to trust besides the public ones",
    ),
    setting(
        Backend,
        "request-timeout",
        "DUR",
        "The longest that one request may take [default: 10s]",
    ),
    setting(Machine, "name", "NAME", "The name consumers see [default: Provider-<id>]"),
    setting(Machine, "price", "PRICE", "Price per hour [default: 5.0]"),
    setting(Machine, "location", "PLACE", "Where the machine is [default: Local Network]"),
    setting(
        Machine,
        "address",
        "ADDRESS",
        "Where earnings go; some backends insist on a 60-letter Qubic address",
    ),
    setting(
        Machine,
        "worker-id",
        "ID",
        "A stable name of this worker [default: made from the machine's id and kept in the state directory]",
    ),
    setting(
        Machine,
        "nvml-library",
        "PATH",
        "NVIDIA's management library, where the system does not find it [default: libnvidia-ml.so.1]",
    ),
    setting(Work, "slots", "N", "Jobs at once [default: 1]"),
    switch(Work, "once", "Take one job, deliver its result and stop; the same as --max-jobs 1"),
    setting(
        Work,
        "max-jobs",
        "N",
        "Take N jobs, deliver their results and stop; declined jobs do not count",
    ),
    setting(Work, "exit-when-idle", "DUR", "Stop when there was nothing to do for so long"),
    setting(
        Work,
        "min-free",
        "SIZE",
        "Take no job while less is free on the disk of the state directory [default: 1GiB]",
    ),
    setting(
        Pace,
        "heartbeat-interval",
        "DUR",
        "How often the backend hears from us; it may ask for another pace [default: 30s]",
    ),
    setting(
        Pace,
        "progress-interval",
        "DUR",
        "How often a running job's progress is reported [default: 5s]",
    ),
    setting(
        Pace,
        "max-failures",
        "N",
        "Heartbeats that fail in a row before registering again [default: 5]",
    ),
    setting(
        Pace,
        "drain-timeout",
        "DUR",
        "How long running jobs may finish when asked to stop [default: 10m]",
    ),
    setting(
        Files,
        "config",
        "FILE",
        "worker.toml: every flag is a key of the same name there; flags and environment win",
    ),
    setting(
        Files,
        "state-dir",
        "DIR",
        "What must survive a restart [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/qubix-worker, else ~/.local/state/qubix-worker]",
    ),
    setting(
        Files,
        "artefact-space",
        "SIZE",
        "How much room the results of jobs may take [default: 10GiB]",
    ),
    switch(
        Files,
        "reuse-results",
        "Answer a job like one before, of the same data, from the results that are still here",
    ),
    switch(
        Files,
        "allow-private-downloads",
        "Let jobs download from the loopback and from private networks",
    ),
    setting(
        Files,
        "ipfs-api",
        "URL",
        "The API of an IPFS node to add results to, such as http://127.0.0.1:5001",
    ),
    setting(Log, "log-format", "FORMAT", "text or json [default: text]"),
    switch(Log, "verbose", "Log each request and change of state"),
    switch(Log, "quiet", "Log warnings and errors only"),
];

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

pub(crate) fn command() -> Command {
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
                .args(
                    SETTINGS
                        .iter()
                        .filter(|setting| setting.topic == Log || setting.key == "state-dir")
                        .map(arg),
                ),
        )
        .subcommand(cid())
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
        .subcommand(Command::new(ENGINE).hide(true).arg(Arg::new(BOUNDS)))
        .subcommand(Command::new(LIMIT).hide(true).arg(words()))
        .subcommand(Command::new(SPEED).hide(true))
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

fn settings(wanted: impl Fn(Topic) -> bool) -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(move |setting| wanted(setting.topic)).map(arg)
}

fn arg(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.key)
        .long(setting.key)
        .env(env_name(setting.key))
        .hide_env(true)
        .help(setting.help)
        .help_heading(setting.topic.heading());
    match setting.value {
        Some(name) => arg.value_name(name).allow_hyphen_values(name == "PRICE"),
        // A switch is read as text too, so that its variable and its key can say false.
        None => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_name("BOOL")
            .hide_default_value(true)
            .short(match setting.key {
                "verbose" => Some('v'),
                "quiet" => Some('q'),
                _ => None,
            }),
    }
}

/// `WORKER_TOKEN_FILE` for `token-file`.
fn env_name(key: &str) -> String {
    format!("WORKER_{}", key.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
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
        for topic in [Backend, Machine, Work, Pace, Files, Log] {
            assert!(help.contains(topic.heading()), "{topic:?} has no heading");
        }
        assert_eq!(help.matches("\n  worker ").count(), 3, "three examples");
    }
}
