//! What the tests share: a scripted backend, the embedded one, the worker itself, and its folder.

mod backend;
mod disk;
mod driver;
mod host;
mod market;
mod mock;
mod program;
mod proxy;
mod storage;

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use backend::{Backend, Reply, Request, Reserved, open_jobs};
pub(crate) use disk::Disk;
pub(crate) use driver::Driver;
pub(crate) use host::{Host, SCRIPTS, USER, script};
pub(crate) use market::{Fault, Market};
pub(crate) use mock::Mock;
pub(crate) use program::{Program, Stream, WORKER, run};
pub(crate) use proxy::{Fault as LineFault, Proxy};
pub(crate) use storage::{Storage, Stored, tls_config};

/// How long anything may take before a test gives it up. Never how long anything should take.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A folder of a test's own.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// A folder whose state knows the machine's speed already: nothing is measured beside the tests,
    /// and nobody registers again with what came out.
    pub(crate) fn new() -> Self {
        static SPECS: LazyLock<Value> = LazyLock::new(|| {
            let home = Home::unmeasured();
            let (_, specs, _) = run(&["specs", "--state-dir", &home.path("state")]);
            serde_json::from_str(&specs).unwrap()
        });
        let home = Self::unmeasured();
        DirBuilder::new().mode(0o700).create(home.path("state")).unwrap();
        let (model, cores) = (&SPECS["specs"]["cpu_model"], &SPECS["specs"]["cpu_cores"]);
        let measured = json!({"gflops": 812.4, "cpuShare": 1.0, "seconds": 3.0, "threads": cores,
                              "vectors": "AVX2"});
        let speed =
            json!({"measured": measured, "cpuModel": model, "cpuCores": cores, "method": 1});
        home.file("state/speed.json", &json!({"format": 1, "speed": speed}).to_string(), 0o600);
        home
    }

    /// The state directory of a first start, which is not there yet.
    pub(crate) fn unmeasured() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path(name);
        File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn ledger(&self) -> Vec<Value> {
        let text = fs::read_to_string(PathBuf::from(self.path("state")).join("ledger.jsonl"));
        text.unwrap_or_default().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts `worker run` on this folder's state, with beats a second apart unless told otherwise.
    pub(crate) fn worker(&self, url: &str, more: &[&str]) -> Program {
        self.start(WORKER, url, more, &[])
    }

    pub(crate) fn worker_with(&self, url: &str, more: &[&str], env: &[(&str, &str)]) -> Program {
        self.start(WORKER, url, more, env)
    }

    /// Another file than the one that all tests share.
    pub(crate) fn worker_at(&self, binary: &str, url: &str, more: &[&str]) -> Program {
        self.start(binary, url, more, &[])
    }

    /// Another user's worker, of whom this folder is then; only root can be another. It runs below the
    /// program of these words, if there are any.
    pub(crate) fn worker_of(&self, user: u32, below: &[&str], url: &str, more: &[&str]) -> Program {
        let binary = self.path("worker");
        fs::copy(WORKER, &binary).unwrap();
        for path in ["", "state", "state/speed.json", "worker"] {
            chown(self.path(path), Some(user), Some(user)).unwrap();
        }
        let become_user =
            [&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"];
        let become_user = become_user.map(str::to_owned).into_iter().chain(["--".into()]);
        let below = below.iter().map(|word| (*word).to_owned()).chain([binary]);
        let args: Vec<String> = become_user.chain(below).chain(self.run_args(url, more)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Program::start_at("/usr/bin/setpriv", &args, &[])
    }

    fn start(&self, binary: &str, url: &str, more: &[&str], env: &[(&str, &str)]) -> Program {
        let args = self.run_args(url, more);
        Program::start_at(binary, &args.iter().map(String::as_str).collect::<Vec<_>>(), env)
    }

    fn run_args(&self, url: &str, more: &[&str]) -> Vec<String> {
        let state = self.path("state");
        let mut args = vec!["run", "--backend", url, "--state-dir", &state];
        if !more.contains(&"--heartbeat-interval") {
            args.extend(["--heartbeat-interval", "1s"]);
        }
        if !more.contains(&"--min-free") {
            args.extend(["--min-free", "0"]);
        }
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Home {
    /// The control groups of a worker that was killed are for the next one to remove, which never comes.
    fn drop(&mut self) {
        let Ok(state) = fs::metadata(self.path("state")) else { return };
        let prefix = format!("qubix-worker-{:x}-{:x}-", state.dev(), state.ino());
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for line in ours.lines() {
            let Some((controllers, group)) = line.split_once(':').and_then(|l| l.1.split_once(':'))
            else {
                continue;
            };
            let parent = format!("/sys/fs/cgroup/{controllers}{group}");
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    fs::remove_dir(entry.path()).ok();
                }
            }
        }
    }
}

/// A compute job as the documentation shows one.
pub(crate) fn job(id: &str, kernel: &str, amount: f64) -> Value {
    json!({"id": id, "modelType": "compute", "computeNeeded": amount,
           "inputData": {"kernel": kernel, "seed": 1}})
}

/// A job of about ten milliseconds.
pub(crate) fn short(id: &str) -> Value {
    job(id, "primes", 0.0001)
}

/// A job that no test lives to see the end of.
pub(crate) fn endless(id: &str) -> Value {
    job(id, "matmul", 1000.0)
}

/// How much of it: what the variable says, so that the same test has a longer form.
#[expect(clippy::disallowed_methods, reason = "how long it takes is for whoever runs it to say")]
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The names in an object, sorted.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Whether there is a `null` anywhere in it.
pub(crate) fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
