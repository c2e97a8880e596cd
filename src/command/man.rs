//! `worker man`: the manual page, made from the command line's own words and what stands here of files, exit
//! codes and signals.

use std::io::{self, Write as _};

use clap::{Arg, Command};

use crate::cli::{self, SETTINGS};
use crate::exit::Exit;

const DESCRIPTION: &str = "\
worker registers this machine with a compute marketplace, sends heartbeats, takes the jobs that come with the \
replies, runs them, and delivers each result exactly once. What it must not lose is on disk before it is said, \
so a worker that was killed goes on where it was. It works until it is told to stop, and tries again for as \
long as the backend is away.

worker alone is worker run. worker demo shows all of it on this machine alone; worker doctor says what is wrong \
with a set-up, and how to put it right.";

const SETTING_RULES: &str = "\
Every setting is a flag, a key of worker.toml and a variable: --slots 2 is slots = 2 in the file that --config \
names, and WORKER_SLOTS=2 in the environment. A flag wins over the environment, and that over the file. A \
mistake is refused with its place and what was probably meant. Durations are written 30s, 5m, 1h30m; sizes \
500MB, 1GiB. A switch also takes a value, as in --once=false.";

const FILES: &[(&str, &str)] = &[
    ("worker.toml", "The settings, where --config says; nothing is read unless it says so."),
    ("STATE/lock", "Held for life: one agent a state directory."),
    ("STATE/worker-id", "The name under which the backend knows this worker."),
    (
        "STATE/status.json",
        "What the agent does, for worker status. A service keeps a copy without the words of jobs at \
         /run/qubix-worker/status.json, which everybody can read.",
    ),
    ("STATE/pause.json", "The pause that worker pause asked for; worker resume removes it."),
    (
        "STATE/ledger.jsonl",
        "A line for each attempt at a job that came to its end; worker earnings adds them up. At 16 MiB it \
         becomes ledger.1.jsonl.",
    ),
    ("STATE/jobs/", "Where each job is in its life, as worker jobs shows."),
    ("STATE/logs/", "What jobs printed, for 7 days, as worker logs shows."),
    ("STATE/artefacts/", "Files that jobs made, by content address."),
    ("STATE/speed.json", "How fast the processor is, as worker bench measured it."),
    ("STATE/quarantine/", "What did not read back, kept aside."),
];

const STATE: &str = "\
STATE is the state directory, which only its owner can enter: --state-dir, else $STATE_DIRECTORY (under systemd), \
else $XDG_STATE_HOME/qubix-worker, else ~/.local/state/qubix-worker.";

const EXITS: &[(Exit, &str)] = &[
    (Exit::Stopped, "Stopped as asked."),
    (Exit::Internal, "A fault of the program or of the machine; a check of worker doctor failed."),
    (Exit::Usage, "A flag, a variable or worker.toml asks for something that cannot be."),
    (Exit::Refused, "The backend refused the credentials, at the first registration."),
    (Exit::State, "The state directory cannot be used, or another agent uses it."),
    (Exit::JobFailed, "--once or --max-jobs ended with a failed job."),
    (Exit::NotRunning, "worker status: no agent runs."),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "TERM, INT",
        "Takes no new jobs; those that run may finish, for --drain-timeout. The same again cancels them, once \
         more leaves at once.",
    ),
    (
        "HUP",
        "Reads worker.toml and the token again, without an effect on jobs that run; a file with a mistake is refused, \
         and the settings stay. If stdin is a terminal, as TERM.",
    ),
    ("QUIT", "Cancels the jobs that run: TERM to each, 10 s of grace, KILL."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("WORKER_…", "The settings."),
    ("RUST_LOG", "What is logged, module by module; wins over --verbose and --quiet."),
    ("NO_COLOR", "No colours in help and in mistakes that are told; nothing else has any."),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "The proxy to the backend; never used for one on the loopback.",
    ),
    ("STATE_DIRECTORY, CREDENTIALS_DIRECTORY", "As systemd sets them for a unit."),
];

pub(crate) fn run() -> anyhow::Result<Exit> {
    io::stdout().write_all(page().as_bytes())?;
    Ok(Exit::Stopped)
}

fn page() -> String {
    let mut command = cli::shown();
    command.build();
    let mut page = Page::default();
    page.line(&format!(
        r#".TH WORKER 1 "" "qubix\-worker {}" "User Commands""#,
        escape(env!("CARGO_PKG_VERSION"))
    ));
    page.section("Name");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.text(&format!("worker - {}{}", about[..1].to_lowercase(), &about[1..]));
    page.section("Synopsis");
    page.verbatim("worker [run] [SETTING]...\nworker COMMAND [OPTION]...");
    page.section("Description");
    page.text(DESCRIPTION);
    page.section("Commands");
    let is_own = |command: &&Command| !command.is_hide_set();
    command.get_subcommands().filter(is_own).for_each(|command| page.command(command));
    page.section("Settings");
    page.text(SETTING_RULES);
    page.settings(&command);
    page.section("Files");
    page.text(STATE);
    page.list(FILES);
    page.section("Exit status");
    EXITS.iter().for_each(|(exit, told)| page.item(&(*exit as u8).to_string(), told));
    page.section("Signals");
    page.list(SIGNALS);
    page.section("Environment");
    page.list(ENVIRONMENT);
    page.section("Examples");
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples = help.split("\n\n").filter_map(|part| part.strip_prefix("Examples:\n"));
    examples.for_each(|lines| page.verbatim(lines));
    page.text
}

