//! The marketplace: one method an endpoint, each with an absolute deadline.
//!
//! Which dialect the backend speaks (`register` or `quick-register`, jobs in the heartbeat or by
//! polling) is learnt anew at every start, and kept here.

mod error;
mod json;
mod probe;
mod reply;
pub(crate) mod wire;

use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Response, header};

pub(crate) use error::{Advice, Error};
pub(crate) use probe::Probe;

use crate::config::{Connection, Problems, read_token};
use crate::reading::{Reading, Specs, Vitals};
use crate::retry;
use crate::secret::Secret;
use crate::text;
use crate::tls;
use crate::work::{Attempt, JobId, Object, Outcome, Report};
use reply::{Body, Look, REPLY_MAX, Reply};

/// The real backend closes idle connections after 5 s; one older than this may be gone already.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// What is registered.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) worker_id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) location: String,
    pub(crate) price: f64,
    pub(crate) slots: usize,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) specs: Specs,
    /// Of all its cores, in f32, as measured.
    pub(crate) gflops: Option<f64>,
}

/// What a heartbeat says.
#[derive(Debug, Clone)]
pub(crate) struct Beat {
    pub(crate) status: Status,
    /// Taken and not yet acknowledged, oldest first.
    pub(crate) jobs: Vec<JobId>,
    pub(crate) paused: Option<String>,
    pub(crate) reading: Reading,
    /// Why a GPU that should be there is not told of.
    pub(crate) gpu_absence: Option<String>,
    pub(crate) vitals: Vitals,
    pub(crate) at: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Online,
    Busy,
    Offline,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Busy => "busy",
            Self::Offline => "offline",
        }
    }
}

/// What a heartbeat brought back.
#[derive(Debug, Default)]
pub(crate) struct BeatReply {
    pub(crate) jobs: Vec<wire::Listed>,
    /// Whether there are more jobs than these.
    pub(crate) partial: bool,
    /// Whether the jobs were polled for: then they may be nobody's yet.
    pub(crate) polled: bool,
    pub(crate) cancel: Vec<String>,
    pub(crate) interval: Option<Duration>,
    /// What could not be read, a line each.
    pub(crate) oddities: Vec<String>,
}

/// What became of a completion that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Receipt {
    Acknowledged,
    Rejected(String),
}

/// What the backend says of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    /// It does not say: no such route, no such job, or not for us to ask.
    Unknown,
    /// Given to somebody else.
    Elsewhere,
    /// Waits to be started.
    Waiting,
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// Speaks to one backend as one worker.
#[derive(Debug)]
pub(crate) struct Backend {
    agent: Agent,
    connection: Connection,
    worker_id: String,
    token: RwLock<Token>,
    provider_id: RwLock<Option<String>>,
    /// Whether the last heartbeat came back without `pendingJobs`; unknown before the first.
    legacy: RwLock<Option<bool>>,
    said_quick: Once,
    /// Where in a list of jobs that is too long for one heartbeat the next look begins.
    look_from: AtomicUsize,
}

/// The bearer token, and where it is read from.
#[derive(Debug)]
struct Token {
    file: Option<PathBuf>,
    secret: Option<Secret>,
}

impl Backend {
    pub(crate) fn new(connection: &Connection, worker_id: String) -> Result<Self, Problems> {
        let secret = connection.token_file.as_deref().map(read_token).transpose()?;
        let token = Token { file: connection.token_file.clone(), secret };
        let builder = Agent::config_builder();
        let builder = if connection.backend.is_loopback { builder.proxy(None) } else { builder };
        let agent = builder
            .timeout_global(Some(connection.request_timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_age(IDLE_MAX)
            .max_idle_connections(2)
            // Bodies are small; the default buffers of 128 KiB each are most of an idle agent's memory.
            .input_buffer_size(16 << 10)
            .output_buffer_size(16 << 10)
            .user_agent(concat!("qubix-worker/", env!("CARGO_PKG_VERSION")))
            .middleware(tls::after_1970)
            .tls_config(tls::trusting(connection.ca_cert.as_deref()).map_err(Problems::of_one)?)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            connection: connection.clone(),
            worker_id,
            token: RwLock::new(token),
            provider_id: RwLock::new(None),
            legacy: RwLock::new(None),
            said_quick: Once::new(),
            look_from: AtomicUsize::new(0),
        })
    }

