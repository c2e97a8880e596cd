//! The log on stderr: a journald priority under systemd, else time and level; above the bars where
//! there are any.

use std::fmt::Write as _;
use std::io::{self, Write};

use env_logger::{Builder, Env, Target};
use indicatif::MultiProgress;
use log::{Level, LevelFilter};

use crate::config::{Format, Log};
use crate::{clock, text};

/// Starts the log. `RUST_LOG` wins over the level asked for.
pub(crate) fn start(log: Log) {
    builder(log).init();
    warn_of_clock();
}

/// The same, with bars below it that it leaves whole.
pub(crate) fn start_above(bars: MultiProgress, log: Log) {
    builder(log).target(Target::Pipe(Box::new(Above(bars)))).init();
    warn_of_clock();
}

fn warn_of_clock() {
    if clock::is_before_1970() {
        log::warn!(
            "the clock of this machine stands before 1970: times are wrong, and no https server can be reached \
             until it is set (timedatectl set-ntp true)"
        );
    }
}

fn builder(Log { level, format, under_journal }: Log) -> Builder {
    let mut builder = Builder::new();
    // Libraries speak only when something is wrong; a trace of theirs could show a token.
    builder.filter_level(LevelFilter::Warn).filter_module("qubix_worker", level);
    builder.parse_env(Env::default());
    builder.format(move |out, record| {
        // One line, whatever a backend or a job put into a message.
        let message = text::one_line(&record.args().to_string(), 4096);
        let level = record.level();
        match format {
            Format::Json => {
                let now = clock::rfc3339(clock::wall());
                let level = level.as_str().to_lowercase();
                let line = serde_json::json!({"time": now, "level": level, "message": message});
                writeln!(out, "{line}")
            }
            Format::Text if under_journal => writeln!(out, "<{}>{message}", priority(level)),
            Format::Text => {
                let mut head = clock::rfc3339(clock::wall());
                // Writing to a string cannot fail.
                write!(head, " {level:<5}").ok();
                writeln!(out, "{head} {message}")
            }
        }
    });
    builder
}

/// Stderr, from which the bars are taken away while a line is written.
struct Above(MultiProgress);

impl Write for Above {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
