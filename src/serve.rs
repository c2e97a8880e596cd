//! A small HTTP/1.1 server on blocking sockets: one named thread a connection, everything bounded.
//!
//! It knows no route: a handler turns each request into a reply, which may also be a failure made on purpose.
//! Bodies come by `Content-Length` only. Whoever serves stops it from a drop guard with [`Server::stop`], so that
//! the scope that runs [`Server::serve`] can end.

mod head;

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;

pub(crate) use self::head::Request;
use self::head::{KeepAlive, parse_head, response_head};

const MAX_CONNECTIONS: usize = 64;
/// How long a connection may stay open between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long a request may take to arrive, from its first byte.
const ARRIVAL: Duration = Duration::from_secs(20);
/// How long a response may take to leave.
const DEPARTURE: Duration = Duration::from_secs(20);
/// How long the rest of a refused request is read, so that its sender gets to see the refusal.
const LINGER: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Whole(Response),
    /// The length of the whole, half of the body, then the end of the connection.
    CutBody(Response),
    /// The connection is reset without a byte.
    Reset,
}

pub(crate) struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    open: Mutex<Open>,
    stopped: Condvar,
}

#[derive(Default)]
struct Open {
    stopping: bool,
    next: u64,
    /// Shared with the threads that talk on them, so that stopping can end their reads.
    streams: HashMap<u64, Arc<TcpStream>>,
}

impl Server {
    /// Port 0 takes a free one, which [`Server::addr`] tells.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr, open: Mutex::default(), stopped: Condvar::new() })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Blocks until [`Server::stop`], and until every handler has returned. A handler that panics stops the server
    /// and makes this panic.
    pub(crate) fn serve<F>(&self, max_body: usize, handler: F)
    where
        F: Fn(&Request) -> Reply + Sync,
    {
        thread::scope(|scope| {
            let handler = &handler;
            while let Some(stream) = self.accept() {
                let Some(connection) = self.admit(stream) else { continue };
                let name = format!("http-{}", connection.id);
                let talk = move || {
                    if let Err(error) = connection.talk(max_body, handler) {
                        log::debug!("connection ended connection={} error={error}", connection.id);
                    }
                };
                if let Err(error) = thread::Builder::new().name(name).spawn_scoped(scope, talk) {
                    log::warn!("connection dropped, no thread for it: {error}");
                }
            }
        });
    }

    /// Ends the open connections and makes [`Server::serve`] return.
    pub(crate) fn stop(&self) {
        let mut open = self.lock();
        open.stopping = true;
        let streams = mem::take(&mut open.streams);
        drop(open);
        self.stopped.notify_all();
        for stream in streams.values() {
            if let Err(error) = stream.shutdown(Shutdown::Both) {
                log::debug!("connection was closed already: {error}");
            }
        }
        let woken = TcpStream::connect_timeout(&reachable(self.addr), Duration::from_secs(1));
        if let Err(error) = woken {
            log::debug!("server was stopped already: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self) -> Option<TcpStream> {
        loop {
            let accepted = self.listener.accept();
            let open = self.lock();
            if open.stopping {
                return None;
            }
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    // Out of descriptors, accept() fails at once until one is free: this loop would spin.
                    log::debug!("no connection accepted: {error}");
                    let waited =
                        self.stopped.wait_timeout_while(open, ACCEPT_PAUSE, |open| !open.stopping);
                    drop(waited);
                }
            }
        }
    }

    /// Drops the connection if there are too many.
    fn admit(&self, stream: TcpStream) -> Option<Connection<'_>> {
        let mut open = self.lock();
        if open.stopping || open.streams.len() >= MAX_CONNECTIONS {
            return None;
        }
        let id = open.next;
        open.next += 1;
        let stream = Arc::new(stream);
        open.streams.insert(id, Arc::clone(&stream));
        Some(Connection { server: self, id, stream })
    }
}

/// An unspecified address can be bound but not everywhere connected to.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    addr
}

struct Connection<'a> {
    server: &'a Server,
    id: u64,
    stream: Arc<TcpStream>,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.server.lock().streams.remove(&self.id);
        if thread::panicking() {
            self.server.stop();
        }
    }
}

enum Incoming {
    Request(Request, KeepAlive),
    Refused(u16),
    Closed,
}

impl Connection<'_> {
    fn talk(&self, max_body: usize, handler: &impl Fn(&Request) -> Reply) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut inbox = Vec::new();
        loop {
            let (request, keep_alive) = match self.next_request(&mut inbox, max_body)? {
                Incoming::Request(request, keep_alive) => (request, keep_alive),
                Incoming::Refused(status) => return self.refuse(status),
                Incoming::Closed => return Ok(()),
            };
            match handler(&request) {
                Reply::Whole(response) => {
                    let body = if request.method == "HEAD" { &[][..] } else { &response.body };
                    self.send(&response, body, keep_alive)?;
                }
                Reply::CutBody(response) => {
                    let half = response.body.len() / 2;
                    return self.send(&response, &response.body[..half], KeepAlive::No);
                }
                // Closing a socket that lingers for no time sends RST instead of FIN.
                Reply::Reset => {
                    return Ok(set_socket_linger(&self.stream, Some(Duration::ZERO))?);
                }
            }
            if keep_alive == KeepAlive::No {
                return Ok(());
            }
        }
    }

    /// `inbox` holds what was received and not yet used, as a client may send its next request early.
    fn next_request(&self, inbox: &mut Vec<u8>, max_body: usize) -> io::Result<Incoming> {
        if inbox.is_empty() && self.receive(inbox, Instant::now() + IDLE)? == 0 {
            return Ok(Incoming::Closed);
        }
        let deadline = Instant::now() + ARRIVAL;
        let head = loop {
            match parse_head(inbox, max_body) {
                Ok(Some(head)) => break head,
                Ok(None) if self.receive(inbox, deadline)? == 0 => return Ok(Incoming::Closed),
                Ok(None) => {}
                Err(status) => return Ok(Incoming::Refused(status)),
            }
        };
        let end = head.size + head.body;
        if head.expects_continue && inbox.len() < end {
            self.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while inbox.len() < end {
            if self.receive(inbox, deadline)? == 0 {
                return Ok(Incoming::Closed);
            }
        }
        let mut request = head.request;
        let rest = inbox.split_off(end);
        request.body = inbox.split_off(head.size);
        *inbox = rest;
        Ok(Incoming::Request(request, head.keep_alive))
    }

    /// Appends what comes next; 0 is the end of the stream.
    fn receive(&self, inbox: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match (&*self.stream).read(&mut chunk) {
                Ok(size) => {
                    inbox.extend_from_slice(&chunk[..size]);
                    return Ok(size);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closing with bytes unread would send a reset, which takes the answer from the client.
    fn refuse(&self, status: u16) -> io::Result<()> {
        let response =
            Response { status, content_type: "text/plain", headers: vec![], body: vec![] };
        self.send(&response, &[], KeepAlive::No)?;
        self.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + LINGER;
        let mut rest = Vec::new();
        while self.receive(&mut rest, deadline)? > 0 {
            rest.clear();
        }
        Ok(())
    }

    fn send(&self, response: &Response, body: &[u8], keep_alive: KeepAlive) -> io::Result<()> {
        let mut bytes = response_head(response, keep_alive).into_bytes();
        bytes.extend_from_slice(body);
        self.send_all(&bytes)
    }

    fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + DEPARTURE;
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(left))?;
            match (&*self.stream).write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(size) => bytes = &bytes[size..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