    /// `POST /api/providers/register`, and `quick-register` where that is what the backend wants.
    pub(crate) fn register(&self, facts: &Facts) -> Result<(), RegisterError> {
        let reply = self.post("/api/providers/register", &wire::Register::new(facts), None)?;
        let elsewhere = matches!(reply.status, 301 | 308 | 404 | 405 | 410);
        let reply = if elsewhere && reply.points_to_quick_register() {
            if !is_qubic_address(&facts.address) {
                return Err(RegisterError::NeedsAddress(reply.no().to_string()));
            }
            self.post("/api/providers/quick-register", &wire::quick_register(facts), None)?
        } else {
            reply
        };
        let quick = reply.call.ends_with("quick-register");
        let fields = reply.good()?;
        let provider: Option<Object> = wire::field(&fields, "provider").unwrap_or_default();
        let id = provider.as_ref().and_then(|provider| provider.get("id")).and_then(Value::as_str);
        *self.provider_id.write().unwrap_or_else(PoisonError::into_inner) = id.map(str::to_owned);
        if quick {
            self.said_quick.call_once(|| log::info!("this backend registers by quick-register"));
        }
        Ok(())
    }

    /// `POST /api/providers/:workerId/heartbeat`, followed by a poll for jobs where they don't come
    /// with its reply.
    pub(crate) fn heartbeat(&self, beat: &Beat) -> Result<BeatReply, Error> {
        let body = wire::heartbeat(&self.worker_id, beat, self.is_legacy());
        let path = format!("/api/providers/{}/heartbeat", self.worker_id);
        let mut answer = self.post(&path, &body, None)?;
        let mut look = mem::take(&mut answer.body.look);
        let fields = answer.good()?;
        let mut reply = BeatReply::default();
        let mut odd = |oddity| reply.oddities.push(format!("heartbeat reply: {oddity}"));
        let interval: Option<f64> =
            wire::field(&fields, "heartbeatIntervalMs").map_err(&mut odd).unwrap_or_default();
        match interval {
            Some(ms) if (5_000.0..=600_000.0).contains(&ms) => {
                reply.interval = Some(Duration::from_secs_f64(ms / 1000.0));
            }
            Some(ms) => odd(format!("its heartbeatIntervalMs {ms} is not between 5000 and 600000")),
            None => {}
        }
        let cancel: Option<Vec<Value>> =
            wire::field(&fields, "cancelJobs").map_err(&mut odd).unwrap_or_default();
        // Among the fields it is only where it is no list.
        wire::field::<Vec<Value>>(&fields, "pendingJobs").map_err(&mut odd).unwrap_or_default();
        reply.cancel = cancel
            .unwrap_or_default()
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect();
        let lists = look.found || fields.contains_key("pendingJobs");
        if !lists && wire::field(&fields, "success") != Ok(Some(true)) {
            let cause = "neither success: true nor pendingJobs: is this the backend?".into();
            return Err(Error::Undecodable { call: format!("POST {path}"), cause });
        }
        self.learn_dialect(!lists);
        if self.is_legacy() && beat.status == Status::Online {
            reply.polled = true;
            match self.pending() {
                Ok(pending) => look = pending,
                // The heartbeat itself was good; the next one asks again.
                Err(error) => reply.oddities.push(error.to_string()),
            }
        }
        self.look_from.store(look.next(), Ordering::Relaxed);
        reply.partial = look.is_partial();
        reply.oddities.append(&mut look.odd);
        reply.jobs = look.jobs;
        Ok(reply)
    }

