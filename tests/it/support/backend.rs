//! A backend that answers what a test scripts, as JSON literals of the protocol, and keeps every
//! request. It shares nothing with the agent, or a misspelt field would pass on both sides.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use serde_json::{Value, json};

use super::BOUND;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) call: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, pattern: &str) -> bool {
        fits(&self.call, pattern)
    }
}

/// Whether a call is of this pattern, in which `*` is one segment.
pub(super) fn fits(call: &str, pattern: &str) -> bool {
    let (ours, theirs) = (call.split('/'), pattern.split('/'));
    ours.clone().count() == theirs.clone().count()
        && ours.zip(theirs).all(|(ours, theirs)| theirs == "*" || ours == theirs)
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Whole {
        status: u16,
        content_type: &'static str,
        body: String,
    },
    /// These bytes, and the connection ends.
    Raw(Vec<u8>),
    /// These bytes, and then the last of them again and again, ten a second, until nobody reads on.
    Drip(Vec<u8>),
    /// The request is read, and the connection dies.
    HangUp,
    /// The reply is held back for so long.
    Held(Duration, Box<Self>),
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Whole { status, content_type: "application/json", body: body.into() }
    }

    pub(crate) fn html(status: u16) -> Self {
        let body = "<!DOCTYPE html><html><body>Please log in to this network.</body></html>";
        Self::Whole { status, content_type: "text/html", body: body.into() }
    }
}

type Answer = Box<dyn FnMut(&[Request]) -> Option<Reply> + Send>;

/// A running backend, which stops when it is dropped.
pub(crate) struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    desk: Mutex<Desk>,
    heard: Condvar,
}

struct Desk {
    /// The newest that has an answer gives it.
    rules: Vec<(String, Answer)>,
    seen: Vec<Request>,
    stopping: bool,
}

/// An address where nobody listens yet, and nobody else can.
pub(crate) struct Reserved {
    socket: OwnedFd,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { socket }
    }

    pub(crate) fn url(&self) -> String {
        let addr = rustix::net::getsockname(&self.socket).unwrap();
        format!("http://{}", SocketAddr::try_from(addr).unwrap())
    }

    /// Opens the backend, whose first answers are these.
    pub(crate) fn open(self, first: &[(&str, Reply)]) -> Backend {
        listen(&self.socket, 64).unwrap();
        Backend::serve(TcpListener::from(self.socket), first)
    }
}

impl Backend {
    /// Registers everybody, acknowledges everything, offers nothing.
    pub(crate) fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn start_at(address: IpAddr) -> Self {
        Self::serve(TcpListener::bind((address, 0)).unwrap(), &[])
    }

