//! What a running program prints: progress, a small result, and log lines, all bounded.

use std::collections::VecDeque;
use std::mem;
use std::time::SystemTime;

use serde_json::Value;

use super::collect::as_result;
use crate::process::Stream;
use crate::text;
use crate::work::{LogLine, Object, Reason, Stage};

/// How many lines are kept for a failure, and how many bytes of them: some backends take no body
/// of more than 100 kB.
const LAST_LINES: usize = 100;
const LAST_BYTES: usize = 48 << 10;

/// A failure in a program's own words; its exit code tells that it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) reason: Reason,
    pub(super) stage: Stage,
    pub(super) error: String,
}

/// What a program has said so far.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The furthest it ever said it was.
    pub(super) percent: f64,
    pub(super) operation: Option<String>,
    /// A small result, given as a line.
    pub(super) result: Option<Object>,
    /// Why it cannot do what it was asked for.
    pub(super) failure: Option<Told>,
    last: VecDeque<String>,
    last_bytes: usize,
    unreported: Vec<LogLine>,
}

impl Output {
    /// Returns the line as it is logged, unless it is a message.
    pub(super) fn take(&mut self, stream: Stream, line: &str, at: SystemTime) -> Option<&str> {
        if stream == Stream::Stdout && self.take_message(line) {
            return None;
        }
        let text = text::clean(line);
        self.last_bytes += text.len();
        self.last.push_back(text.clone());
        while self.last.len() > LAST_LINES || self.last_bytes > LAST_BYTES {
            let Some(oldest) = self.last.pop_front() else { break };
            self.last_bytes -= oldest.len();
        }
        self.unreported.push(LogLine { from_stderr: stream == Stream::Stderr, text, at });
        // Not at every line: counting them all each time would make a flood dear.
        if self.unreported.len() > 2 * LogLine::LINES_MAX {
            LogLine::keep_newest(&mut self.unreported);
        }
        self.last.back().map(String::as_str)
    }

    /// Whether the line was one of the protocol's, and not log.
    fn take_message(&mut self, line: &str) -> bool {
        if !line.starts_with('{') {
            return false;
        }
        let Ok(mut message) = serde_json::from_str::<Object>(line) else { return false };
        let progress = message.get("progress").and_then(Value::as_f64);
        if let Some(percent) = progress.filter(|percent| (0.0..=100.0).contains(percent)) {
            self.percent = self.percent.max(percent);
            if let Some(operation) = message.get("operation").and_then(Value::as_str) {
                self.operation = Some(text::one_line(operation, 200));
            }
            return true;
        }
        if let Some(result) = message.remove("result") {
            self.result = Some(as_result(result));
            return true;
        }
        if let Some(told) = message.get("failure").and_then(told) {
            self.failure = Some(told);
            return true;
        }
        false
    }

    /// Lines since the last report.
    pub(super) fn report_lines(&mut self) -> Vec<LogLine> {
        LogLine::keep_newest(&mut self.unreported);
        mem::take(&mut self.unreported)
    }

