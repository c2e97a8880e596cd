//! An answer of the backend, and what of it is kept: the few fields that matter, and of a list of jobs as
//! many as one heartbeat looks at. However large it is, reading it takes little memory.

use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::error::Error;
use super::json::{Fault, Json, Kept};
use super::wire::{self, Fields, JOB_MAX, Listed};
use crate::text;
use crate::work::JobId;

/// The most of a reply that is read.
pub(super) const REPLY_MAX: u64 = 64 << 20;

/// The most that a field of a reply may take.
const FIELD_MAX: u64 = 256 << 10;

/// So many jobs of a list are looked at with one heartbeat; the others' turn comes with the next ones.
const JOBS_MAX: usize = 64;

/// The longest text that might hold a job's id.
const ID_MAX: u64 = 1 << 10;

/// So much of a reply that is no JSON is looked at: more than is shown, since half a secret in it would
/// not be known as one.
const START: u64 = 64 << 10;

/// The fields that are read of any reply.
const READ: [&str; 10] = [
    "cancelJobs",
    "error",
    "heartbeatIntervalMs",
    "message",
    "pendingJobs",
    "provider",
    "providerId",
    "redirect",
    "status",
    "success",
];

/// What is looked at of a list of jobs. The list may be longer than one heartbeat has time for, and what
/// stands at its head may be there for ever.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) jobs: Vec<Listed>,
    /// What cannot be answered for want of an id, a line each.
    pub(super) odd: Vec<String>,
    /// Whether there was a list.
    pub(super) found: bool,
    /// Where to begin.
    from: usize,
    /// Where the next look begins, when this one ended before the list did.
    next: Option<usize>,
    place: usize,
    cost: u64,
}

impl Look {
    pub(super) fn from(from: usize) -> Self {
        Self { from, ..Self::default() }
    }

    /// Where the next look begins: at the head again when this one came to the end.
    pub(super) fn next(&self) -> usize {
        self.next.unwrap_or(0)
    }

    /// Whether there are jobs in the list that were not looked at.
    pub(super) fn is_partial(&self) -> bool {
        self.from > 0 || self.next.is_some()
    }

    fn list(&mut self, json: &mut Json<impl BufRead>) -> Result<(), Fault> {
        self.found = true;
        json.array(|json| self.element(json))
    }

    fn element(&mut self, json: &mut Json<impl BufRead>) -> Result<(), Fault> {
        let place = self.place;
        self.place += 1;
        if place < self.from || self.next.is_some() {
            return json.skip();
        }
        if self.jobs.len() == JOBS_MAX {
            self.next = Some(place);
            return json.skip();
        }
        let (id, text) = job(json, JOB_MAX - self.cost)?;
        match id {
            Err(why) if self.odd.len() < JOBS_MAX => {
                self.odd.push(format!("job skipped: it {why}"));
            }
            Err(_) => {}
            Ok(id) if text.cost() > JOB_MAX => self.jobs.push(Listed { id, text: None }),
            // Alone it fits, with the next heartbeat.
            Ok(_) if self.cost + text.cost() > JOB_MAX => self.next = Some(place),
            Ok(id) => {
                self.cost += text.cost();
                self.jobs.push(Listed { id, text: text.text() });
            }
        }
        Ok(())
    }
}

/// Reads one job: its id, or why it has none, and its other fields.
fn job(json: &mut Json<impl BufRead>, most: u64) -> Result<(Result<JobId, String>, Kept), Fault> {
    let (mut id, mut text) = (Kept::new(ID_MAX), Kept::new(most));
    if json.peek()? != Some(b'{') {
        json.value(&mut text)?;
        return Ok((Err(format!("has no id: {}", text::one_line(&text.start(), 80))), text));
    }
    text.push(b"{");
    let mut between = "";
    json.object(|json, name| match name {
        "id" => json.value(&mut id),
        // No field of a job has such a name.
        "" => json.skip(),
        name => {
            text.push(format!("{}\"{name}\":", mem::replace(&mut between, ",")).as_bytes());
            json.value(&mut text)
        }
    })?;
    text.push(b"}");
    Ok((read_id(id, &text), text))
}

fn read_id(id: Kept, text: &Kept) -> Result<JobId, String> {
    let start = id.start();
    if start.is_empty() {
        return Err(format!("has no id: {}", text::one_line(&text.start(), 80)));
    }
    let id = id.text().and_then(|id| serde_json::from_str::<String>(&id).ok());
    let shown = || text::one_line(id.as_deref().unwrap_or(&start), 40);
    id.as_deref().and_then(JobId::parse).ok_or_else(|| format!("has an invalid id: {}", shown()))
}

