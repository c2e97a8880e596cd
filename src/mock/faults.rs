//! Faults on order: which requests fail, and how. `ROUTE[@N[-[M]]]=WHAT`, as in `heartbeat@2-4=503:5`.
//!
//! N and M count the requests to that route from 1; the first fault in the list that fits a request is the one
//! that happens. Only routes that the agent uses can fail, so that a test can always submit, cancel and look.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use crate::serve::Response;

const MAX_DELAY: Duration = Duration::from_secs(3600);
const DEPTH: usize = 10_000;
/// Above the 64 MiB that an agent reads of a reply.
const HUGE: usize = 64 * 1024 * 1024 + 64 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    target: Target,
    first: u64,
    last: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Register,
    Heartbeat,
    Progress,
    Complete,
    Job,
    Pending,
    Any,
}

const TARGETS: [(&str, Target); 7] = [
    ("register", Target::Register),
    ("heartbeat", Target::Heartbeat),
    ("progress", Target::Progress),
    ("complete", Target::Complete),
    ("job", Target::Job),
    ("pending", Target::Pending),
    ("any", Target::Any),
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    /// Reset before anything is done or answered.
    Refuse,
    /// Done, and the answer cut in the middle of its body.
    Cut,
    /// Done, and reset without an answer.
    Lost,
    Delay(Duration),
    /// Every pending job is listed twice, and each finished one is offered once more.
    Duplicate,
    /// Nothing is done; this is answered.
    Canned(Canned),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Canned {
    Status { status: u16, retry_after: Option<u64> },
    Html,
    Garbage,
    Deep,
    Huge,
}

const WORDS: [(&str, What); 12] = [
    ("refuse", What::Refuse),
    ("reset", What::Cut),
    ("lost", What::Lost),
    ("duplicate", What::Duplicate),
    ("html", What::Canned(Canned::Html)),
    ("garbage", What::Canned(Canned::Garbage)),
    ("deep", What::Canned(Canned::Deep)),
    ("huge", What::Canned(Canned::Huge)),
    ("401", status(401)),
    ("404", status(404)),
    ("500", status(500)),
    ("503", status(503)),
];

const fn status(status: u16) -> What {
    What::Canned(Canned::Status { status, retry_after: None })
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("fault `{spec}`: {problem}")]
pub(crate) struct BadFault {
    spec: String,
    problem: String,
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(spec: &str) -> Result<Self, BadFault> {
        parse(spec.trim()).map_err(|problem| BadFault { spec: spec.to_owned(), problem })
    }
}

/// Reads one fault a line; `#` begins a comment.
pub(crate) fn parse_lines(text: &str) -> Result<Vec<Fault>, BadFault> {
    let specs = text.lines().map(|line| line.split_once('#').map_or(line, |(spec, _)| spec).trim());
    specs.filter(|spec| !spec.is_empty()).map(str::parse).collect()
}

fn parse(spec: &str) -> Result<Fault, String> {
    let (place, what) =
        spec.split_once('=').ok_or("no `=` in it; it is written ROUTE[@N[-M]]=WHAT")?;
    let (route, range) =
        place.split_once('@').map_or((place, None), |(route, range)| (route, Some(range)));
    let target = TARGETS.iter().find(|(word, _)| *word == route).map(|(_, target)| *target);
    let target =
        target.ok_or_else(|| format!("no route `{route}`; the routes are {}", words(&TARGETS)))?;
    let (first, last) = range.map_or(Ok((1, u64::MAX)), parse_range)?;
    let what = parse_what(what)?;
    if what == What::Duplicate && target != Target::Heartbeat {
        return Err("only the answer to a `heartbeat` can be `duplicate`".to_owned());
    }
    Ok(Fault { target, first, last, what })
}

fn parse_range(range: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
    let bounds = match range.split_once('-') {
        None => number(range).map(|only| (only, only)),
        Some((first, "")) => number(first).map(|first| (first, u64::MAX)),
        Some((first, last)) => number(first).zip(number(last)),
    };
    bounds
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| format!("`@{range}` is no range; write @2, @2-4 or @2-, counting from 1"))
}

