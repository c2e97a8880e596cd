//! A small disk of a test's own: a tmpfs in a mount namespace, for which whoever is not root becomes it in
//! a namespace of users; and a worker that is bound by permissions even if root runs the tests.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use rustix::process::geteuid;

use super::{Home, Program};

const PATH: (&str, &str) = ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");

/// A disk that is the state directory of the workers started on it.
pub(crate) struct Disk {
    home: Home,
    /// Keeps the disk mounted.
    holder: Program,
}

impl Disk {
    pub(crate) fn of(megabytes: u32) -> Self {
        let home = Home::new();
        let (state, speed) = (home.path("state"), home.path("speed.json"));
        // The measured speed moves along.
        let script = format!(
            "cp {state}/speed.json {speed} && mount -t tmpfs -o size={megabytes}m,mode=700 none {state} \
             && cp {speed} {state} && echo mounted && exec tail -f /dev/null"
        );
        let how = if geteuid().is_root() { "-m" } else { "-rm" };
        let holder = Program::start_at("unshare", &[how, "sh", "-c", &script], &[PATH]);
        holder.wait_line(super::Stream::Out, "mounted");
        Self { home, holder }
    }

    pub(crate) fn worker(&self, url: &str, more: &[&str]) -> Program {
        let pid = self.holder.pid().to_string();
        let as_root = ["-t", &pid, "-m"];
        let as_user = ["-t", &pid, "-m", "-U", "--preserve-credentials"];
        let within = if geteuid().is_root() { &as_root[..] } else { &as_user };
        self.home.worker_within(("nsenter", within), url, more)
    }

    /// The state directory, as it is seen from outside.
    pub(crate) fn state(&self) -> PathBuf {
        let path = format!("/proc/{}/root{}", self.holder.pid(), self.home.path("state"));
        PathBuf::from(path)
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) {
        let mut filler = fs::File::create(self.state().join("filler")).unwrap();
        let mut block = vec![0; 64 << 10];
        while !block.is_empty() {
            if filler.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    pub(crate) fn clear(&self) {
        fs::remove_file(self.state().join("filler")).unwrap();
    }

    pub(crate) fn ledger(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.state().join("ledger.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Home {
    /// A worker that root's power over permissions does not help.
    pub(crate) fn worker_without_power(&self, url: &str, more: &[&str]) -> Program {
        self.worker_within(("unshare", &["-U"]), url, more)
    }

    fn worker_within(&self, (tool, args): (&str, &[&str]), url: &str, more: &[&str]) -> Program {
        let run = self.run_args(url, more);
        let run = run.iter().map(String::as_str);
        let worker = env!("CARGO_BIN_EXE_worker");
        let args: Vec<&str> = args.iter().copied().chain([worker]).chain(run).collect();
        Program::start_at(tool, &args, &[PATH])
    }
}
