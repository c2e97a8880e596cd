//! The text of an offer becomes a checked job, a decline with every problem in it, or is skipped.

mod container;
mod inputs;
mod learn;
mod outputs;
mod program;
mod script;
mod source;
mod transfer;

use serde_json::Value;
use std::time::Duration;

use crate::backend::wire::{self, JOB_MAX, Listed};
use crate::text;
use crate::work::{
    Compute, Decline, DeclineCode, Job, JobId, Kernel, Key, Kind, Object, Task, digest,
};

/// Fewer and more seconds than any limit has.
const SHORT: f64 = 0.001;
const LONG: f64 = 1e9;

/// The most work one job may ask for: about two weeks of a fast machine.
const AMOUNT_MAX: f64 = 1e6;

/// What an offer is judged by.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Of the backend: another one's job of the same id is another job.
    pub(crate) origin: String,
    /// What this worker runs.
    pub(crate) kinds: Vec<Kind>,
    /// What scripts may be written for; the first where one does not say.
    pub(crate) interpreters: Vec<String>,
    /// Patterns of the images that may run.
    pub(crate) images: Vec<String>,
    /// The longest a job may run, whatever it asks for.
    pub(crate) time: Duration,
}

/// A job as it was offered, as far as it could be understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub(crate) key: Key,
    pub(crate) id: JobId,
    /// A hash of what it asks for.
    pub(crate) content: String,
    /// Our name of its kind, or the backend's where we have none.
    pub(crate) kind: String,
    /// Whom it is assigned to, if to anyone.
    pub(crate) provider_id: Option<String>,
    /// A hash of who submitted it, where the backend says.
    pub(crate) submitter: Option<String>,
    pub(crate) job: Result<Job, Decline>,
    /// As it came.
    pub(crate) text: String,
}

/// Reads one offer of a backend. One that cannot be read is declined: it would be offered for ever.
pub(crate) fn parse(listed: Listed, terms: &Terms) -> Offer {
    let Listed { id, text } = listed;
    let unreadable = |code, reason: String| Offer {
        key: Key::of(&terms.origin, &id),
        content: digest(&[&reason, text.as_deref().unwrap_or_default()]),
        kind: "unknown".into(),
        provider_id: None,
        submitter: None,
        job: Err(Decline { code, reason }),
        text: String::new(),
        id: id.clone(),
    };
    let Some(json) = &text else {
        let reason = format!("the job is larger than {} MiB", JOB_MAX >> 20);
        return unreadable(DeclineCode::TooLarge, reason);
    };
    match read(json) {
        Ok((content, wire)) => Offer {
            key: Key::of(&terms.origin, &id),
            content,
            kind: kind(&wire).map_or_else(|name| name, |kind| kind.name().to_owned()),
            provider_id: wire.provider_id.as_ref().and_then(Value::as_str).map(str::to_owned),
            submitter: submitter(&wire),
            job: job(&id, &wire, terms),
            text: text.unwrap_or_default(),
            id,
        },
        Err(error) => {
            // It may hold as much of the job as the job has.
            let error = text::one_line(&error.to_string(), 200);
            let reason = format!("the job cannot be read ({error}): {}", text::one_line(json, 80));
            unreadable(DeclineCode::BadInput, reason)
        }
    }
}

fn read(json: &str) -> Result<(String, wire::Job), serde_json::Error> {
    let fields: Object = serde_json::from_str(json)?;
    let content = content(&fields);
    Ok((content, serde_json::from_value(Value::Object(fields))?))
}

/// A hash over the fields that say what the job asks for, in one order and spelling.
fn content(fields: &Object) -> String {
    let parts = wire::CONTENT.map(|name| match fields.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    });
    digest(&parts.each_ref().map(String::as_str))
}

fn submitter(wire: &wire::Job) -> Option<String> {
    match wire.user_id.as_ref()? {
        Value::String(id) if !id.is_empty() => Some(digest(&[id])),
        Value::Number(id) => Some(digest(&[&id.to_string()])),
        _ => None,
    }
}