    /// `GET /api/jobs/pending/:workerId`, of a backend that does not list jobs in its heartbeat.
    fn pending(&self) -> Result<Look, Error> {
        let reply = self.get(&format!("/api/jobs/pending/{}", self.worker_id))?;
        match &reply.body.fields {
            _ if reply.status != 200 => Err(reply.no()),
            Err(_) if reply.body.is_list => Ok(reply.body.look),
            Err(cause) => Err(Error::Undecodable { call: reply.call, cause: cause.clone() }),
            Ok(_) => {
                Err(Error::Undecodable { call: reply.call, cause: "it is no list of jobs".into() })
            }
        }
    }

    /// `POST /api/jobs/:jobId/progress`.
    pub(crate) fn progress(&self, id: &JobId, report: &Report) -> Result<(), Error> {
        let body = wire::progress(&self.worker_id, report, self.is_legacy());
        self.post(&format!("/api/jobs/{id}/progress"), &body, None)?.good().map(|_| ())
    }

    /// `POST /api/jobs/:jobId/complete`.
    pub(crate) fn complete(
        &self,
        worker_id: &str,
        attempt: &Attempt,
        kind: &str,
        outcome: &Outcome,
    ) -> Result<Receipt, Error> {
        let body = wire::complete(worker_id, kind, outcome);
        let key = wire::idempotency_key(worker_id, attempt);
        let reply = self.post(&format!("/api/jobs/{}/complete", attempt.id), &body, Some(&key))?;
        match (reply.status, &reply.body.fields) {
            (403 | 404 | 409, Ok(_)) => Ok(Receipt::Rejected(reply.no().to_string())),
            _ => reply.good().map(|_| Receipt::Acknowledged),
        }
    }

    /// `GET /api/jobs/:jobId`, for the worker of this id. An error means: ask again later.
    pub(crate) fn job(&self, id: &JobId, worker_id: &str) -> Result<JobState, Error> {
        let reply = self.get(&format!("/api/jobs/{id}"))?;
        if matches!(reply.status, 408 | 429 | 500..) {
            return Err(reply.no());
        }
        if reply.status != 200 {
            return Ok(JobState::Unknown);
        }
        let Body { fields, job, .. } = reply.body;
        let fields = fields.map_err(|cause| Error::Undecodable { call: reply.call, cause })?;
        Ok(self.state(&wire::JobView::read(&job.unwrap_or(fields)), worker_id))
    }

    fn state(&self, view: &wire::JobView, worker_id: &str) -> JobState {
        let other_worker = view.provider_worker_id.as_ref().is_some_and(|id| *id != worker_id);
        // What provider another worker of ours was is not known.
        let other_provider = worker_id == self.worker_id
            && view.provider_id.as_ref().is_some_and(|id| !self.may_be_our_provider(id));
        // Of the two names the worker's is the surer one: a provider's id is only as good as the
        // registration's reply.
        let elsewhere = match view.provider_worker_id {
            Some(_) => other_worker,
            None => other_provider,
        };
        match view.status.as_deref().map(str::to_uppercase).as_deref() {
            Some("CANCELLED" | "CANCELED") => JobState::Cancelled,
            _ if elsewhere => JobState::Elsewhere,
            Some("COMPLETED") => JobState::Completed,
            Some("FAILED") => JobState::Failed,
            Some("PENDING" | "ASSIGNED") => JobState::Waiting,
            Some("RUNNING") => JobState::Running,
            _ => JobState::Unknown,
        }
    }

    /// Whether a job given to this provider id is known to be ours.
    pub(crate) fn is_surely_our_provider(&self, id: &str) -> bool {
        let ours = self.provider_id.read().unwrap_or_else(PoisonError::into_inner);
        ours.as_deref() == Some(id) || id == self.worker_id
    }

    /// Whether it may be: not every backend tells us our id.
    fn may_be_our_provider(&self, id: &str) -> bool {
        let known = self.provider_id.read().unwrap_or_else(PoisonError::into_inner).is_some();
        !known || self.is_surely_our_provider(id)
    }

