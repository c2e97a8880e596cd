//! `worker mock-backend`, the embedded backend, as a user starts it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::{BOUND, Program};

/// A running embedded backend.
pub(crate) struct Mock {
    program: Program,
    addr: String,
}

/// Its log's mark of a request that may have changed something.
const CHANGE: &str = "method=POST";

impl Mock {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::listen("127.0.0.1:0", more).expect("a free port is always found")
    }

    /// Nothing if the address is taken.
    fn listen(addr: &str, more: &[&str]) -> Option<Self> {
        let args = [&["mock-backend", "--listen", addr, "-v"], more].concat();
        let mut program = Program::start(&args);
        let told = program.wait_said("its address", |lines| {
            let told = |line: &&String| line.contains("listen on") || line.contains("listening on");
            lines.iter().map(|(_, line)| line).find(told).cloned()
        });
        match told.strip_prefix("listening on http://") {
            Some(addr) => Some(Self { addr: addr.to_owned(), program }),
            None => {
                program.wait();
                None
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Kills it and starts it anew, knowing nothing, at the same address.
    pub(crate) fn restart_empty(&mut self) {
        self.program.kill();
        // The kernel may lend the port to an outgoing connection for a moment.
        let again = (0..100).find_map(|_| Self::listen(&self.addr, &[]));
        *self = again.expect("the address comes free again");
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call(&format!("GET {path}"), "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.call(&format!("POST {path}"), &body.to_string())
    }

    fn call(&self, call: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let length = body.len();
        let request = format!(
            "{call} HTTP/1.1\r\nHost: mock\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{call}: {head}: {body}");
        serde_json::from_str(body).unwrap()
    }

    pub(crate) fn submit(&self, job: &Value) {
        self.post("/api/jobs/submit", job);
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/jobs/{id}"))
    }

    /// The one worker there is, once it has registered.
    pub(crate) fn provider(&self) -> Option<Value> {
        self.get("/api/providers").get(0).cloned()
    }

    /// Looks after every change until it finds.
    pub(crate) fn wait<T>(&self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let changes = self.program.count(CHANGE);
            if let Some(found) = find(self) {
                return found;
            }
            self.program.wait_said(what, |lines| {
                let now = lines.iter().filter(|(_, line)| line.contains(CHANGE)).count();
                (now > changes).then_some(())
            });
        }
    }

    pub(crate) fn wait_status(&self, id: &str, status: &str) -> Value {
        self.wait(&format!("{id} to be {status}"), |mock| {
            Some(mock.job(id)).filter(|job| job["status"] == status)
        })
    }

    /// Waits for so many more heartbeats.
    pub(crate) fn wait_beats(&self, more: u64) {
        let beats = |mock: &Self| Some(mock.provider()?["beats"].as_u64().unwrap());
        let now = self.wait("a worker", beats);
        self.wait("heartbeats", |mock| beats(mock).filter(|beats| *beats >= now + more));
    }
}