fn parse_what(what: &str) -> Result<What, String> {
    if let Some((_, known)) = WORDS.iter().find(|(word, _)| *word == what) {
        return Ok(*known);
    }
    match what.split_once(':') {
        None if what == "429" => Ok(status(429)),
        Some(("429", seconds)) => retry_later(429, seconds),
        Some(("503", seconds)) => retry_later(503, seconds),
        Some(("delay", duration)) => parse_delay(duration),
        _ => Err(format!(
            "no fault `{what}`; the faults are {}, 429, 503:SECS, 429:SECS, delay:2s",
            words(&WORDS)
        )),
    }
}

fn retry_later(status: u16, seconds: &str) -> Result<What, String> {
    let seconds = seconds
        .parse()
        .map_err(|_error| format!("`{seconds}` is no number of seconds, as in {status}:5"))?;
    Ok(What::Canned(Canned::Status { status, retry_after: Some(seconds) }))
}

fn parse_delay(text: &str) -> Result<What, String> {
    let delay = humantime::parse_duration(text);
    let delay =
        delay.map_err(|error| format!("`{text}` is no duration, as in delay:2s: {error}"))?;
    if delay > MAX_DELAY {
        return Err("a delay is at most 1h".to_owned());
    }
    Ok(What::Delay(delay))
}

fn words<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

/// The faults on order, and how many requests each route has seen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    pub(super) seen: BTreeMap<Target, u64>,
}

impl Faults {
    pub(super) fn new(list: Vec<Fault>) -> Self {
        Self { list, seen: BTreeMap::new() }
    }

    /// Counts a request to `target`, and returns what shall go wrong with it.
    pub(super) fn next(&mut self, target: Target) -> Option<What> {
        let here = self.count(target);
        let anywhere = self.count(Target::Any);
        let fits = |fault: &&Fault| match fault.target {
            Target::Any => (fault.first..=fault.last).contains(&anywhere),
            one => one == target && (fault.first..=fault.last).contains(&here),
        };
        self.list.iter().find(fits).map(|fault| fault.what)
    }

    fn count(&mut self, target: Target) -> u64 {
        let seen = self.seen.entry(target).or_default();
        *seen += 1;
        *seen
    }
}