    /// The last lines, for a failure.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

fn told(failure: &Value) -> Option<Told> {
    let text = |name| failure.get(name).and_then(Value::as_str);
    // Only what a program can know of itself.
    let reasons =
        [Reason::BadInput, Reason::DownloadFailed, Reason::UploadFailed, Reason::Internal];
    Some(Told {
        reason: reasons.into_iter().find(|reason| Some(reason.name()) == text("reason"))?,
        stage: Stage::ALL.into_iter().find(|stage| Some(stage.name()) == text("stage"))?,
        error: text::one_line(text("error")?, 1000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Output {
        let mut output = Output::default();
        for line in lines {
            output.take(Stream::Stdout, line, SystemTime::UNIX_EPOCH);
        }
        output
    }

    #[test]
    fn progress_never_goes_back_and_is_no_log() {
        let output = said(&[
            r#"{"progress":40,"operation":"epoch 4"}"#,
            r#"{"progress":12,"operation":"epoch 1 again"}"#,
        ]);
        assert_eq!((output.percent, output.last_lines().len()), (40.0, 0));
        assert_eq!(output.operation.as_deref(), Some("epoch 1 again"));
    }

    #[test]
    fn a_program_may_say_why_it_fails_but_only_what_it_can_know() {
        let failure = |reason: &str, stage: &str| {
            let line = format!(
                r#"{{"failure":{{"reason":"{reason}","stage":"{stage}","error":"no\n rows"}}}}"#
            );
            said(&[&line]).failure
        };
        let told = |reason, stage| Some(Told { reason, stage, error: "no  rows".into() });
        assert_eq!(failure("bad_input", "inputs"), told(Reason::BadInput, Stage::Inputs));
        assert_eq!(failure("download_failed", "run"), told(Reason::DownloadFailed, Stage::Run));
        for (reason, stage) in [("timeout", "run"), ("lost", "run"), ("bad_input", "moon")] {
            assert_eq!(failure(reason, stage), None, "{reason} {stage}");
        }
        let long = format!(
            r#"{{"failure":{{"reason":"internal","stage":"run","error":"{}"}}}}"#,
            "x".repeat(4000)
        );
        assert_eq!(said(&[&long]).failure.unwrap().error.len(), 1000);
        let text = r#"{"failure":"no rows"}"#;
        let output = said(&[text]);
        assert_eq!((output.failure.clone(), output.last_lines()), (None, vec![text.to_owned()]));
    }

    #[test]
    fn a_printed_result_is_told_whatever_it_is() {
        for (given, told) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#""text""#, r#"{"value":"text"}"#),
            ("4.5", r#"{"value":4.5}"#),
            ("[1,2]", r#"{"value":[1,2]}"#),
            ("false", r#"{"value":false}"#),
            ("null", r#"{"value":null}"#),
        ] {
            let output = said(&[&format!(r#"{{"result":{given}}}"#)]);
            assert_eq!(
                output.result.map(Value::Object),
                serde_json::from_str(told).ok(),
                "{given}"
            );
            assert_eq!(output.last, [""; 0], "{given} is no log");
        }
    }

    #[test]
    fn whatever_is_not_the_protocol_is_log() {
        let lines = ["{", "{}", r#"{"progress":"x"}"#, r#"{"progress":101}"#, "[1]", "hi\0"];
        let output = said(&lines);
        assert_eq!(output.percent, 0.0);
        assert_eq!(output.last_lines().last().map(String::as_str), Some("hi"));
        assert_eq!(output.last_lines().len(), lines.len());
    }

    #[test]
    fn a_job_that_prints_without_end_takes_a_bounded_share() {
        let line = "x".repeat(1000);
        let mut output = said(&vec![line.as_str(); 10_000]);
        assert_eq!(output.last_lines().len(), LAST_BYTES / 1000);
        let reported: usize = output.report_lines().iter().map(|line| line.text.len()).sum();
        assert_eq!(reported, 16_000);
        assert_eq!(output.report_lines(), []);
    }

    #[test]
    fn fuzz_line() {
        const WORDS: [&str; 12] = [
            "{",
            "}",
            "\"",
            "\n",
            "{\"progress\":",
            "{\"result\":{",
            "\"operation\":",
            "{\"failure\":{\"reason\":",
            "1e308",
            "null",
            "\\u0000",
            "\u{202e}",
        ];
        crate::fuzz::run("line", &WORDS, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (mut output, mut percent) = (Output::default(), 0.0);
            for line in text.lines() {
                output.take(Stream::Stdout, line, SystemTime::UNIX_EPOCH);
                assert!((percent..=100.0).contains(&output.percent));
                percent = output.percent;
            }
            let Output { operation, result, failure, .. } = &output;
            let told = [operation.as_deref(), failure.as_ref().map(|told| told.error.as_str())];
            let last = output.last_lines();
            assert!(last.iter().map(String::len).sum::<usize>() <= LAST_BYTES);
            assert!(
                told.iter()
                    .flatten()
                    .all(|text| text.len() <= 1000 && !text.contains(char::is_control))
            );
            let parts = [percent > 0.0, operation.is_some(), result.is_some(), failure.is_some()];
            format!("{parts:?} {}", if last.is_empty() { "" } else { "log" })
        });
    }
}
