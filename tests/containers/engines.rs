//! The two engines, asked beside the worker, and a worker that uses one of them.

use std::process::Command;
use std::time::Instant;

use rustix::event::Timespec;

use serde_json::{Value, json};

use crate::support::{BOUND, Backend, Home, Program};

pub(crate) const ENGINES: [&str; 2] = ["podman", "docker"];

/// What the clients of the engines are told by the surrounding.
const ENV: [&str; 5] =
    ["PATH", "HOME", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "DOCKER_HOST"];

pub(crate) const COMPLETE: &str = "POST /api/jobs/*/complete";

/// A worker that runs containers by this engine, and its backend.
pub(crate) struct Place {
    pub(crate) engine: &'static str,
    pub(crate) home: Home,
    pub(crate) backend: Backend,
}

impl Place {
    pub(crate) fn new(engine: &'static str) -> Self {
        Self { engine, home: Home::new(), backend: Backend::start() }
    }

    pub(crate) fn worker(&self, more: &[&str]) -> Program {
        self.worker_by(more, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn worker_by(&self, more: &[&str], env: &[(&str, &str)]) -> Program {
        let mut args = vec!["--allow", "container", "--container-engine", self.engine];
        args.extend(["--progress-interval", "1s"]);
        if !more.contains(&"--container-pull") {
            args.extend(["--container-pull", "never"]);
        }
        args.extend(more);
        self.start(&args, env)
    }

    /// One that runs no containers unless told to.
    pub(crate) fn worker_with(&self, args: &[&str]) -> Program {
        self.start(args, &[])
    }

    fn start(&self, args: &[&str], more: &[(&str, &str)]) -> Program {
        let env = environment();
        let env =
            env.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied());
        self.home.worker_with(&self.backend.url(), args, &env.collect::<Vec<_>>())
    }

    /// Runs the job, and returns its completion.
    pub(crate) fn run(&self, job: &Value, more: &[&str]) -> Value {
        self.backend.offer(std::slice::from_ref(job));
        let mut worker = self.worker(more);
        let body = self.backend.wait_for(COMPLETE, 1).body;
        worker.stop();
        self.assert_nothing_left(&job["id"]);
        body
    }

    /// The names of this worker's containers of that job.
    pub(crate) fn containers(&self, id: &Value) -> Vec<String> {
        let filter = format!("--filter=label=qubix-worker.id={}", id.as_str().unwrap());
        let listed = ask(self.engine, &["ps", "--all", &filter, "--format={{.Names}}"]);
        listed.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, id: &Value) {
        assert_eq!(self.containers(id), [""; 0], "{}", self.engine);
        let state = self.home.path("state");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&state), "{mounts}");
        let jobs = std::fs::read_dir(format!("{state}/jobs")).unwrap();
        for job in jobs {
            let work = job.unwrap().path().join("work");
            assert!(!work.exists(), "{}", work.display());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the surrounding says where the engines are")]
pub(crate) fn environment() -> [(&'static str, String); 5] {
    ENV.map(|name| (name, std::env::var(name).unwrap_or_default()))
}

/// Runs the test with both engines.
pub(crate) fn with_both(test: impl Fn(&Place)) {
    for engine in ENGINES {
        eprintln!("with {engine}");
        test(&Place::new(engine));
    }
}

/// What an engine answers.
#[expect(
    clippy::disallowed_methods,
    reason = "a test asks an engine, which its surrounding bounds"
)]
pub(crate) fn ask(engine: &str, args: &[&str]) -> String {
    let output = Command::new(engine).args(args).output().unwrap();
    assert!(output.status.success(), "{engine} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A job for the shell of the image.
pub(crate) fn shell(id: &str, script: &str) -> Value {
    job(id, json!({"image": "localhost/busybox", "command": ["/bin/sh", "-c", script]}))
}

pub(crate) fn job(id: &str, input: Value) -> Value {
    json!({"id": id, "jobType": "container", "inputData": input})
}

/// The same job with more said about it.
pub(crate) fn with(mut job: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    job["inputData"].as_object_mut().unwrap().extend(more);
    job
}

/// Waits until it is so, which no test waits for longer than the bound.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
    }
}
