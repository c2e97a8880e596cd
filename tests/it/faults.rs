//! What `docs/faults.md` says of a bad line, cell by cell: a fault, a request, the phase of a job.
//!
//! One worker a request and a fault: its job is led from phase to phase, and in each the fault strikes once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{BOUND, Backend, Home, LineFault, Program, Proxy, Reply, SCRIPTS, Storage};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";
const PROGRESS: &str = "POST /api/jobs/*/progress";
const ASK: &str = "GET /api/jobs/*";
const COMPLETE: &str = "POST /api/jobs/*/complete";
const DOWNLOAD: &str = "GET /in";
const UPLOAD: &str = "PUT /out";

const FAULTS: [(&str, LineFault, bool); 6] = [
    ("delay", LineFault::Delay, false),
    ("stall", LineFault::Stall, false),
    ("cut", LineFault::Cut, false),
    ("half-open", LineFault::HalfOpen, false),
    ("corrupted", LineFault::Corrupt, false),
    ("TLS cut", LineFault::Cut, true),
];

/// Those of storage servers first: they take a minute where a server is silent.
const REQUESTS: [(&str, &str, &[&str]); 7] = [
    ("download", DOWNLOAD, &["inputs"]),
    ("upload", UPLOAD, &["outputs"]),
    ("register", REGISTER, &["idle", "inputs", "running", "outputs", "completing"]),
    ("heartbeat", BEAT, &["idle", "inputs", "running", "outputs", "completing"]),
    ("progress", PROGRESS, &["inputs", "running", "outputs"]),
    ("job query", ASK, &["inputs", "running", "outputs", "completing"]),
    ("complete", COMPLETE, &["completing"]),
];

/// Works until a file is laid beside its input.
const SCRIPT: &str = r#"echo '{"progress": 50, "operation": "at work"}'
until [ -e /input/go ]; do sleep 0.1; done
cp /input/data /output/data"#;

/// The rows of the page's tables, by request and phase: a word for each fault.
fn page() -> BTreeMap<(String, String), Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells.len() == 2 + FAULTS.len());
    let (heads, rows): (Vec<_>, Vec<_>) = rows.partition(|cells| cells[0] == "request");
    for head in heads {
        assert_eq!(head[2..], FAULTS.map(|(name, ..)| name.to_owned()), "the faults of the page");
    }
    let rows = rows.into_iter().filter(|cells| !cells[0].starts_with("---"));
    rows.map(|mut cells| ((cells.remove(0), cells.remove(0)), cells)).collect()
}