/// Its kind, or what it is called where that is none of ours.
fn kind(wire: &wire::Job) -> Result<Kind, String> {
    let mut named = wire.names();
    // `jobType` counts only if we know it; the other is what the job is called then.
    let known = named.clone().find_map(Kind::by_name);
    let known = known.or_else(|| container::has_image(wire).then_some(Kind::Container));
    known.ok_or_else(|| text::one_line(named.next_back().unwrap_or("nothing"), 60))
}

/// The kind, if this worker runs it.
fn kind_run(wire: &wire::Job, terms: &Terms) -> Result<Kind, Decline> {
    let runs = || terms.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match kind(wire) {
        Ok(kind) if terms.kinds.contains(&kind) => Ok(kind),
        Ok(kind) => Err(Decline {
            code: DeclineCode::NotAllowed,
            reason: format!("this worker takes no {} jobs; it runs {}", kind.name(), runs()),
        }),
        Err(name) => Err(Decline {
            code: DeclineCode::UnknownKind,
            reason: format!("this worker has no job kind '{name}'; it runs {}", runs()),
        }),
    }
}

fn job(id: &JobId, wire: &wire::Job, terms: &Terms) -> Result<Job, Decline> {
    let kind = kind_run(wire, terms)?;
    let mut problems = Problems::default();
    let empty = Object::new();
    let input = problems.object("inputData", wire.input_data.as_ref()).unwrap_or(&empty);
    let advanced =
        problems.object("advancedConfig", wire.advanced_config.as_ref()).unwrap_or(&empty);
    let amount = problems.amount(wire.compute_needed.as_ref());
    let time_limit =
        problems.time_limit(terms.time, wire.timeout_seconds.as_ref(), advanced.get("maxDuration"));
    let asked = Asked { wire, input, advanced };
    let task = match kind {
        Kind::Training => problems.training(input, wire, amount).map(Task::Training),
        Kind::FineTuning => problems.fine_tuning(input, wire, amount).map(Task::FineTuning),
        Kind::Inference => problems.inference(input).map(Task::Inference),
        Kind::Compute => Some(Task::Compute(problems.compute(input, amount))),
        Kind::Script => problems.script(&asked, &terms.interpreters).map(Task::Script),
        Kind::Container => problems.container(&asked, &terms.images).map(Task::Container),
    };
    let transfer = match kind {
        Kind::Script | Kind::Container => {
            let fetches_code = task.as_ref().and_then(Task::code_url).is_some();
            Some(problems.transfer(input, time_limit, fetches_code))
        }
        Kind::Training | Kind::FineTuning | Kind::Inference | Kind::Compute => None,
    };
    problems.verdict(task.map(|task| Job { id: id.clone(), task, time_limit, transfer }))
}

/// A job's fields, as somebody else's program is described by them.
struct Asked<'a> {
    wire: &'a wire::Job,
    input: &'a Object,
    advanced: &'a Object,
}

/// What is wrong with a job, all of it.
#[derive(Default)]
struct Problems {
    bad: Vec<String>,
    too_large: Vec<String>,
}

impl Problems {
    /// Without a job there is a problem, which says what is missing.
    fn verdict(self, job: Option<Job>) -> Result<Job, Decline> {
        let code = match (job, self.bad.is_empty(), self.too_large.is_empty()) {
            (Some(job), true, true) => return Ok(job),
            (_, true, false) => DeclineCode::TooLarge,
            (_, _, _) => DeclineCode::BadInput,
        };
        let reason = [self.bad, self.too_large].concat().join("; ");
        Err(Decline { code, reason: text::one_line(&reason, 1000) })
    }

    fn bad(&mut self, name: &str, value: &Value, wanted: &str) {
        let shown = text::one_line(&value.to_string(), 60);
        self.bad.push(format!("{name} is {shown}, but must be {wanted}"));
    }

