//! What the service manager is told, and what it asks for.

use std::fs;
use std::os::unix::net::UnixDatagram;

use crate::support::{BOUND, Backend, Home, Program, Reply, Reserved, endless};

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Self { socket, path }
    }

    /// Waits for an assignment that begins so. Returns it, and those before it.
    fn wait(&self, words: &str) -> (String, Vec<String>) {
        let mut before = vec![];
        loop {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("waited in vain for {words}: {error}; heard: {before:#?}")
            });
            let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let mut lines = datagram.lines().map(str::to_owned);
            if let Some(found) = lines.clone().find(|line| line.starts_with(words)) {
                return (found, before);
            }
            before.extend(&mut lines);
        }
    }
}

fn served(home: &Home, url: &str, manager: &Manager, more: &[&str]) -> Program {
    let env = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "3000000")];
    home.worker_with(url, more, &env)
}

#[test]
fn a_manager_hears_when_it_is_ready_what_it_does_and_that_it_stops() {
    let (home, backend) = (Home::new(), Backend::start());
    let manager = Manager::new(&home);
    backend.offer(&[endless("job-1")]);
    let mut worker = served(&home, &backend.url(), &manager, &[]);
    let (_, before) = manager.wait("READY=1");
    assert!(!before.iter().any(|line| line.starts_with("STATUS=online")), "{before:?}");
    let more_time = |line: &String| line.starts_with("EXTEND_TIMEOUT_USEC=");
    assert!(before.iter().any(more_time), "a slow first answer is waited for: {before:?}");
    manager.wait("STATUS=busy: job-1 compute, ");
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let child = worker.children()[0];
    let environment = fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
    assert!(!environment.contains("NOTIFY") && !environment.contains("WATCHDOG"), "{environment}");
    worker.signal(rustix::process::Signal::TERM);
    manager.wait("STOPPING=1");
    manager.wait("EXTEND_TIMEOUT_USEC=");
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait(), 0);
}

#[test]
fn an_outage_is_told_and_neither_delays_readiness_nor_stops_the_watchdog() {
    let home = Home::new();
    let (nobody, manager) = (Reserved::new(), Manager::new(&home));
    let mut worker = served(&home, &nobody.url(), &manager, &[]);
    manager.wait("READY=1");
    let (_, before) = manager.wait("WATCHDOG=1");
    assert!(!before.iter().any(|line| line == "READY=1"), "once: {before:?}");
    for _ in 0..3 {
        manager.wait("WATCHDOG=1");
    }
    worker.stop();
    let (status, _) = manager.wait("STATUS=");
    assert!(!status.contains("online"), "{status}");
}

#[test]
fn whoever_is_refused_at_once_never_was_ready() {
    let (home, backend) = (Home::new(), Backend::start());
    let manager = Manager::new(&home);
    let refusal = Reply::json(401, r#"{"success":false,"error":"no such token"}"#);
    backend.always("POST /api/providers/register", refusal);
    let mut worker = served(&home, &backend.url(), &manager, &[]);
    assert_eq!(worker.wait(), 3);
    manager.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut buffer) {
        let heard = String::from_utf8_lossy(&buffer[..length]);
        assert!(!heard.contains("READY"), "{heard}");
    }
}
