//! A bad line: a proxy before the backend or a storage server, which does to one request what it is told to, and
//! holds others back. It ends TLS where the worker is to speak that.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::backend::fits;
use super::{BOUND, tls_config};

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The answer comes late.
    Delay,
    /// The answer begins, and does not go on.
    Stall,
    /// The answer begins, and the connection ends: over TLS without a word that it does.
    Cut,
    /// The request is taken, goes nowhere, and nobody says so.
    HalfOpen,
    /// The second half of the answer's body is other bytes; of one without a body, its head.
    Corrupt,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    line: Arc<Line>,
}

struct Line {
    /// The server's address.
    to: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next request of this pattern meets this fault.
    armed: Option<(String, Fault)>,
    /// The answer to requests of this pattern waits.
    held: Option<String>,
    /// Every request, whether or not it reached the server.
    calls: Vec<String>,
    struck: usize,
    /// How many of the calls there were when it last struck.
    before: usize,
}

impl State {
    fn since(&self, pattern: &str) -> usize {
        self.calls[self.before..].iter().filter(|call| fits(call, pattern)).count()
    }
}

impl Proxy {
    /// Before the server of this `http://` address.
    pub(crate) fn before(url: &str, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = url.strip_prefix("http://").unwrap().to_owned();
        let line = Arc::new(Line { to, state: Mutex::default(), changed: Condvar::new() });
        let served = Arc::clone(&line);
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let line = Arc::clone(&served);
                // Whoever breaks off is a client that has heard enough.
                let serve = move || drop(line.serve(stream, tls));
                thread::Builder::new().name("bad line".into()).spawn(serve).unwrap();
            }
        };
        thread::Builder::new().name("proxy".into()).spawn(accept).unwrap();
        let url = match tls {
            false => format!("http://127.0.0.1:{port}"),
            true => format!("https://localhost:{port}"),
        };
        Self { url, line }
    }

    pub(crate) fn arm(&self, pattern: &str, fault: Fault) {
        self.line.state.lock().unwrap().armed = Some((pattern.to_owned(), fault));
    }

    pub(crate) fn hold(&self, pattern: &str) {
        self.line.state.lock().unwrap().held = Some(pattern.to_owned());
    }

    pub(crate) fn release(&self) {
        self.line.state.lock().unwrap().held = None;
        self.line.changed.notify_all();
    }

    pub(crate) fn struck(&self) -> usize {
        self.line.state.lock().unwrap().struck
    }

    pub(crate) fn wait_struck(&self, times: usize) {
        self.wait(&format!("fault number {times}"), |state| state.struck >= times);
    }

    pub(crate) fn wait_call(&self, pattern: &str) {
        self.wait(pattern, |state| state.calls.iter().any(|call| fits(call, pattern)));
    }

    pub(crate) fn count(&self, pattern: &str) -> usize {
        let state = self.line.state.lock().unwrap();
        state.calls.iter().filter(|call| fits(call, pattern)).count()
    }

    /// Requests of this pattern after the one that the last fault struck.
    pub(crate) fn since(&self, pattern: &str) -> usize {
        self.line.state.lock().unwrap().since(pattern)
    }

    pub(crate) fn wait_since(&self, pattern: &str) {
        self.wait(&format!("another {pattern}"), |state| state.since(pattern) > 0);
    }

    fn wait(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let state = self.line.state.lock().unwrap();
        let waited =
            self.line.changed.wait_timeout_while(state, 2 * BOUND, |state| !reached(state));
        let (state, timeout) = waited.unwrap();
        let calls = state.calls.clone();
        drop(state);
        assert!(!timeout.timed_out(), "waited in vain for {what}: {calls:#?}");
    }
}

impl Line {
    fn serve(&self, stream: TcpStream, tls: bool) -> io::Result<()> {
        stream.set_read_timeout(Some(2 * BOUND))?;
        if tls {
            let session = ServerConnection::new(tls_config()).unwrap();
            return self.carry(StreamOwned::new(session, stream));
        }
        self.carry(stream)
    }

    fn carry(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream)? {
            let fault = self.meet(&request);
            if fault == Some(Fault::HalfOpen) {
                return wait_for_end(stream);
            }
            let mut server = TcpStream::connect(&self.to)?;
            server.write_all(&request.head)?;
            server.write_all(&request.body)?;
            let Some(answer) = read(&mut BufReader::new(server))? else { return Ok(()) };
            self.wait_released(&request);
            let Message { head, mut body } = answer;
            let half = match body.len() / 2 {
                0 => head[..head.len() / 2].to_vec(),
                middle => [head.as_slice(), &body[..middle]].concat(),
            };
            match fault {
                None | Some(Fault::HalfOpen) => {}
                Some(Fault::Delay) => {
                    let state = self.state.lock().unwrap();
                    let late = Duration::from_millis(300);
                    drop(self.changed.wait_timeout_while(state, late, |_| true).unwrap());
                }
                Some(Fault::Stall) => {
                    write(&mut stream, &half)?;
                    return wait_for_end(stream);
                }
                Some(Fault::Cut) => return write(&mut stream, &half),
                Some(Fault::Corrupt) if body.is_empty() => {
                    return write(
                        &mut stream,
                        &head.iter().map(|byte| byte ^ 0x80).collect::<Vec<_>>(),
                    );
                }
                Some(Fault::Corrupt) => {
                    let middle = body.len() / 2;
                    body[middle..].iter_mut().for_each(|byte| *byte ^= 0x80);
                }
            }
            write(&mut stream, &[head, body].concat())?;
        }
        Ok(())
    }

    /// Notes the request, and what is to be done to it.
    fn meet(&self, request: &Message) -> Option<Fault> {
        let call = request.call();
        let mut state = self.state.lock().unwrap();
        let fault =
            state.armed.take_if(|(pattern, _)| fits(&call, pattern)).map(|(_, fault)| fault);
        state.calls.push(call);
        if fault.is_some() {
            state.struck += 1;
            state.before = state.calls.len();
        }
        self.changed.notify_all();
        fault
    }

    fn wait_released(&self, request: &Message) {
        let (call, state) = (request.call(), self.state.lock().unwrap());
        let is_held = |state: &mut State| state.held.as_ref().is_some_and(|held| fits(&call, held));
        drop(self.changed.wait_timeout_while(state, 2 * BOUND, is_held).unwrap());
    }
}

/// A request or an answer.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    /// Method and path, without a query.
    fn call(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        line.split('?').next().unwrap_or_default().to_owned()
    }
}

fn read(from: &mut impl io::BufRead) -> io::Result<Option<Message>> {
    let (mut head, mut length) = (vec![], 0);
    loop {
        let mut line = vec![];
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        head.extend(&line);
        let line = String::from_utf8_lossy(&line).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(Message { head, body }))
}

fn write(stream: &mut BufReader<impl Read + Write>, bytes: &[u8]) -> io::Result<()> {
    stream.get_mut().write_all(bytes)?;
    stream.get_mut().flush()
}

/// Until the client hangs up.
fn wait_for_end(mut stream: impl Read) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