    fn is_legacy(&self) -> bool {
        self.legacy.read().unwrap_or_else(PoisonError::into_inner).unwrap_or(false)
    }

    fn learn_dialect(&self, legacy: bool) {
        let mut known = self.legacy.write().unwrap_or_else(PoisonError::into_inner);
        if known.replace(legacy) != Some(legacy) {
            let how =
                if legacy { "by polling, and reads snake_case" } else { "with its heartbeat" };
            log::info!("this backend gives jobs {how}");
        }
    }

    fn post(&self, path: &str, body: &impl Serialize, key: Option<&str>) -> Result<Reply, Error> {
        let url = format!("{}{path}", self.connection.backend.base);
        let call = format!("POST {url}");
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::Undecodable { call: call.clone(), cause: error.to_string() })?;
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(token) = self.authorization() {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.answer(call, request.send(&body))
    }

    fn get(&self, path: &str) -> Result<Reply, Error> {
        let url = format!("{}{path}", self.connection.backend.base);
        let call = format!("GET {url}");
        let mut request = self.agent.get(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = self.authorization() {
            request = request.header(header::AUTHORIZATION, token);
        }
        self.answer(call, request.call())
    }

    fn authorization(&self) -> Option<String> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.secret.as_ref().map(|secret| format!("Bearer {}", secret.expose()))
    }

    fn answer(
        &self,
        call: String,
        response: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Reply, Error> {
        let failed = |error: ureq::Error| match error {
            ureq::Error::BodyExceedsLimit(_) => Error::Undecodable {
                call: call.clone(),
                cause: "the reply is over 64 MiB: is this the backend?".into(),
            },
            error => Error::Unreachable { call: call.clone(), cause: cause(&error) },
        };
        let mut response = response.map_err(failed)?;
        let body = response.body_mut().with_config().limit(REPLY_MAX).reader();
        let look = Look::from(self.look_from.load(Ordering::Relaxed));
        let body = Body::read(body, look).map_err(|error| failed(error.into()))?;
        let status = response.status().as_u16();
        log::debug!("{call}: {status}");
        if matches!(status, 401 | 403) {
            self.reload_token();
        }
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status,
            retry_after: text(header::RETRY_AFTER)
                .and_then(|asked| retry::asked_for(asked, text(header::DATE))),
            date: text(header::DATE).and_then(retry::http_date),
            location: text(header::LOCATION).map(|location| text::one_line(location, 200)),
            call,
            body,
        })
    }

    /// Uses another token from now on. Returns whether it is another one.
    pub(crate) fn renew_token(&self, file: Option<PathBuf>, secret: Option<Secret>) -> bool {
        let mut token = self.token.write().unwrap_or_else(PoisonError::into_inner);
        let changed = token.secret != secret;
        *token = Token { file, secret };
        changed
    }

    /// The token may have been renewed since it was read.
    fn reload_token(&self) {
        let mut token = self.token.write().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &token.file else { return };
        match read_token(file) {
            Ok(secret) => token.secret = Some(secret),
            Err(problem) => log::error!("{problem}"),
        }
    }
}

/// Why a registration failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("{0}")]
    Call(#[from] Error),
    #[error(
        "{0}. If the URL is right, this backend pays to a 60-letter Qubic address: give yours with --address"
    )]
    NeedsAddress(String),
}

fn is_qubic_address(address: &str) -> bool {
    address.len() == 60 && address.bytes().all(|b| b.is_ascii_uppercase())
}

fn cause(error: &ureq::Error) -> String {
    if let Some(fix) = tls::authority_as_server(&error.to_string()) {
        return format!("the server shows the certificate of an authority as its own: {fix}");
    }
    match error {
        ureq::Error::Io(error) => text::one_line(&error.to_string(), 200),
        ureq::Error::Timeout(_) => "no answer within the deadline".into(),
        ureq::Error::HostNotFound => "no such host".into(),
        error => text::one_line(&error.to_string(), 200),
    }
}
