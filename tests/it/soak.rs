//! Many heartbeats and jobs, at intervals that no owner can set: the agent is as large afterwards as before.
//!
//! `WORKER_SOAK_BEATS=100000 WORKER_SOAK_JOBS=10000 cargo test --release --features crash-points --test it soak --
//! --nocapture` is the longer form.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{BOUND, Backend, Home, Program, Reply, number, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const COMPLETE: &str = "POST /api/jobs/*/complete";

/// What may come to an agent's own memory after its first jobs, in KiB.
const GROWTH: i64 = 512;

/// How far it is, and how far it may go.
#[derive(Default)]
struct Course {
    beats: u64,
    done: u64,
    given: u64,
    open: BTreeSet<String>,
    beats_wanted: u64,
    jobs_wanted: u64,
}

impl Course {
    /// A few jobs at a time, spread over the heartbeats.
    fn offer(&mut self) -> Value {
        self.beats += 1;
        let due = self.jobs_wanted.min(self.jobs_wanted * self.beats / self.beats_wanted.max(1));
        while self.given < due && self.open.len() < 4 {
            self.open.insert(format!("job-{}", self.given));
            self.given += 1;
        }
        let jobs: Vec<Value> = self.open.iter().map(|id| short(id)).collect();
        json!({"success": true, "pendingJobs": jobs})
    }

    fn complete(&mut self, id: &str) {
        self.done += u64::from(self.open.remove(id));
    }

    fn is_over(&self) -> bool {
        self.beats >= self.beats_wanted && self.done >= self.jobs_wanted
    }
}

/// What the agent has while nothing runs.
#[derive(Debug, PartialEq)]
struct Size {
    threads: usize,
    /// But for connections, which come and go.
    files: usize,
}

fn size(worker: &Program) -> Size {
    let proc = |name| fs::read_dir(format!("/proc/{}/{name}", worker.pid())).unwrap().flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let files =
        proc("fd").filter_map(target).filter(|to| !to.to_string_lossy().starts_with("socket:"));
    Size { threads: proc("task").count(), files: files.count() }
}

/// In KiB: what is nobody else's, and no part of the binary.
fn memory(worker: &Program) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Leads the course to its end, and forgets what was asked on the way.
fn run(backend: &Backend, course: &Mutex<Course>, beats: u64, jobs: u64) {
    {
        let mut course = course.lock().unwrap();
        (course.beats_wanted, course.jobs_wanted) = (beats, jobs);
    }
    while !course.lock().unwrap().is_over() {
        let over = || course.lock().unwrap().is_over();
        backend.wait("more", |seen| (seen.len() > 100 || over()).then_some(()));
        backend.forget();
    }
    backend.wait_beats(5);
}

#[test]
fn many_beats_and_jobs_leave_the_agent_as_large_as_it_was() {
    let (beats, jobs) = (number("WORKER_SOAK_BEATS", 300), number("WORKER_SOAK_JOBS", 50));
    let (home, backend) = (Home::new(), Backend::start());
    let course = Arc::new(Mutex::new(Course::default()));
    let ours = Arc::clone(&course);
    backend.answer(BEAT, move |_| Some(Reply::json(200, ours.lock().unwrap().offer().to_string())));
    let ours = Arc::clone(&course);
    backend.answer(COMPLETE, move |seen| {
        let id = seen.last()?.call.split('/').nth(3)?.to_owned();
        ours.lock().unwrap().complete(&id);
        None
    });
    let began = Instant::now();
    let mut worker = home.worker(&backend.url(), &["--heartbeat-interval", "10ms", "--slots", "2"]);
    run(&backend, &course, beats / 5, jobs / 5);
    let (before, memory_before) = (size(&worker), memory(&worker));
    run(&backend, &course, beats, jobs);
    // A thread that has done its work takes a moment to end.
    let until = Instant::now() + BOUND;
    while size(&worker) != before {
        assert!(Instant::now() < until, "{:?}, and {before:?} at first", size(&worker));
        backend.wait_beats(1);
    }
    let (memory_after, took) = (memory(&worker), Duration::from_secs(began.elapsed().as_secs()));
    let growth = memory_after - memory_before;
    let (beats, done) = {
        let course = course.lock().unwrap();
        (course.beats, course.done)
    };
    println!(
        "soak: {beats} heartbeats, {done} jobs in {took:?}: {before:?}, {memory_before} KiB after a fifth, \
         {memory_after} KiB in the end: grown by {growth} KiB"
    );
    assert!(growth <= GROWTH, "the agent grew by {growth} KiB");
    worker.stop();
    assert_eq!(home.ledger().len() as u64, jobs);
}
