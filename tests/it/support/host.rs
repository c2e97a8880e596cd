//! A worker that takes other people's programs, and a backend that gives it one after the other.

use std::cell::Cell;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::{BOUND, Backend, Disk, Home, Program};

/// Somebody without any right, whom nobody else is.
pub(crate) const USER: u32 = 54_321;

/// What lets a worker run scripts, also where a test can make no control groups: as an ordinary user. Where
/// there are some, they limit them all the same.
pub(crate) const SCRIPTS: [&str; 3] = ["--allow", "script", "--limits-by-polling"];

/// A worker that is allowed to run scripts.
pub(crate) struct Host {
    pub(crate) home: Home,
    pub(crate) backend: Backend,
    pub(crate) worker: Program,
    next: Cell<usize>,
}

/// A job for an interpreter.
pub(crate) fn script(interpreter: &str, text: &str) -> Value {
    json!({"jobType": "script", "inputData": {"script": text, "interpreter": interpreter}})
}

impl Host {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_by(more, Home::worker)
    }

    /// A worker of these arguments alone, in this environment.
    pub(crate) fn of(args: &[&str], env: &[(&str, &str)]) -> Self {
        let (home, backend) = (Home::new(), Backend::start());
        let worker = home.worker_with(&backend.url(), args, env);
        worker.wait_log("registered");
        Self { home, backend, worker, next: Cell::new(1) }
    }

    /// The same of an ordinary user, whoever runs the tests.
    pub(crate) fn start_as_user(more: &[&str]) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let as_user = |home: &Home, url: &str, more: &[&str]| home.worker_of(USER, &[], url, more);
        Self::start_by(more, if is_root { as_user } else { Home::worker })
    }

    /// A worker whose state is on that disk.
    pub(crate) fn on(disk: &Disk, more: &[&str]) -> Self {
        let backend = Backend::start();
        let worker = disk.worker(&backend.url(), &[&SCRIPTS[..], more].concat());
        worker.wait_log("registered");
        Self { home: Home::new(), backend, worker, next: Cell::new(1) }
    }

    fn start_by(more: &[&str], start: fn(&Home, &str, &[&str]) -> Program) -> Self {
        Self::start_with(&[&SCRIPTS[..], more].concat(), start)
    }

    /// A worker whose scripts are limited by control groups. Nothing where it can make none: there it has to
    /// say so, and not to offer the kind. `tests/run` says where it can, and there it must.
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    pub(crate) fn start_limited(more: &[&str]) -> Option<Self> {
        let host = Self::start_with(&[&SCRIPTS[..2], more].concat(), Home::worker);
        let registered = host.backend.wait_for("POST /api/providers/register", 1).body;
        let kinds = registered["specs"]["job_kinds"].as_array().unwrap();
        if kinds.contains(&json!("script")) {
            return Some(host);
        }
        host.worker.wait_log("the memory of scripts cannot be limited");
        assert!(std::env::var_os("WORKER_TEST_GROUPS").is_none(), "there are control groups");
        None
    }

    fn start_with(args: &[&str], start: fn(&Home, &str, &[&str]) -> Program) -> Self {
        let (home, backend) = (Home::new(), Backend::start());
        let worker = start(&home, &backend.url(), args);
        worker.wait_log("registered");
        Self { home, backend, worker, next: Cell::new(1) }
    }

    /// Offers the job under the next id, and does not wait for it.
    pub(crate) fn offer(&self, job: &Value) -> String {
        let id = format!("job-{}", self.next.get());
        self.next.set(self.next.get() + 1);
        let mut job = job.clone();
        job["id"] = json!(id);
        self.backend.offer(&[job]);
        id
    }

    /// The completion of a job.
    pub(crate) fn completion(&self, id: &str) -> Value {
        self.backend.wait_for(&format!("POST /api/jobs/{id}/complete"), 1).body
    }

    /// Has a job done, and returns its completion.
    pub(crate) fn run(&self, job: &Value) -> Value {
        self.completion(&self.offer(job))
    }

    /// Has the jobs done, all offered at once, and returns their completions.
    pub(crate) fn run_all(&self, jobs: &[Value]) -> Vec<Value> {
        let name = |job: &Value| {
            let id = format!("job-{}", self.next.replace(self.next.get() + 1));
            let mut job = job.clone();
            job["id"] = json!(id);
            (id, job)
        };
        let (ids, jobs): (Vec<String>, Vec<Value>) = jobs.iter().map(name).unzip();
        self.backend.offer(&jobs);
        ids.iter().map(|id| self.completion(id)).collect()
    }

    /// What a script printed as its result, for which it must end well.
    #[track_caller]
    pub(crate) fn result(&self, job: &Value) -> Value {
        let completion = self.run(job);
        assert_eq!(completion["status"], "completed", "{completion:#}");
        completion["result"].clone()
    }

    /// What its jobs left is gone.
    pub(crate) fn wait_for_clean_up(&self) {
        let until = Instant::now() + BOUND;
        let left = || fs::read_dir(self.home.path("state/trash")).unwrap().count();
        while left() > 0 {
            assert!(Instant::now() < until, "{} folders are left", left());
            self.backend.wait_beats(1);
        }
    }

    /// The worker is there, takes the next job and does it.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        assert!(self.worker.is_running(), "the worker has ended");
        let result = self.result(&script("bash", r#"echo '{"result": {"went": "on"}}'"#));
        assert_eq!(result["went"], "on");
    }
}
