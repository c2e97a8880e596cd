//! What a running program prints: progress, a small result, and log lines, all bounded.

use std::collections::VecDeque;
use std::mem;
use std::time::SystemTime;

use serde_json::Value;

use crate::process::Stream;
use crate::text;
use crate::work::{LogLine, Object};

/// How many lines are kept for a failure, and how many bytes of them: some backends take no body
/// of more than 100 kB.
const LAST_LINES: usize = 100;
const LAST_BYTES: usize = 48 << 10;

/// What a program has said so far.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The furthest it ever said it was.
    pub(super) percent: f64,
    pub(super) operation: Option<String>,
    /// A small result, given as a line.
    pub(super) result: Option<Object>,
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
        if let Some(Value::Object(result)) = message.remove("result") {
            self.result = Some(result);
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
    fn whatever_is_not_the_protocol_is_log() {
        let lines =
            ["{", "{}", r#"{"progress":"x"}"#, r#"{"progress":101}"#, r#"{"result":1}"#, "hi\0"];
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
}