/// The page as far as it is written, in the macros of man(7).
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn section(&mut self, name: &str) {
        self.line(&format!(".SH {}", name.to_uppercase()));
    }

    fn part(&mut self, name: &str) {
        self.line(&format!(".SS \"{}\"", escape(name)));
    }

    /// Paragraphs, with an empty line between them.
    fn text(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.line(".PP");
            paragraph.lines().for_each(|line| self.line(&escape(line)));
        }
    }

    /// Lines as they stand.
    fn verbatim(&mut self, lines: &str) {
        self.line(".PP\n.nf");
        lines.lines().for_each(|line| self.line(&escape(line)));
        self.line(".fi");
    }

    /// What help says after its options: lines that are indented stand as they are.
    fn help(&mut self, help: &str) {
        let lines: Vec<&str> = help.lines().collect();
        for part in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
            let text = part.join("\n");
            if text.starts_with(' ') { self.verbatim(&text) } else { self.text(text.trim()) }
        }
    }

    fn list(&mut self, items: &[(&str, &str)]) {
        items.iter().for_each(|(what, told)| self.item(what, told));
    }

    fn item(&mut self, what: &str, told: &str) {
        self.line(".TP");
        self.line(&format!(r"\fB{}\fR", escape(what)));
        self.line(&escape(told));
    }

    fn arg(&mut self, arg: &Arg) {
        let told = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        let long = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
        let names = arg.get_value_names().unwrap_or_default();
        let takes = arg.get_action().takes_values() && !is_switch(arg);
        let value = names.first().filter(|_| takes).map(|name| format!(" {name}"));
        let what = format!("{short}{long}{}", value.unwrap_or_default());
        self.item(what.trim_start(), &told);
    }

    fn command(&mut self, command: &Command) {
        let operands = command.get_positionals().flat_map(|arg| arg.get_value_names());
        let operands: String = operands.flatten().map(|name| format!(" {name}")).collect();
        self.part(&format!("worker {}{operands}", command.get_name()));
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        self.text(&format!("{about}."));
        let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
        let (settings, own): (Vec<&Arg>, Vec<&Arg>) =
            command.get_arguments().filter(shown).partition(|arg| is_setting(arg));
        own.iter().filter(|arg| arg.get_help().is_some()).for_each(|arg| self.arg(arg));
        if settings.len() == SETTINGS.len() {
            self.text("It takes every setting.");
        } else if !settings.is_empty() {
            let names = settings.iter().map(|arg| format!("--{}", arg.get_id()));
            self.text(&format!(
                "Of the settings it takes {}.",
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        // What help says to `run` stands under the settings and the examples.
        if command.get_name() != "run" {
            self.help(&command.get_after_help().map(ToString::to_string).unwrap_or_default());
        }
    }

    fn settings(&mut self, command: &Command) {
        let mut heading = None;
        for arg in command.get_arguments().filter(|arg| is_setting(arg)) {
            if arg.get_help_heading() != heading {
                heading = arg.get_help_heading();
                self.part(heading.unwrap_or("Others"));
            }
            self.arg(arg);
        }
    }
}

/// The settings are those arguments that stand under a heading.
fn is_setting(arg: &Arg) -> bool {
    arg.get_help_heading().is_some()
}

fn is_switch(arg: &Arg) -> bool {
    SETTINGS.iter().any(|setting| arg.get_id() == setting.key && setting.value.is_none())
}

/// Text that means nothing to troff.
fn escape(text: &str) -> String {
    let text = text.replace('\\', r"\e").replace('-', r"\-").replace('"', r"\(dq");
    let text = text.replace('\'', r"\(aq").replace('`', r"\(ga").replace('…', "...");
    if text.starts_with('.') { format!(r"\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[test]
    fn the_page_has_every_command_setting_and_exit_code_and_nothing_that_is_hidden() {
        let page = page();
        for command in cli::shown().get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!("\n.SS \"worker {}", escape(name))), "{name}");
        }
        for setting in SETTINGS {
            assert!(page.contains(&escape(&format!("--{}", setting.key))), "{}", setting.key);
        }
        for (exit, _) in EXITS {
            assert!(page.contains(&format!("\n\\fB{}\\fR\n", *exit as u8)), "{exit:?}");
        }
        for hidden in [cli::ENGINE, cli::LIMIT, cli::SPEED] {
            assert!(!page.contains(&format!("worker {}", escape(hidden))), "{hidden}");
        }
    }

    #[test]
    fn the_page_names_the_files_that_people_meet_and_what_each_signal_does() {
        let page = page();
        for file in [store::STATUS, store::PAUSE, "ledger.jsonl", "worker-id", "speed.json"] {
            assert!(page.contains(&escape(&format!("STATE/{file}"))), "{file}");
        }
        for (signals, _) in SIGNALS {
            assert!(page.contains(&format!("\n\\fB{signals}\\fR\n")), "{signals}");
        }
    }

    #[test]
    fn no_text_is_taken_for_a_command_to_troff() {
        assert_eq!(escape(".so a\\b-c"), r"\&.so a\eb\-c");
        let known = [".TH", ".SH", ".SS", ".PP", ".TP", ".nf", ".fi"];
        for line in page().lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
        }
    }

    #[test]
    fn what_help_indents_stands_as_it_is() {
        let mut page = Page::default();
        page.help("A text\nof two lines.\n\nExamples:\n  worker man\n      Read it.");
        let told = ".PP\nA text\nof two lines.\n.PP\nExamples:\n.PP\n.nf\n  worker man\n      Read it.\n.fi\n";
        assert_eq!(page.text, told);
    }
}
