//! From a request to a transition of the books and back: paths, JSON bodies, status codes.

use serde_json::{Value, json};

use super::{
    Now,
    books::{Books, Refusal},
    faults::Target,
};
use crate::serve::{Request, Response};

#[derive(Debug, PartialEq)]
pub(super) enum Route {
    Register,
    Heartbeat(String),
    Pending(String),
    Progress(String),
    Complete(String),
    Job(String),
    Submit,
    Cancel(String),
    Jobs,
    Providers,
    Health,
    Unknown,
}

impl Route {
    pub(super) fn of(method: &str, path: &str) -> Self {
        let segments: Vec<_> = path.split('/').skip(1).map(percent_decoded).collect();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            ("POST", ["api", "providers", "register"]) => Self::Register,
            ("POST", ["api", "providers", worker, "heartbeat"]) => {
                Self::Heartbeat((*worker).to_owned())
            }
            ("GET", ["api", "providers"]) => Self::Providers,
            ("GET", ["api", "jobs"]) => Self::Jobs,
            ("POST", ["api", "jobs", "submit"]) => Self::Submit,
            ("GET", ["api", "jobs", "pending", worker]) => Self::Pending((*worker).to_owned()),
            ("POST", ["api", "jobs", job, "progress"]) => Self::Progress((*job).to_owned()),
            ("POST", ["api", "jobs", job, "complete"]) => Self::Complete((*job).to_owned()),
            ("POST", ["api", "jobs", job, "cancel"]) => Self::Cancel((*job).to_owned()),
            ("GET", ["api", "jobs", job]) => Self::Job((*job).to_owned()),
            ("GET", ["health"]) => Self::Health,
            _ => Self::Unknown,
        }
    }

    /// Returns what faults call this route; the ones that only people and tests use have no name and no faults.
    pub(super) fn target(&self) -> Option<Target> {
        match self {
            Self::Register => Some(Target::Register),
            Self::Heartbeat(_) => Some(Target::Heartbeat),
            Self::Pending(_) => Some(Target::Pending),
            Self::Progress(_) => Some(Target::Progress),
            Self::Complete(_) => Some(Target::Complete),
            Self::Job(_) => Some(Target::Job),
            Self::Submit
            | Self::Cancel(_)
            | Self::Jobs
            | Self::Providers
            | Self::Health
            | Self::Unknown => None,
        }
    }
}

/// A bad escape stands for itself: it then names nothing that is known.
fn percent_decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape =
            tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the status and the body of the answer.
pub(super) fn perform(
    books: &mut Books,
    route: &Route,
    request: &Request,
    now: Now,
) -> (u16, Value) {
    let done = match route {
        Route::Register => body(request).and_then(|facts| books.register(facts, now)),
        Route::Heartbeat(worker) => {
            body(request).and_then(|beat| books.heartbeat(worker, beat, now))
        }
        Route::Pending(worker) => Ok(books.pending(worker, now)),
        Route::Progress(job) => body(request).and_then(|report| books.progress(job, &report, now)),
        Route::Complete(job) => {
            let key = request.header("idempotency-key");
            body(request).and_then(|report| books.complete(job, &report, key, now))
        }
        Route::Submit => return submit(books, request, now),
        Route::Cancel(job) => books.cancel(job, now),
        Route::Job(job) => books.job(job, now),
        Route::Jobs => Ok(books.jobs(now)),
        Route::Providers => Ok(books.providers(now)),
        Route::Health => Ok(json!({ "status": "ok" })),
        Route::Unknown => {
            Err(Refusal::new(404, format!("no route {} {}", request.method, request.path)))
        }
    };
    match done {
        Ok(body) => (200, body),
        Err(refusal) => refused(&refusal),
    }
}

fn submit(books: &mut Books, request: &Request, now: Now) -> (u16, Value) {
    let id = body(request).and_then(|job| books.submit(job, now));
    match id.and_then(|id| books.job(&id, now)) {
        Ok(job) => (201, json!({ "success": true, "job": job })),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> (u16, Value) {
    (refusal.status, json!({ "success": false, "error": refusal.error }))
}

fn body(request: &Request) -> Result<Value, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::new(400, format!("body is not JSON: {error}")))
}

pub(super) fn is_allowed(request: &Request, token: &str) -> bool {
    let sent = request.header("authorization").and_then(|value| value.split_once(' '));
    sent.is_some_and(|(scheme, sent)| scheme.eq_ignore_ascii_case("bearer") && sent.trim() == token)
}

pub(super) fn json_response(status: u16, body: &Value) -> Response {
    Response {
        status,
        content_type: "application/json",
        headers: vec![],
        body: body.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_method_make_a_route() {
        let named = str::to_owned;
        for (method, path, route) in [
            ("POST", "/api/providers/register", Route::Register),
            ("POST", "/api/providers/w%201/heartbeat", Route::Heartbeat(named("w 1"))),
            ("GET", "/api/jobs/pending/w", Route::Pending(named("w"))),
            ("POST", "/api/jobs/a%2Fb/progress", Route::Progress(named("a/b"))),
            ("POST", "/api/jobs/%zz%4/complete", Route::Complete(named("%zz%4"))),
            ("POST", "/api/jobs/submit", Route::Submit),
            ("POST", "/api/jobs/j/cancel", Route::Cancel(named("j"))),
            ("GET", "/api/jobs/j", Route::Job(named("j"))),
            ("GET", "/api/jobs", Route::Jobs),
            ("GET", "/api/providers", Route::Providers),
            ("GET", "/health", Route::Health),
            ("GET", "/api/providers/register", Route::Unknown),
            ("GET", "/", Route::Unknown),
            ("GET", "health", Route::Unknown),
        ] {
            assert_eq!(Route::of(method, path), route, "{method} {path}");
        }
    }
}