/// An answer.
pub(super) struct Reply {
    pub(super) call: String,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
    /// Its clock.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Body,
}

/// What is kept of an answer's body.
pub(super) struct Body {
    /// The fields that matter if it is a JSON object, else why it is none.
    pub(super) fields: Result<Fields, String>,
    /// Those of its `job`, into which some backends wrap the one that they were asked about.
    pub(super) job: Option<Fields>,
    /// The jobs that it lists.
    pub(super) look: Look,
    /// Whether it is nothing but a list.
    pub(super) is_list: bool,
    start: Vec<u8>,
}

impl Body {
    pub(super) fn read(mut from: impl Read, mut look: Look) -> io::Result<Self> {
        let mut start = vec![];
        from.by_ref().take(START).read_to_end(&mut start)?;
        let mut json = Json::new(BufReader::new(start.as_slice().chain(from)));
        let (mut fields, mut job) = (Fields::new(), None);
        let is_list = matches!(json.peek(), Ok(Some(b'[')));
        let read = if is_list {
            look.list(&mut json)
        } else {
            json.object(|json, name| match (name, json.peek()?) {
                ("pendingJobs", Some(b'[')) => look.list(json),
                ("job", Some(b'{')) => {
                    let fields = job.insert(Fields::new());
                    json.object(|json, name| read_field(json, fields, name))
                }
                _ => read_field(json, &mut fields, name),
            })
        };
        let fields = match read.and_then(|()| json.end()) {
            Ok(()) if is_list => Err(not_json(&start, "it is a list")),
            Ok(()) => Ok(fields),
            Err(Fault::Syntax(why)) => Err(not_json(&start, why)),
            Err(Fault::Io(error)) => return Err(error),
        };
        Ok(Self { fields, job, look, is_list, start })
    }
}

fn read_field(json: &mut Json<impl BufRead>, fields: &mut Fields, name: &str) -> Result<(), Fault> {
    if !READ.contains(&name) {
        return json.skip();
    }
    let mut value = Kept::new(FIELD_MAX);
    json.value(&mut value)?;
    fields.insert(name.to_owned(), value.text());
    Ok(())
}

impl Reply {
    /// The fields of an answer that says yes.
    pub(super) fn good(self) -> Result<Fields, Error> {
        if !(200..300).contains(&self.status) {
            return Err(self.no());
        }
        let undecodable = |cause| Error::Undecodable { call: self.call.clone(), cause };
        let fields = self.body.fields.as_ref().map_err(|why| undecodable(why.clone()))?;
        match wire::field(fields, "success").map_err(undecodable)? {
            Some(Value::Bool(false)) => {
                Err(undecodable(format!("{} says success: false: {}", self.status, self.message())))
            }
            _ => self.body.fields.map_err(|cause| Error::Undecodable { call: self.call, cause }),
        }
    }

    /// Whether it is the backend that says where workers are registered instead.
    pub(super) fn points_to_quick_register(&self) -> bool {
        let Ok(fields) = &self.body.fields else { return false };
        let redirect: Option<String> = wire::field(fields, "redirect").unwrap_or_default();
        redirect.is_some_and(|path| path.ends_with("/quick-register"))
    }

    /// The error that an answer which says no is.
    pub(super) fn no(&self) -> Error {
        let message = match &self.location {
            Some(location) => format!("it moved to {location}: give that as --backend"),
            None => self.message(),
        };
        Error::Status {
            call: self.call.clone(),
            status: self.status,
            json: self.body.fields.is_ok(),
            message,
            retry_after: self.retry_after,
        }
    }

    pub(super) fn message(&self) -> String {
        let Ok(fields) = &self.body.fields else {
            return text::one_line(&String::from_utf8_lossy(&self.body.start), 120);
        };
        let text = |name| wire::field::<String>(fields, name).ok().flatten();
        let said = text("error").or_else(|| text("message"));
        text::one_line(&said.unwrap_or_default(), 512)
    }
}

fn not_json(start: &[u8], why: &str) -> String {
    let start = text::one_line(&String::from_utf8_lossy(start), 60);
    if start.starts_with('<') {
        return format!("an HTML page instead of JSON (a captive portal or a proxy?): {start}");
    }
    format!("no JSON object ({why}): {start}")
}

#[cfg(test)]
mod tests;
