//! The status page, metrics and health, for whoever looks at a running agent. Off unless asked for.
//!
//! It only shows: there is no request that changes anything. What is shown is asked of [`Sources`] at
//! each request, so that it is as new as the agent's own view, and nothing is kept here but the last
//! hour of the GPUs.
//!
//! A page on the loopback can be reached by every web site that the owner visits, if the site's name is
//! made to lead there (DNS rebinding): a request under a name that is not this machine's gets nothing.

mod chart;
mod history;
mod html;
mod metrics;
mod page;
mod parts;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::serve::{Reply, Request, Response, Server};
use crate::snapshot::{Snapshot, State};
use crate::{clock, text};
use history::History;

/// The loop looks at the clock every 5 s: this is no longer a loop that is busy.
const STUCK_AFTER: Duration = Duration::from_secs(60);

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nothing from elsewhere, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where what is shown comes from; each is asked at every request that needs it.
pub(crate) struct Sources<'a> {
    pub(crate) snapshot: &'a (dyn Fn() -> Snapshot + Sync),
    /// The last lines that the job of this key has printed, oldest first.
    pub(crate) log_tail: &'a (dyn Fn(&str) -> Vec<String> + Sync),
    pub(crate) books: &'a (dyn Fn() -> Arc<Books> + Sync),
    /// How long ago the loop last turned.
    pub(crate) idle: &'a (dyn Fn() -> Duration + Sync),
}

/// What the ledger tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Books {
    /// The newest first; no more than are shown.
    pub(crate) recent: Vec<Ended>,
    /// Oldest first, the last is today; those without a job are among them.
    pub(crate) days: Vec<Day>,
    /// What ended since the agent started.
    pub(crate) tallies: Vec<Tally>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) kind: String,
    pub(crate) status: String,
    /// RFC 3339.
    pub(crate) at: String,
    pub(crate) seconds: Option<f64>,
    pub(crate) amount: Option<f64>,
    pub(crate) kwh: Option<f64>,
}

/// What a day brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Day {
    /// Such as `2026-01-15`.
    pub(crate) date: String,
    pub(crate) jobs: u64,
    pub(crate) amount: f64,
    pub(crate) kwh: f64,
}

/// Attempts of one kind that ended alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) count: u64,
    /// How long each took, of those that ran.
    pub(crate) seconds: Vec<f64>,
}

/// Answers requests until the server is stopped.
///
/// # Errors
/// There is no thread for the GPUs' curves.
pub(crate) fn serve(server: &Server, sources: &Sources<'_>) -> io::Result<()> {
    let history = History::default();
    thread::scope(|scope| {
        // Ends the other thread when this closure is left, also by a panic.
        let (_open, until_closed) = mpsc::channel();
        let history = &history;
        thread::Builder::new()
            .name("history".to_owned())
            .spawn_scoped(scope, move || keep_noting(history, sources, &until_closed))?;
        let desk = Desk { bound: server.addr(), sources, history };
        server.serve(0, |request| Reply::Whole(desk.answer(request)));
        Ok(())
    })
}

fn keep_noting(history: &History, sources: &Sources<'_>, until_closed: &Receiver<()>) {
    loop {
        let usage = (sources.snapshot)().usage.unwrap_or_default();
        history.note(clock::since_boot(), &usage.gpus);
        if until_closed.recv_timeout(history::PERIOD) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Where requests are answered.
struct Desk<'a> {
    bound: SocketAddr,
    sources: &'a Sources<'a>,
    history: &'a History,
}

impl Desk<'_> {
    fn answer(&self, request: &Request) -> Response {
        let hostname = || (self.sources.snapshot)().machine.hostname;
        if !is_our_name(request.header("host"), self.bound, hostname) {
            let why = "This page is only served under this machine's own address: use the one that \
                       the worker logged.\n";
            return response(421, TEXT, why);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            let mut refusal = response(405, TEXT, "Nothing can be changed here.\n");
            refusal.headers.push(("Allow", "GET, HEAD".to_owned()));
            return refusal;
        }
        match request.path.as_str() {
            "/" => response(200, HTML, &self.page()),
            "/page.css" => response(200, "text/css; charset=utf-8", include_str!("page.css")),
            "/page.js" => response(200, "text/javascript; charset=utf-8", include_str!("page.js")),
            "/icon.svg" => response(200, "image/svg+xml", include_str!("icon.svg")),
            "/metrics" => response(200, METRICS, &self.metrics()),
            "/status.json" => self.status(),
            "/healthz" => health((self.sources.idle)()),
            "/readyz" => readiness(&(self.sources.snapshot)()),
            _ => response(404, TEXT, "There is no such page.\n"),
        }
    }

    fn page(&self) -> String {
        let snapshot = (self.sources.snapshot)();
        let books = (self.sources.books)();
        let now = clock::since_boot();
        page::render(&page::View {
            snapshot: &snapshot,
            books: &books,
            log_tail: self.sources.log_tail,
            history: self.history,
            now,
        })
    }

    fn metrics(&self) -> String {
        let process = metrics::Process::look();
        metrics::render(&(self.sources.snapshot)(), &(self.sources.books)().tallies, &process)
    }

    fn status(&self) -> Response {
        match serde_json::to_string_pretty(&(self.sources.snapshot)()) {
            Ok(json) => response(200, JSON, &format!("{}\n", text::visible_json(&json))),
            Err(error) => response(500, TEXT, &format!("the status cannot be written: {error}\n")),
        }
    }
}

fn health(idle: Duration) -> Response {
    if idle < STUCK_AFTER {
        return response(200, TEXT, "ok\n");
    }
    let seconds = idle.as_secs();
    response(503, TEXT, &format!("the agent's loop has not turned for {seconds} s\n"))
}

fn readiness(snapshot: &Snapshot) -> Response {
    let why = match snapshot.state {
        State::Paused => "paused",
        State::Stopping | State::Stopped => "stopping",
        State::Starting | State::Online | State::Busy | State::Unreachable => {
            if snapshot.registered {
                return response(200, TEXT, "ready\n");
            }
            "not registered"
        }
    };
    let more = snapshot.why.iter().map(|why| format!(": {why}")).collect::<String>();
    response(503, TEXT, &format!("{why}{more}\n"))
}

fn response(status: u16, content_type: &'static str, body: &str) -> Response {
    let headers = [
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", POLICY),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    Response { status, content_type, headers, body: body.as_bytes().to_vec() }
}

/// Whether the request was meant for this machine. An address as the host cannot have been made to lead
/// here, as a name can; a machine that listens to others is also known by its own name.
fn is_our_name(host: Option<&str>, bound: SocketAddr, hostname: impl Fn() -> String) -> bool {
    let Some(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = address.parse::<IpAddr>() {
        return ip.is_loopback() || ip == bound.ip() || bound.ip().is_unspecified();
    }
    name.eq_ignore_ascii_case("localhost")
        || !bound.ip().is_loopback() && name.eq_ignore_ascii_case(&hostname())
}

#[cfg(test)]
mod tests;
