//! Runs an engine's client to its end, within a bound: an engine that hangs must not hold a job's slot.

use std::time::{Duration, Instant};

use super::Engine;
use crate::process::{Child, Program, Stream, Woken};

/// How long most calls may take, on a machine that does a lot besides.
pub(super) const CALL: Duration = Duration::from_secs(60);

/// So many lines of an answer are kept.
const LINES_MAX: usize = 4000;

/// What a client said before it ended.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: Option<i32>,
    pub(super) out: Vec<String>,
    pub(super) err: Vec<String>,
}

impl Answer {
    /// What it printed, if it succeeded, and what it complained of if not.
    pub(super) fn told(self) -> Result<Vec<String>, String> {
        if self.code == Some(0) { Ok(self.out) } else { Err(complaint(&self.err)) }
    }
}

/// The last line of what a client complained of, which is where it comes to the point.
pub(super) fn complaint(lines: &[String]) -> String {
    let told = lines.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty());
    let told = told.unwrap_or("it failed, and did not say why");
    let told = ["Error: ", "Error response from daemon: ", "docker: "]
        .iter()
        .fold(told, |told, prefix| told.strip_prefix(prefix).unwrap_or(told));
    crate::text::one_line(told, 500)
}

impl Engine {
    /// A client's process, in which nothing of the agent's environment is but what it needs. A proxy, with
    /// its password, is for fetching images: clients hand it on to containers.
    pub(super) fn program(&self, args: &[String]) -> Program {
        let pulls = args.first().is_some_and(|command| command == "pull");
        let needs = |name: &str| pulls || !name.to_lowercase().ends_with("_proxy");
        Program {
            // Not a job's: what it leaves running is the engine's.
            mark: "engine".into(),
            path: self.program.clone(),
            args: args.iter().map(Into::into).collect(),
            env: self.env.iter().filter(|(name, _)| needs(name)).cloned().collect(),
            dir: "/".into(),
            is_wrapped: false,
        }
    }

    pub(super) fn call(&self, args: &[&str], at_most: Duration) -> Result<Answer, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.call_with(&args, at_most)
    }

    pub(super) fn call_with(&self, args: &[String], at_most: Duration) -> Result<Answer, String> {
        let name = self.program.display();
        let failed = |error| format!("{name} cannot be run: {error}");
        let mut child = Child::start(&self.program(args), None).map_err(failed)?;
        child.release().ok();
        let mut answer = Answer::default();
        let mut keep = |stream, line: &str| {
            let kept = match stream {
                Stream::Stdout => &mut answer.out,
                Stream::Stderr => &mut answer.err,
            };
            if kept.len() < LINES_MAX {
                kept.push(line.to_owned());
            }
        };
        let until = Instant::now() + at_most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if child.wait(left, None, &mut keep).map_err(failed)? == Woken::Exited {
                break;
            }
            if left.is_zero() {
                let what = args.first().map_or("", String::as_str);
                return Err(format!("{name} {what} did not end within {} s", at_most.as_secs()));
            }
        }
        answer.code = child.finish(&mut keep).map_err(failed)?.code();
        Ok(answer)
    }
}