    fn object<'a>(&mut self, name: &str, value: Option<&'a Value>) -> Option<&'a Object> {
        let value = value?;
        if value.as_object().is_none() {
            self.bad(name, value, "an object");
        }
        value.as_object()
    }

    fn amount(&mut self, value: Option<&Value>) -> f64 {
        match value {
            None => 1.0,
            Some(value) => match value.as_f64() {
                Some(amount) if amount > AMOUNT_MAX => {
                    self.too_large
                        .push(format!("computeNeeded is {value}, the most is {AMOUNT_MAX}"));
                    1.0
                }
                Some(amount) if amount > 0.0 => amount,
                _ => {
                    self.bad("computeNeeded", value, "a number above 0");
                    1.0
                }
            },
        }
    }

    /// The lowest of what the job and the provider allow.
    fn time_limit(
        &mut self,
        most: Duration,
        seconds: Option<&Value>,
        hours: Option<&Value>,
    ) -> Duration {
        let limits = [("timeoutSeconds", seconds, 1.0), ("maxDuration", hours, 3600.0)];
        let mut limit = most;
        for (name, value, unit) in limits {
            let Some(value) = value.filter(|value| !value.is_null()) else { continue };
            match value.as_f64() {
                Some(number) if number > 0.0 => {
                    limit = limit.min(transfer::time(number * unit));
                }
                _ => self.bad(name, value, "a number above 0"),
            }
        }
        limit
    }

    fn compute(&mut self, input: &Object, amount: f64) -> Compute {
        let kernel = match given(input, "kernel") {
            None => Kernel::Matmul,
            Some(value) => match value.as_str().and_then(Kernel::by_name) {
                Some(kernel) => kernel,
                None => {
                    let known = Kernel::ALL.map(Kernel::name).join(", ");
                    self.bad("kernel", value, &format!("one of {known}"));
                    Kernel::Matmul
                }
            },
        };
        Compute { kernel, seed: self.seed(input), amount }
    }

    fn seed(&mut self, input: &Object) -> u64 {
        given(input, "seed").map_or(0, |value| {
            value.as_u64().unwrap_or_else(|| {
                self.bad("seed", value, "a whole number from 0 on");
                0
            })
        })
    }
}