impl Canned {
    pub(super) fn response(self, target: Option<Target>) -> Response {
        match self {
            Self::Status { status, retry_after } => {
                let headers = retry_after.map(|seconds| ("Retry-After", seconds.to_string()));
                let body =
                    serde_json::json!({ "success": false, "error": error_text(status, target) });
                Response {
                    headers: headers.into_iter().collect(),
                    ..json(status, body.to_string())
                }
            }
            Self::Html => {
                let body =
                    b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>"
                        .to_vec();
                Response { status: 200, content_type: "text/html", headers: vec![], body }
            }
            Self::Garbage => json(200, r#"{"success":true,"pendingJobs":[{"id":"#.to_owned()),
            Self::Deep => {
                let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
                json(200, format!(r#"{{"success":true,"pendingJobs":{open}{close}}}"#))
            }
            Self::Huge => json(
                200,
                format!(r#"{{"success":true,"pendingJobs":[],"padding":"{}"}}"#, "x".repeat(HUGE)),
            ),
        }
    }
}

/// An unknown provider and an unknown job are told apart by their words, as the real backend does.
fn error_text(status: u16, target: Option<Target>) -> &'static str {
    match (status, target) {
        (401, _) => "Unauthorized",
        (404, Some(Target::Heartbeat)) => "Provider not found",
        (404, Some(Target::Progress | Target::Complete | Target::Job)) => "Job not found",
        (404, _) => "Not found",
        (429, _) => "Too many requests",
        (503, _) => "Service unavailable",
        _ => "Internal server error",
    }
}

fn json(status: u16, body: String) -> Response {
    Response { status, content_type: "application/json", headers: vec![], body: body.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(spec: &str) -> Fault {
        spec.parse().unwrap()
    }

    fn problem(spec: &str) -> String {
        spec.parse::<Fault>().unwrap_err().to_string()
    }

    #[test]
    fn a_spec_names_a_route_a_range_and_a_fault() {
        let fault = |target, first, last, what| Fault { target, first, last, what };
        let later = |status, secs| What::Canned(Canned::Status { status, retry_after: Some(secs) });
        assert_eq!(parsed("any=refuse"), fault(Target::Any, 1, u64::MAX, What::Refuse));
        assert_eq!(parsed("job@3=reset"), fault(Target::Job, 3, 3, What::Cut));
        assert_eq!(parsed("register@2-4=503:5"), fault(Target::Register, 2, 4, later(503, 5)));
        assert_eq!(parsed("complete@2-=429"), fault(Target::Complete, 2, u64::MAX, status(429)));
        assert_eq!(parsed("progress=delay:1m 2s").what, What::Delay(Duration::from_secs(62)));
        assert_eq!(parsed("heartbeat=duplicate").what, What::Duplicate);
        assert_eq!(parsed("pending=huge").what, What::Canned(Canned::Huge));
    }

    #[test]
    fn a_bad_spec_is_told_what_is_wrong_and_what_would_be_right() {
        assert_eq!(problem("500"), "fault `500`: no `=` in it; it is written ROUTE[@N[-M]]=WHAT");
        assert_eq!(
            problem("beat=500"),
            "fault `beat=500`: no route `beat`; the routes are \
             register, heartbeat, progress, complete, job, pending, any"
        );
        assert_eq!(
            problem("job=502"),
            "fault `job=502`: no fault `502`; the faults are refuse, reset, lost, duplicate, html, garbage, deep, \
             huge, 401, 404, 500, 503, 429, 503:SECS, 429:SECS, delay:2s"
        );
        assert_eq!(
            problem("job=429:5s"),
            "fault `job=429:5s`: `5s` is no number of seconds, as in 429:5"
        );
        assert_eq!(
            problem("any=duplicate"),
            "fault `any=duplicate`: only the answer to a `heartbeat` can be `duplicate`"
        );
        assert_eq!(problem("job=delay:2h"), "fault `job=delay:2h`: a delay is at most 1h");
        for range in ["0", "3-2", "x", "-2", ""] {
            let expect = format!("`@{range}` is no range; write @2, @2-4 or @2-, counting from 1");
            assert_eq!(
                problem(&format!("job@{range}=500")),
                format!("fault `job@{range}=500`: {expect}")
            );
        }
    }

    #[test]
    fn a_file_of_faults_may_have_comments_and_empty_lines() {
        let text = "# two of them\n\n  heartbeat@1=500\njob=404 # gone\n";
        assert_eq!(parse_lines(text), Ok(vec![parsed("heartbeat@1=500"), parsed("job=404")]));
        assert_eq!(parse_lines("job=404\nnonsense").unwrap_err().spec, "nonsense");
    }

    #[test]
    fn requests_are_counted_by_route_and_the_first_fault_that_fits_happens() {
        let list = ["heartbeat@2=500", "heartbeat@2-3=404", "any@5-=refuse"].map(parsed);
        let mut faults = Faults::new(list.to_vec());
        let mut next = |target| faults.next(target);
        assert_eq!(next(Target::Heartbeat), None);
        assert_eq!(next(Target::Register), None);
        assert_eq!(next(Target::Heartbeat), Some(status(500)));
        assert_eq!(next(Target::Heartbeat), Some(status(404)));
        assert_eq!(next(Target::Heartbeat), Some(What::Refuse));
        assert_eq!(next(Target::Job), Some(What::Refuse));
    }

    #[test]
    fn canned_answers_are_as_bad_as_they_promise() {
        let body = |canned: Canned| {
            String::from_utf8(canned.response(Some(Target::Heartbeat)).body).unwrap()
        };
        let huge: serde_json::Value = serde_json::from_str(&body(Canned::Huge)).unwrap();
        assert_eq!(huge["success"], true, "sound but for its size");
        assert!(body(Canned::Huge).len() > 64 * 1024 * 1024);
        assert_eq!(body(Canned::Deep).matches('[').count(), DEPTH);
        let garbage =
            serde_json::from_str::<serde_json::Value>(&body(Canned::Garbage)).unwrap_err();
        assert!(garbage.is_eof(), "{garbage}");
    }

    #[test]
    fn a_canned_status_says_when_to_come_back_and_what_was_not_found() {
        let later =
            Canned::Status { status: 503, retry_after: Some(7) }.response(Some(Target::Job));
        assert_eq!((later.status, later.headers), (503, vec![("Retry-After", "7".to_owned())]));
        let gone =
            Canned::Status { status: 404, retry_after: None }.response(Some(Target::Heartbeat));
        let body: serde_json::Value = serde_json::from_slice(&gone.body).unwrap();
        assert_eq!(body, serde_json::json!({ "success": false, "error": "Provider not found" }));
    }
}
