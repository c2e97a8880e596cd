//! The embedded backend: the whole protocol over a real socket, its state in memory, faults on order.
//!
//! `worker demo`, `worker mock-backend` and tests run against it. It shares no type with the agent: payloads are
//! JSON values here, so that a misspelt field cannot pass on both sides. It keeps nothing on disk and pays nobody.

mod books;
mod faults;
mod job;
mod provider;
mod routes;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use self::{
    books::Books,
    faults::{Faults, What},
    routes::Route,
};
pub(crate) use self::{
    faults::{BadFault, Fault, parse_lines},
    job::{JobView, Status},
};
use crate::{
    clock,
    serve::{Reply, Request, Server},
};

const MAX_BODY: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Told to the workers; three of them make a silent worker offline. Without one, 30 s are assumed.
    pub(crate) heartbeat_interval: Option<Duration>,
    /// What every request to `/api` must then bear.
    pub(crate) token: Option<String>,
    pub(crate) faults: Vec<Fault>,
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Now {
    since_boot: Duration,
    wall: SystemTime,
}

impl Now {
    fn read() -> Self {
        Self { since_boot: clock::since_boot(), wall: clock::wall() }
    }
}

/// A running backend, which stops when it is dropped.
pub(crate) struct Backend {
    /// Shared with the thread that serves, which ends before this does.
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: Server,
    token: Option<String>,
    desk: Mutex<Desk>,
    /// Told of every change of the books, and of stopping.
    changed: Condvar,
}

struct Desk {
    books: Books,
    faults: Faults,
    stopping: bool,
}

impl Backend {
    /// Port 0 takes a free one, which [`Backend::url`] tells.
    pub(crate) fn start(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let desk = Desk {
            books: Books::new(options.heartbeat_interval),
            faults: Faults::new(options.faults),
            stopping: false,
        };
        let server = Server::bind(addr)?;
        let shared = Shared {
            server,
            token: options.token,
            desk: Mutex::new(desk),
            changed: Condvar::new(),
        };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        let serve = move || serving.server.serve(MAX_BODY, |request| serving.answer(request));
        let thread = thread::Builder::new().name("backend".to_owned()).spawn(serve)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.shared.server.addr())
    }

    /// Returns the id of the job, its own or a new one.
    pub(crate) fn submit(&self, job: Value) -> Result<String, String> {
        self.shared
            .with_books(|books| books.submit(job, Now::read()))
            .map_err(|refusal| refusal.error)
    }

    /// Oldest first.
    pub(crate) fn jobs(&self) -> Vec<JobView> {
        self.shared.with_books(|books| books.job_views(Now::read()))
    }

    /// Waits until something has changed since the version `seen` (0 at first), or `timeout` has passed. Returns
    /// the version to wait with next.
    pub(crate) fn wait_change(&self, seen: u64, timeout: Duration) -> u64 {
        let unchanged = |desk: &mut Desk| desk.books.version() == seen;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, unchanged);
        let (desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        desk.books.version()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.shared.server.stop();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the embedded backend panicked");
        }
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Reply {
        let before = clock::since_boot();
        let route = Route::of(&request.method, &request.path);
        let fault = route.target().and_then(|target| self.lock().faults.next(target));
        let reply = match fault {
            None => self.whole(&route, request),
            Some(what) => self.failing(&route, request, what),
        };
        let took = clock::since_boot().saturating_sub(before).as_millis();
        let (method, path, says) = (&request.method, &request.path, outline(&reply));
        let fault = fault.map(|what| format!(" fault={what:?}")).unwrap_or_default();
        log::debug!("answered method={method} path={path} reply={says} took_ms={took}{fault}");
        reply
    }

    fn failing(&self, route: &Route, request: &Request, what: What) -> Reply {
        match what {
            What::Refuse => Reply::Reset,
            What::Canned(canned) => Reply::Whole(canned.response(route.target())),
            What::Delay(delay) => {
                self.wait_for_stop(delay);
                self.whole(route, request)
            }
            What::Lost => {
                self.perform(route, request);
                Reply::Reset
            }
            What::Cut => {
                let (status, body) = self.perform(route, request);
                Reply::CutBody(routes::json_response(status, &body))
            }
            What::Duplicate => self.with_repeated_offers(route, request),
        }
    }

    fn whole(&self, route: &Route, request: &Request) -> Reply {
        let (status, body) = self.perform(route, request);
        Reply::Whole(routes::json_response(status, &body))
    }

    fn with_repeated_offers(&self, route: &Route, request: &Request) -> Reply {
        let (status, mut body) = self.perform(route, request);
        if let Route::Heartbeat(worker) = route {
            self.with_books(|books| books.repeat_offers(worker, &mut body));
        }
        Reply::Whole(routes::json_response(status, &body))
    }

    fn perform(&self, route: &Route, request: &Request) -> (u16, Value) {
        let is_open = matches!(route, Route::Health);
        if !is_open && self.token.as_ref().is_some_and(|token| !routes::is_allowed(request, token))
        {
            return (401, json!({ "success": false, "error": "Unauthorized" }));
        }
        self.with_books(|books| routes::perform(books, route, request, Now::read()))
    }

    /// What the change says to people is logged after the lock is released: a log may block.
    fn with_books<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let mut desk = self.lock();
        let before = desk.books.version();
        let done = change(&mut desk.books);
        let events = desk.books.take_events();
        let changed = desk.books.version() != before;
        drop(desk);
        if changed {
            self.changed.notify_all();
        }
        for event in events {
            log::info!("{event}");
        }
        done
    }

    fn wait_for_stop(&self, at_most: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |desk| !desk.stopping);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outline(reply: &Reply) -> String {
    match reply {
        Reply::Whole(response) => response.status.to_string(),
        Reply::CutBody(response) => format!("{} cut", response.status),
        Reply::Reset => "reset".to_owned(),
    }
}

#[cfg(test)]
mod tests;