/// A field's value, if it has one.
fn given<'a>(input: &'a Object, name: &str) -> Option<&'a Value> {
    input.get(name).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn terms() -> Terms {
        Terms {
            origin: "http://a:80".into(),
            kinds: Kind::ENGINE.to_vec(),
            interpreters: ["python3", "bash"].map(str::to_owned).to_vec(),
            images: vec!["*".into()],
            time: Duration::from_secs(24 * 3600),
        }
    }

    pub(super) fn listed(json: &str) -> Listed {
        Listed { id: JobId::parse("a").unwrap(), text: Some(json.to_owned()) }
    }

    fn offer(json: &str) -> Offer {
        parse(listed(json), &terms())
    }

    fn decline(json: &str) -> (&'static str, String) {
        let decline = offer(json).job.unwrap_err();
        (decline.code.name(), decline.reason)
    }

    #[test]
    fn the_documented_job_is_understood() {
        let offer = offer(
            r#"{"id":"a","modelType":"compute","computeNeeded":2.0,"timeoutSeconds":90,
                "inputData":{"kernel":"primes","seed":7}}"#,
        );
        assert_eq!(
            offer.job,
            Ok(Job {
                id: JobId::parse("a").unwrap(),
                task: Task::Compute(Compute { kernel: Kernel::Primes, seed: 7, amount: 2.0 }),
                time_limit: Duration::from_secs(90),
                transfer: None,
            })
        );
    }

    #[test]
    fn job_type_wins_if_it_is_known_and_model_type_counts_if_not() {
        for json in [
            r#"{"id":"a","jobType":"Generic_Compute","modelType":"gpt2"}"#,
            r#"{"id":"a","jobType":"whatever","modelType":"benchmark"}"#,
        ] {
            assert!(matches!(offer(json).job, Ok(Job { task: Task::Compute(_), .. })), "{json}");
        }
    }

    #[test]
    fn an_unknown_kind_is_declined_with_what_there_is() {
        assert_eq!(
            decline(r#"{"id":"a","modelType":"gpt2"}"#),
            ("unknown_kind", "this worker has no job kind 'gpt2'; it runs training, inference, fine-tuning, compute"
                    .into())
        );
    }

    #[test]
    fn every_problem_of_a_job_is_named_at_once() {
        assert_eq!(
            decline(
                r#"{"id":"a","modelType":"compute","computeNeeded":"two","timeoutSeconds":-1,
                    "inputData":{"kernel":"fft","seed":1.5}}"#
            ),
            (
                "bad_input",
                "computeNeeded is \"two\", but must be a number above 0; timeoutSeconds is -1, but \
                 must be a number above 0; kernel is \"fft\", but must be one of matmul, sha256, \
                 primes; seed is 1.5, but must be a whole number from 0 on"
                    .into()
            )
        );
        assert_eq!(
            decline(r#"{"id":"a","modelType":"compute","computeNeeded":-1}"#).0,
            "bad_input"
        );
        assert_eq!(
            decline(r#"{"id":"a","modelType":"compute","computeNeeded":1e308}"#).0,
            "too_large"
        );
        assert_eq!(decline(r#"{"id":"a","modelType":"compute","inputData":[]}"#).0, "bad_input");
    }

    #[test]
    fn a_job_that_cannot_be_read_is_declined_with_the_reason() {
        let deep = format!(r#"{{"inputData":{}1{}}}"#, "[".repeat(130), "]".repeat(130));
        for (json, reason) in [
            (r#"{"computeNeeded":1e999}"#, "the job cannot be read (number out of range"),
            (
                r#"{"inputData":{"script":"\ud800"}}"#,
                "the job cannot be read (unexpected end of hex",
            ),
            (r#"{"inputData":{"script":}}"#, "the job cannot be read (expected value"),
            (&deep, "the job cannot be read (recursion limit exceeded"),
        ] {
            let (code, said) = decline(json);
            assert_eq!(code, "bad_input", "{said}");
            assert!(said.starts_with(reason) && said.len() < 200, "{said}");
        }
        let id = JobId::parse("a").unwrap();
        let decline = parse(Listed { id, text: None }, &terms()).job.unwrap_err();
        assert_eq!(decline.error(), "declined: the job is larger than 8 MiB");
        assert_eq!(decline.code, DeclineCode::TooLarge);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_counts() {
        let twice = offer(r#"{"modelType":"gpt2","modelType":"compute"}"#);
        assert_eq!(twice.kind, "compute");
    }

    #[test]
    fn what_a_job_asks_for_makes_it_the_same_job_and_where_it_stands_does_not() {
        let content = |json| offer(json).content;
        let first =
            content(r#"{"id":"a","modelType":"compute","inputData":{"seed":1,"kernel":"primes"}}"#);
        let later = r#"{"inputData":{"kernel":"primes","seed":1},"id":"a","modelType":"compute","status":"ASSIGNED","progress":3}"#;
        assert_eq!(first, content(later));
        assert_ne!(first, content(&later.replace("\"seed\":1", "\"seed\":2")));
    }

    #[test]
    fn fuzz_job() {
        const WORDS: [&str; 24] = [
            "{",
            "}",
            "[",
            "]",
            "\"",
            ",",
            ":",
            "null",
            "true",
            "-1",
            "1e308",
            "1e999",
            "0.5",
            "\\u0000",
            "\\ud800",
            "../",
            "\"inputData\":{",
            "\"advancedConfig\":{",
            "\"inputs\":[",
            "\"outputs\":[",
            "\"url\":",
            "https://a/b?c",
            "\"path\":",
            "$(x)",
        ];
        let terms = Terms { kinds: Kind::ALL.to_vec(), ..terms() };
        crate::fuzz::run("job", &WORDS, |bytes| {
            let offer = parse(listed(&String::from_utf8_lossy(bytes)), &terms);
            // As it is read again from a record, unless it could not be read.
            assert!(offer.text.is_empty() || parse(listed(&offer.text), &terms) == offer);
            match offer.job {
                Ok(job) => {
                    assert!(job.time_limit <= terms.time && !job.time_limit.is_zero());
                    format!("{} {}", offer.kind, job.transfer.is_some())
                }
                Err(Decline { code, reason }) => {
                    assert!(reason.len() <= 1000 && !reason.contains(char::is_control), "{reason}");
                    format!("{} {reason}", code.name())
                }
            }
        });
    }
}