    fn serve(listener: TcpListener, first: &[(&str, Reply)]) -> Self {
        let desk = Desk { rules: vec![], seen: vec![], stopping: false };
        let shared = Arc::new(Shared { desk: Mutex::new(desk), heard: Condvar::new() });
        let backend = Self { addr: listener.local_addr().unwrap(), shared };
        for (pattern, body) in [
            (
                "POST /api/providers/register",
                r#"{"success":true,"provider":{"id":"e8124ecb-0b34-4eff-a0b5-2b398b12d38a"}}"#,
            ),
            ("POST /api/providers/*/heartbeat", r#"{"success":true,"pendingJobs":[]}"#),
            ("POST /api/jobs/*/progress", r#"{"success":true}"#),
            ("POST /api/jobs/*/complete", r#"{"success":true}"#),
        ] {
            backend.always(pattern, Reply::json(200, body));
        }
        for (pattern, reply) in first {
            backend.next(pattern, [reply.clone()]);
        }
        let accepting = Arc::clone(&backend.shared);
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.desk.lock().unwrap().stopping {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A peer that breaks off is no error: tests kill workers.
                let serve = move || drop(shared.serve(stream));
                thread::Builder::new().name("connection".into()).spawn(serve).unwrap();
            }
        };
        thread::Builder::new().name("backend".into()).spawn(accept).unwrap();
        backend
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers by what was seen so far, this request last. `*` in the pattern is one segment.
    pub(crate) fn answer(
        &self,
        pattern: &str,
        answer: impl FnMut(&[Request]) -> Option<Reply> + Send + 'static,
    ) {
        self.shared.desk.lock().unwrap().rules.push((pattern.to_owned(), Box::new(answer)));
    }

    pub(crate) fn always(&self, pattern: &str, reply: Reply) {
        self.answer(pattern, move |_| Some(reply.clone()));
    }

    /// Answers the next requests so; those after them, as before.
    pub(crate) fn next(&self, pattern: &str, replies: impl Into<VecDeque<Reply>>) {
        let mut replies = replies.into();
        self.answer(pattern, move |_| replies.pop_front());
    }

    /// Offers the jobs at every beat, each until its completion has come.
    pub(crate) fn offer(&self, jobs: &[Value]) {
        let jobs = jobs.to_vec();
        self.answer("POST /api/providers/*/heartbeat", move |seen| {
            let body = json!({"success": true, "pendingJobs": open_jobs(&jobs, seen)});
            Some(Reply::json(200, body.to_string()))
        });
    }

    /// Everything asked so far, method and path.
    pub(crate) fn calls(&self) -> Vec<String> {
        let desk = self.shared.desk.lock().unwrap();
        desk.seen.iter().map(|request| request.call.clone()).collect()
    }

    /// Of what a long test has looked at.
    #[cfg(feature = "crash-points")]
    pub(crate) fn forget(&self) {
        self.shared.desk.lock().unwrap().seen.clear();
    }

    pub(crate) fn requests(&self, pattern: &str) -> Vec<Request> {
        let desk = self.shared.desk.lock().unwrap();
        desk.seen.iter().filter(|request| request.is(pattern)).cloned().collect()
    }

    /// Waits until what was seen satisfies the condition, and returns what it found.
    pub(crate) fn wait<T>(&self, what: &str, find: impl Fn(&[Request]) -> Option<T>) -> T {
        let deadline = Instant::now() + BOUND;
        let mut desk = self.shared.desk.lock().unwrap();
        loop {
            if let Some(found) = find(&desk.seen) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seen = desk.seen.clone();
                drop(desk);
                panic!("waited {BOUND:?} in vain for {what}; seen: {seen:#?}");
            }
            desk = self.shared.heard.wait_timeout(desk, left).unwrap().0;
        }
    }

    /// Waits for the n-th request of this pattern, from 1.
    pub(crate) fn wait_for(&self, pattern: &str, n: usize) -> Request {
        self.wait(&format!("{pattern}, number {n}"), |seen| {
            seen.iter().filter(|request| request.is(pattern)).nth(n - 1).cloned()
        })
    }

    /// Waits for so many more heartbeats: by then whatever was due has been done.
    pub(crate) fn wait_beats(&self, more: usize) -> Request {
        let pattern = "POST /api/providers/*/heartbeat";
        self.wait_for(pattern, self.requests(pattern).len() + more)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A lock poisoned by a failed test must not hide that test's own words.
        let seen = self.shared.desk.lock().map(|mut desk| {
            desk.stopping = true;
            mem::take(&mut desk.seen)
        });
        TcpStream::connect(self.addr).ok();
        if !thread::panicking() {
            seen.iter().flatten().for_each(assert_names_no_path_of_ours);
        }
    }
}

/// Whatever goes wrong in whatever test, the backend is not told where the worker keeps its files.
fn assert_names_no_path_of_ours(request: &Request) {
    let body = request.body.to_string();
    let ours = ["/state/jobs", "/state/artefacts", "/state/trash", "/state/logs"];
    let named = ours.into_iter().find(|path| body.contains(path));
    assert_eq!(named, None, "{}: {body}", request.call);
}

/// The jobs whose completion has not come.
pub(crate) fn open_jobs(jobs: &[Value], seen: &[Request]) -> Vec<Value> {
    let open = |job: &&Value| {
        let complete = format!("POST /api/jobs/{}/complete", job["id"].as_str().unwrap_or("?"));
        !seen.iter().any(|request| request.call == complete)
    };
    jobs.iter().filter(open).cloned().collect()
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(BOUND))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(request) = read(&mut reader)? {
            let mut reply = self.reply(request);
            if let Reply::Held(time, held) = reply {
                let desk = self.desk.lock().unwrap();
                drop(self.heard.wait_timeout_while(desk, time, |desk| !desk.stopping).unwrap());
                reply = *held;
            }
            if let Reply::Raw(bytes) | Reply::Drip(bytes) = &reply {
                stream.write_all(bytes)?;
            }
            if let Reply::Drip(bytes) = &reply {
                loop {
                    let desk = self.desk.lock().unwrap();
                    let tenth = Duration::from_millis(100);
                    drop(
                        self.heard.wait_timeout_while(desk, tenth, |desk| !desk.stopping).unwrap(),
                    );
                    stream.write_all(&bytes[bytes.len() - 1..])?;
                }
            }
            let Reply::Whole { status, content_type, body } = reply else { break };
            // At once: a second write would wait for the peer to acknowledge the first.
            let whole = format!(
                "HTTP/1.1 {status} \r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(whole.as_bytes())?;
        }
        Ok(())
    }

    fn reply(&self, request: Request) -> Reply {
        let mut desk = self.desk.lock().unwrap();
        let desk = &mut *desk;
        desk.seen.push(request);
        self.heard.notify_all();
        let Some(request) = desk.seen.last() else { unreachable!("just pushed") };
        let fitting = desk.rules.iter_mut().rev().filter(|(pattern, _)| request.is(pattern));
        fitting
            .filter_map(|(_, answer)| answer(&desk.seen))
            .next()
            .unwrap_or_else(|| Reply::json(404, r#"{"success":false,"error":"not found"}"#))
    }
}

/// Reads one request; nothing when the peer has closed.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let call = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let request = Request { call, headers, body: Value::Null };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Ok(Some(Request { body, ..request }))
}
