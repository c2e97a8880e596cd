//! `worker doctor`: what is wrong with a set-up, and how to put it right. It changes nothing.
//!
//! A check is a plain function that looks at what it is given, a folder in the place of `/` where it is the
//! machine, so that each can be tried against a world that is made up.

mod backend;
mod machine;
mod needs;
mod service;
mod state;

use std::io::{self, Write as _};
use std::path::Path;

use clap::ArgMatches;
use serde_json::{Value, json};

use crate::config::Config;
use crate::exit::Exit;
use crate::{logging, text};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let checks = match Config::from_args(args) {
        Ok(config) => {
            logging::start(config.log);
            all(&config, Path::new("/"))
        }
        // Without settings there is nothing else to look at.
        Err(problems) => {
            let fix = "correct these; `worker --help` lists the settings";
            vec![Check::fail("settings", problems.to_string().replace('\n', "; "), fix)]
        }
    };
    let told = if args.get_flag("json") {
        text::visible_json(&json(&checks))
    } else {
        text::shown_lines(&text(&checks))
    };
    io::stdout().write_all(told.as_bytes())?;
    let failed = checks.iter().any(|check| matches!(check.verdict, Verdict::Fail { .. }));
    Ok(if failed { Exit::Internal } else { Exit::Stopped })
}

/// What was looked at, and what was found.
#[derive(Debug, PartialEq)]
struct Check {
    name: String,
    verdict: Verdict,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Ok(String),
    /// It works, and might not for long.
    Warn {
        what: String,
        fix: String,
    },
    Fail {
        what: String,
        fix: String,
    },
}

impl Check {
    fn ok(name: impl Into<String>, told: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok(told.into()) }
    }

    fn warn(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let verdict = Verdict::Warn { what: what.into(), fix: fix.into() };
        Self { name: name.into(), verdict }
    }

    fn fail(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let verdict = Verdict::Fail { what: what.into(), fix: fix.into() };
        Self { name: name.into(), verdict }
    }
}

fn all(config: &Config, root: &Path) -> Vec<Check> {
    let settings = match &config.file {
        Some(file) => file.display().to_string(),
        None => "no worker.toml: flags, environment and defaults".into(),
    };
    let mut checks = vec![Check::ok("settings", settings)];
    checks.extend(backend::checks(config, root));
    checks.extend(state::checks(config));
    checks.push(machine::gpus(&config.identity, root));
    checks.push(machine::sleep(root));
    checks.push(machine::namespaces(root));
    checks.extend(service::checks(&config.identity.state_dir, root));
    checks.extend(needs::checks(&config.jobs, &config.identity.state_dir, root));
    checks
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let line = |mark: &str, name: &str, text: &str| format!("{mark:4}  {name:width$}  {text}\n");
    let (mut lines, mut warned, mut failed) = (vec![], 0, 0);
    for Check { name, verdict } in checks {
        let (mark, what, fix) = match verdict {
            Verdict::Ok(told) => ("ok", told, None),
            Verdict::Warn { what, fix } => ("warn", what, Some(fix)),
            Verdict::Fail { what, fix } => ("FAIL", what, Some(fix)),
        };
        warned += usize::from(mark == "warn");
        failed += usize::from(mark == "FAIL");
        lines.push(line(mark, name, what));
        lines.extend(fix.map(|fix| line("", "", &format!("fix: {fix}"))));
    }
    let found = match (failed, warned) {
        (0, 0) => "nothing to put right".to_owned(),
        (failed, 0) => format!("{failed} to put right"),
        (0, warned) => format!("{warned} to look at"),
        (failed, warned) => format!("{failed} to put right, {warned} to look at"),
    };
    format!("{}\n{} checks: {found}\n", lines.concat(), checks.len())
}

fn json(checks: &[Check]) -> String {
    let check = |Check { name, verdict }: &Check| match verdict {
        Verdict::Ok(told) => json!({"name": name, "verdict": "ok", "told": told}),
        Verdict::Warn { what, fix } => {
            json!({"name": name, "verdict": "warn", "what": what, "fix": fix})
        }
        Verdict::Fail { what, fix } => {
            json!({"name": name, "verdict": "fail", "what": what, "fix": fix})
        }
    };
    let checks: Vec<Value> = checks.iter().map(check).collect();
    format!("{:#}\n", json!({ "checks": checks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_what_is_wrong_and_a_line_with_the_fix() {
        let checks = [
            Check::ok("settings", "worker.toml"),
            Check::fail("token", "others can read it", "chmod 600 token"),
            Check::warn("sleep", "it sleeps", "let it not"),
        ];
        assert_eq!(
            text(&checks),
            "ok    settings  worker.toml\n\
             FAIL  token     others can read it\n\
             \x20               fix: chmod 600 token\n\
             warn  sleep     it sleeps\n\
             \x20               fix: let it not\n\n\
             3 checks: 1 to put right, 1 to look at\n"
        );
        assert!(text(&checks[..1]).ends_with("\n1 checks: nothing to put right\n"));
    }
}
