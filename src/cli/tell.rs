//! The subcommands that tell the owner something. None of them changes anything.

use clap::{Arg, ArgAction, Command};

use super::UNITS;
use super::settings::{log_and, settings};

const EARNINGS_EXAMPLES: &str = "\
An attempt earns its price for the time it ran once its result was delivered; failed ones earn nothing, and
their time and energy are told all the same. What ran on several GPUs counts for each in equal parts.

Examples:
  worker earnings
  worker earnings --by gpu --electricity-price 0.31
      What is left after electricity.
  worker earnings --csv > earnings.csv
  sudo worker earnings --state-dir /var/lib/qubix-worker
      Those of the service.";

const JOBS_EXAMPLES: &str = "\
What is not over comes first, then what ended last. Times are those of UTC.

Examples:
  worker jobs
  worker jobs --last 1000 --json | jq '.[] | select(.status == \"failed\")'";

const LOGS_EXAMPLES: &str = "\
Logs are kept for 7 days, the newest 1000 of them, each with its first and its last 4 MiB.

Examples:
  worker logs job-1 | less
  worker logs --follow job-1
      Watch a job that runs; of what it prints beyond 4 MiB the rest is shown at its end.";

const DOCTOR_EXAMPLES: &str = "\
Give it the settings that the worker has. It looks at the backend, the token, the clock, the state
directory, the GPUs, the service, and at what each kind of job needs that is allowed, and changes nothing.
It ends with 1 if something has to be put right.

Examples:
  worker doctor --backend https://market.example --token-file token
  sudo worker doctor --config /etc/qubix-worker/worker.toml --state-dir /var/lib/qubix-worker
      The service's set-up.
  worker doctor --json | jq '.checks[] | select(.verdict != \"ok\")'";

const COMPLETIONS_EXAMPLES: &str = "\
Put what it prints where the shell looks for it:
  bash  ~/.local/share/bash-completion/completions/worker
  zsh   a file _worker in a folder that $fpath names
  fish  ~/.config/fish/completions/worker.fish

Examples:
  worker completions bash > ~/.local/share/bash-completion/completions/worker
  worker completions fish > ~/.config/fish/completions/worker.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  worker man | man -l -
      Read it.
  worker man > ~/.local/share/man/man1/worker.1
      Keep it, for `man worker`.";

/// The shells that completions are made for.
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

pub(super) fn commands() -> [Command; 6] {
    [earnings(), jobs(), logs(), doctor(), completions(), man()]
}

fn earnings() -> Command {
    Command::new("earnings")
        .about("Add up what was earned: by day, by kind of job, by GPU")
        .after_help(EARNINGS_EXAMPLES)
        .arg(
            Arg::new("by")
                .long("by")
                .value_name("WHAT")
                .value_parser(["day", "kind", "gpu"])
                .default_value("day")
                .help("A line for each of these; days are those of UTC"),
        )
        .arg(flag("json", "Print the sums as JSON").conflicts_with("csv"))
        .arg(flag("csv", "Print the sums as CSV, for a spreadsheet"))
        .args(log_and(&["config", "state-dir", "electricity-price"]))
}

fn jobs() -> Command {
    Command::new("jobs")
        .about("List the jobs that ran here lately, and those that run now")
        .after_help(JOBS_EXAMPLES)
        .arg(
            Arg::new("last")
                .long("last")
                .short('n')
                .value_name("N")
                .value_parser(clap::value_parser!(u32))
                .default_value("20")
                .help("So many of them at most"),
        )
        .arg(flag("json", "Print them as JSON"))
        .args(log_and(&["config", "state-dir"]))
}

fn logs() -> Command {
    Command::new("logs")
        .about("Show what a job printed")
        .after_help(LOGS_EXAMPLES)
        .arg(
            Arg::new("id")
                .value_name("ID")
                .required(true)
                .help("The job, as `worker jobs` names it"),
        )
        .arg(flag("follow", "Show what it prints from now on too, until it has ended").short('f'))
        .arg(flag("path", "Print where the log is instead"))
        .args(log_and(&["config", "state-dir"]))
}

fn doctor() -> Command {
    Command::new("doctor")
        .about("Check this set-up: each thing that is wrong, and how to put it right")
        .after_help(format!("{UNITS}\n\n{DOCTOR_EXAMPLES}"))
        .arg(flag("json", "Print the findings as JSON"))
        .args(settings(|_| true))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn completions() -> Command {
    Command::new("completions")
        .about("Print what a shell needs to complete this command line")
        .after_help(COMPLETIONS_EXAMPLES)
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(SHELLS))
}

fn man() -> Command {
    Command::new("man")
        .about("Print the manual page: commands, settings, files, exit codes, signals")
        .after_help(MAN_EXAMPLES)
}