#[test]
fn the_page_has_a_row_for_each_request_in_each_phase_and_no_other() {
    let of_request = |(name, _, phases): (&str, &str, &[&str])| {
        phases.iter().map(|phase| (name.to_owned(), (*phase).to_owned())).collect::<Vec<_>>()
    };
    let mut wanted: Vec<_> = REQUESTS.into_iter().flat_map(of_request).collect();
    wanted.sort();
    assert_eq!(page().into_keys().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_bad_line_does_what_the_page_says() {
    let page = page();
    let cases =
        REQUESTS.iter().flat_map(|request| FAULTS.iter().map(move |fault| (request, fault)));
    let left = Mutex::new(cases.collect::<Vec<_>>().into_iter());
    let work = || {
        loop {
            let next = left.lock().unwrap().next();
            let Some(((name, pattern, phases), (fault, ..))) = next else { return };
            let at = FAULTS.iter().position(|(known, ..)| known == fault).unwrap();
            let words = phases.iter().map(|phase| {
                (*phase, page[&((*name).to_owned(), (*phase).to_owned())][at].as_str())
            });
            Case::start(name, pattern, at).run(words);
        }
    };
    thread::scope(|scope| {
        for _ in 0..14 {
            thread::Builder::new().spawn_scoped(scope, work).unwrap();
        }
    });
}

/// A worker behind bad lines, and the phase its job is led to.
struct Case {
    what: String,
    pattern: &'static str,
    fault: LineFault,
    home: Home,
    backend: Backend,
    storage: Storage,
    /// Before the backend, and before the storage server.
    front: Proxy,
    shelf: Proxy,
    /// Whether the backend takes completions.
    takes: Arc<AtomicBool>,
    worker: Program,
    struck: usize,
}

impl Case {
    fn start(name: &str, pattern: &'static str, fault: usize) -> Self {
        let (fault_name, fault, tls) = FAULTS[fault];
        let (home, backend, storage) = (Home::new(), Backend::start(), Storage::http());
        let (front, shelf) = (Proxy::before(&backend.url(), tls), Proxy::before(&storage.url, tls));
        let takes = Arc::new(AtomicBool::new(false));
        let (open, state) = (Arc::clone(&takes), Arc::new(Mutex::new("RUNNING")));
        let told = Arc::clone(&state);
        backend.answer(COMPLETE, move |seen| {
            let away = Reply::json(503, r#"{"success":false,"error":"database down"}"#);
            if !open.load(Ordering::SeqCst) {
                return Some(away);
            }
            let is_good = seen.last().is_some_and(|send| send.body["status"] == "completed");
            *state.lock().unwrap() = if is_good { "COMPLETED" } else { "FAILED" };
            None
        });
        backend.answer(ASK, move |_| {
            let status = *told.lock().unwrap();
            let job = json!({"id": "job-1", "status": status, "provider": {"workerId": "rig-1"}});
            Some(Reply::json(200, job.to_string()))
        });
        if name == "register" {
            front.arm(REGISTER, fault);
        }
        let ca = format!("{}/tests/it/tls/ca.pem", env!("CARGO_MANIFEST_DIR"));
        // An answer that is only late is waited for.
        let patience = if fault == LineFault::Delay { "30s" } else { "1s" };
        let pace = [
            "--worker-id",
            "rig-1",
            "--allow-private-downloads",
            "--progress-interval",
            "1s",
            "--request-timeout",
            patience,
        ];
        let trust = ["--ca-cert", &ca];
        let args = [&SCRIPTS[..], &pace, if tls { &trust } else { &[] }].concat();
        let worker = home.worker(&front.url, &args);
        let what = format!("{name}, {fault_name}");
        Self {
            what,
            pattern,
            fault,
            home,
            backend,
            storage,
            front,
            shelf,
            takes,
            worker,
            struck: 0,
        }
    }

    fn run<'a>(mut self, words: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut words: BTreeMap<&str, &str> = words.collect();
        let mut failed = false;
        for phase in ["idle", "inputs", "running", "outputs", "completing"] {
            let word = words.remove(phase);
            self.enter(phase, word.is_some());
            if let Some(word) = word {
                self.check(phase, word);
                failed |= word == "failed";
            }
            if failed {
                break;
            }
        }
        self.end(if failed { "failed" } else { "completed" });
    }

    /// Leads the job to this phase; to be struck there, if that is a phase of one request.
    fn enter(&self, phase: &str, struck: bool) {
        let strikes_first = struck && matches!(self.pattern, DOWNLOAD | UPLOAD | COMPLETE);
        match phase {
            "idle" => drop(self.worker.wait_log("registered")),
            "inputs" => {
                match strikes_first {
                    true => self.strike(),
                    false => self.shelf.hold(DOWNLOAD),
                }
                self.backend.offer(&[self.job()]);
                self.shelf.wait_call(DOWNLOAD);
            }
            "running" => {
                self.shelf.release();
                self.backend.wait("progress of the script", |seen| {
                    let mut reports = seen.iter().filter(|request| request.is(PROGRESS));
                    reports.any(|report| report.body["currentOperation"] == "at work").then_some(())
                });
            }
            "outputs" => {
                match strikes_first {
                    true => self.strike(),
                    false => self.shelf.hold(UPLOAD),
                }
                let mut jobs = fs::read_dir(self.home.path("state/jobs")).unwrap();
                let work = jobs.next().unwrap().unwrap().path().join("work");
                fs::File::create(work.join("in/go")).unwrap();
                self.shelf.wait_call(UPLOAD);
            }
            _ => {
                if strikes_first {
                    self.takes.store(true, Ordering::SeqCst);
                    self.strike();
                }
                self.shelf.release();
                self.backend.wait_for(COMPLETE, 1);
            }
        }
    }

    fn job(&self) -> Value {
        let data = "0123456789abcdef".repeat(6 << 10);
        let hash: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
        self.storage.put("/in", data.as_bytes());
        let (input, output) = (format!("{}/in", self.shelf.url), format!("{}/out", self.shelf.url));
        json!({"id": "job-1", "jobType": "script", "inputData": {
            "script": SCRIPT, "interpreter": "bash",
            "inputs": [{"url": input, "path": "data", "sha256": hash}],
            "outputs": [{"path": "data", "put": {"url": output}}],
        }})
    }

    fn line(&self) -> &Proxy {
        if matches!(self.pattern, DOWNLOAD | UPLOAD) { &self.shelf } else { &self.front }
    }

    fn strike(&self) {
        self.line().arm(self.pattern, self.fault);
    }

    /// Has the fault strike, unless it was to do so on the way here, and looks at what the word says.
    fn check(&mut self, phase: &str, word: &str) {
        match self.pattern {
            REGISTER if phase != "idle" => {
                self.strike();
                let unknown = r#"{"success":false,"error":"Provider not found"}"#;
                // Until it is heard: on a busy machine an answer may come too late.
                let (front, times) = (self.front.clone(), self.struck + 1);
                self.backend.answer(BEAT, move |_| {
                    (front.struck() < times).then(|| Reply::json(404, unknown))
                });
            }
            BEAT | PROGRESS | ASK => self.strike(),
            _ => {}
        }
        self.struck += 1;
        self.line().wait_struck(self.struck);
        let (what, pattern) = (format!("{}, {phase}: {word}", self.what), self.pattern);
        match (word, pattern) {
            ("in time", REGISTER) => {
                self.front.wait_since(BEAT);
                assert_eq!(self.front.since(REGISTER), 0, "{what}");
            }
            ("in time", BEAT) => {
                self.front.wait_since(BEAT);
                assert_eq!(self.troubles(), 0, "{what}");
            }
            ("in time" | "newer" | "again", PROGRESS | ASK) => self.front.wait_since(pattern),
            ("in time", COMPLETE) => self.wait_ended(),
            // Its phase ends, or the job's next one would not begin.
            ("in time", DOWNLOAD | UPLOAD) => {}
            ("again", REGISTER) => {
                self.front.wait_since(REGISTER);
                self.front.wait_since(BEAT);
            }
            ("again", BEAT) => {
                self.front.wait_since(BEAT);
                self.worker.wait_count("backend back after", self.struck);
                assert!(self.troubles() >= self.struck, "{what}");
                assert_eq!(self.front.since(REGISTER), 0, "{what}");
                let beat = self.backend.wait_beats(1);
                let current = if phase == "idle" { Value::Null } else { json!("job-1") };
                assert_eq!(beat.body["currentJob"], current, "{what}");
            }
            ("again", UPLOAD | DOWNLOAD) => self.shelf.wait_since(pattern),
            ("resumed", DOWNLOAD) => {
                self.shelf.wait_since(DOWNLOAD);
                self.storage_resumed(&what);
            }
            ("asked" | "asked, again", COMPLETE) => {
                self.wait_ended();
                assert!(self.front.since(ASK) > 0, "{what}");
                let sends = if word == "asked" { 1 } else { 2 };
                assert_eq!(self.front.count(COMPLETE), sends, "{what}");
                assert_eq!(self.backend.requests(COMPLETE).len(), 1, "{what}");
            }
            ("failed", DOWNLOAD) => {
                let told = self.backend.wait_for(COMPLETE, 1).body;
                assert_eq!(told["errorDetails"]["reason"], "download_failed", "{what}: {told:#}");
            }
            _ => panic!("{what}: the word means nothing here"),
        }
    }

    /// How often the log says that the backend is not there.
    fn troubles(&self) -> usize {
        ["backend unreachable", "backend in trouble"]
            .map(|what| self.worker.count(what))
            .iter()
            .sum()
    }

    /// The second request was for what the first one had not brought.
    fn storage_resumed(&self, what: &str) {
        let until = Instant::now() + BOUND;
        while self.storage.seen().len() < 2 {
            assert!(Instant::now() < until, "{what}");
            self.backend.wait_beats(1);
        }
        let ranges: Vec<bool> =
            self.storage.seen().iter().map(|seen| seen.head.contains("range: bytes=")).collect();
        assert_eq!(ranges[..2], [false, true], "{what}");
    }

    /// All that the job needs is let through, and it comes to its end.
    fn wait_ended(&self) {
        self.takes.store(true, Ordering::SeqCst);
        let until = Instant::now() + 2 * BOUND;
        while self.home.ledger().is_empty() {
            assert!(Instant::now() < until, "{}: the job does not end", self.what);
            self.backend.wait_beats(1);
        }
    }

    fn end(mut self, status: &str) {
        self.shelf.release();
        self.wait_ended();
        self.worker.stop();
        if self.fault == LineFault::Delay && matches!(self.pattern, COMPLETE | DOWNLOAD | UPLOAD) {
            assert_eq!(self.line().count(self.pattern), 1, "{}", self.what);
        }
        let [line] = &self.home.ledger()[..] else { panic!("{}", self.what) };
        assert_eq!([&line["id"], &line["status"]], ["job-1", status], "{}", self.what);
        let sends = self.backend.requests(COMPLETE);
        for send in &sends {
            assert_eq!(send.body, sends[0].body, "{}", self.what);
            assert_eq!(send.header("idempotency-key"), Some("rig-1:job-1:1"), "{}", self.what);
        }
        assert_eq!(sends[0].body["status"], status, "{}: {:#}", self.what, sends[0].body);
    }
}

impl Drop for Case {
    #[expect(clippy::print_stderr, reason = "the harness shows it with the test that failed")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- in the case {}", self.what);
        }
    }
}
