//! Where a setting's text comes from: a flag, the environment, or `worker.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use toml::de::{DeTable, DeValue};

use super::Problems;
use crate::cli::{SETTINGS, Setting};
use crate::text;

/// The settings as they were typed, each with its place, and the problems met so far.
pub(super) struct Layers {
    given: BTreeMap<&'static str, Given>,
    problems: Vec<String>,
    pub(super) file: Option<PathBuf>,
}

struct Given {
    text: String,
    /// `--slots`, `WORKER_SLOTS` or `worker.toml:7: slots`.
    place: String,
}

impl Layers {
    pub(super) fn read(args: &ArgMatches) -> Self {
        let mut layers = Self { given: BTreeMap::new(), problems: vec![], file: None };
        for setting in SETTINGS {
            if let Some(given) = typed(args, setting) {
                layers.given.insert(setting.key, given);
            }
        }
        if let Some(file) = layers.parse("config", super::value::path) {
            layers.read_file(&file);
            layers.file = Some(file);
        }
        layers
    }

    fn read_file(&mut self, file: &Path) {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return self.problem(format!("cannot read {}: {error}", file.display())),
        };
        let place = |at: usize| {
            let line = text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
            format!("{}:{line}", file.display())
        };
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                return self.problem(format!(
                    "{}: {}",
                    place(at),
                    text::one_line(error.message(), 300)
                ));
            }
        };
        for (key, value) in table.get_ref() {
            let line = place(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                // Those that are also written as tables of their own, and how their settings begin.
                (table @ ("container" | "ipfs" | "limits"), DeValue::Table(rows)) => {
                    for (key, value) in rows {
                        let place =
                            format!("{}: [{table}] {}", place(key.span().start), key.get_ref());
                        let prefix = if table == "limits" { "limit" } else { table };
                        self.take(&format!("{prefix}-{}", key.get_ref()), value.get_ref(), place);
                    }
                }
                (key, value) => self.take(key, value, format!("{line}: {key}")),
            }
        }
    }

    fn take(&mut self, key: &str, value: &DeValue<'_>, place: String) {
        match file_value(key, value) {
            Ok((key, text)) => {
                self.given.entry(key).or_insert(Given { text, place });
            }
            Err(problem) => self.problem(format!("{place}: {problem}")),
        }
    }

    /// The setting's value, if it was given; a text that does not parse becomes a problem.
    pub(super) fn parse<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.key == key), "no setting {key}");
        let given = self.given.get(key)?;
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let shown = text::one_line(&without_credentials(&given.text), 100);
                self.problems.push(format!("{}: \"{shown}\" {problem}", given.place));
                None
            }
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// The settled value, if there was no problem on the way to it.
    pub(super) fn verdict<T>(self, settled: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(settled) } else { Err(Problems(self.problems)) }
    }
}

/// An URL's user and password are no business of the terminal's or the journal's.
fn without_credentials(text: &str) -> String {
    let Some((_, host)) = text.rsplit_once('@') else { return text.to_owned() };
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://…@{host}"),
        None => format!("…@{host}"),
    }
}

fn typed(args: &ArgMatches, setting: &Setting) -> Option<Given> {
    // A command takes only the settings that mean something to it.
    let text = args.try_get_one::<String>(setting.key).ok()??.clone();
    let place = match args.value_source(setting.key)? {
        // What a compose file leaves empty was not given.
        ValueSource::EnvVariable if text.is_empty() => return None,
        ValueSource::EnvVariable => {
            format!("WORKER_{}", setting.key.replace('-', "_").to_uppercase())
        }
        _ => format!("--{}", setting.key),
    };
    Some(Given { text, place })
}

fn file_value(key: &str, value: &DeValue<'_>) -> Result<(&'static str, String), String> {
    let known = SETTINGS.iter().map(|setting| setting.key).filter(|key| *key != "config");
    let Some(key) = known.clone().find(|known| *known == key) else {
        return Err(match text::nearest(key, known) {
            Some(meant) => format!("there is no such key; did you mean {meant}?"),
            None => "there is no such key; `worker --help` lists them".into(),
        });
    };
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => {
            return Err(format!("takes a text, a number or a boolean, not {}", value.type_str()));
        }
    };
    Ok((key, text))
}

/// Reads one variable of the environment that is not a setting.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]
pub(super) fn env(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
