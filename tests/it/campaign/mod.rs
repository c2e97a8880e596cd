//! The agent is killed, at any moment and at each named step, and nothing is lost, doubled or run twice.
//!
//! What is looked at: every request that the backend saw, the ledger, the records as each kill left
//! them, and the processes. That a program was run is seen by its progress, whose first report leaves
//! with its start, and by a record that says `running`; one that was killed before either was seen at
//! the backend leaves only the record.

#[cfg(feature = "crash-points")]
mod points;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::support::{BOUND, Home, Market, Program, Request};

/// A worker's folder, its marketplace, and what its kills left.
struct Campaign {
    home: Home,
    market: Market,
    /// When each life of the agent began.
    lives: Vec<String>,
    /// The attempts whose programs had been let go, for all that their records say, at a kill.
    cut_off: BTreeSet<(String, u64)>,
    kills: usize,
}

/// What a campaign found.
struct Summary {
    kills: usize,
    attempts: usize,
    duplicates: usize,
}

impl Campaign {
    fn new(jobs: Vec<Value>) -> Self {
        let market = Market::new(jobs);
        let (lives, cut_off) = (vec![], BTreeSet::new());
        Self { home: Home::new(), market, lives, cut_off, kills: 0 }
    }

    #[expect(clippy::disallowed_methods, reason = "by the clock that the agent reads too")]
    fn start(&mut self, env: &[(&str, &str)]) -> Program {
        self.lives.push(humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        let more = [
            "--worker-id",
            "rig-1",
            "--slots",
            "3",
            "--progress-interval",
            "1s",
            "--request-timeout",
            "1s",
        ];
        self.home.worker_with(&self.market.backend.url(), &more, env)
    }

    /// The agent has been killed: notes what it left. Returns its programs that live on.
    fn killed(&mut self) -> Vec<OwnedFd> {
        self.kills += 1;
        for record in self.records() {
            let (id, attempt) = (&record["id"], &record["attempt"]);
            if record["phase"]["running"].is_object() {
                let attempt = (id.as_str().unwrap().to_owned(), attempt.as_u64().unwrap());
                self.cut_off.insert(attempt);
            }
        }
        self.programs()
    }

    fn records(&self) -> Vec<Value> {
        let jobs = fs::read_dir(self.home.path("state/jobs")).into_iter().flatten();
        let paths = jobs.map(|job| job.unwrap().path().join("record.json"));
        // A folder may have been made, and no record yet.
        let texts = paths.filter_map(|path| fs::read_to_string(path).ok());
        texts.map(|text| serde_json::from_str::<Value>(&text).unwrap()["record"].clone()).collect()
    }

    /// Every process that bears the mark of a job of this folder.
    fn programs(&self) -> Vec<OwnedFd> {
        let mark = format!("WORKER_MARK={}", self.home.path("state"));
        let marked = |pid: &Path| {
            // It may have ended since.
            let environ = fs::read(pid.join("environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
        };
        let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let pid = |path: &Path| path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw);
        let pids = all.filter_map(|path| pid(&path).filter(|_| marked(&path)));
        pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect()
    }

    /// All jobs come to their end in peace; then all is looked at.
    fn end(mut self) -> Summary {
        let mut worker = self.start(&[]);
        worker.wait_log("registered");
        self.market.wait_all_over();
        worker.stop();
        assert_all_end(&self.programs());
        self.judge()
    }

    fn judge(&self) -> Summary {
        let sent = self.market.backend.requests("POST /api/jobs/*/complete");
        let mut attempts: BTreeMap<(String, u64), Vec<&Request>> = BTreeMap::new();
        for request in &sent {
            attempts.entry(attempt_of(request)).or_default().push(request);
        }
        for (attempt, sends) in &attempts {
            let differing = sends.iter().filter(|send| send.body != sends[0].body).count();
            assert_eq!(differing, 0, "{attempt:?} was told in two ways: {sends:#?}");
        }
        self.judge_ledger(&attempts);
        self.judge_progress(&attempts);
        for attempt in &self.cut_off {
            if let Some([told, ..]) = attempts.get(attempt).map(Vec::as_slice) {
                assert_eq!(told.body["errorDetails"]["reason"], "lost", "{attempt:?}: {told:#?}");
            }
        }
        self.judge_folders();
        let (attempts, kills) = (attempts.len(), self.kills);
        Summary { kills, attempts, duplicates: sent.len() - attempts }
    }

    /// One line for each attempt, and none for any other.
    fn judge_ledger(&self, attempts: &BTreeMap<(String, u64), Vec<&Request>>) {
        let name = |line: &Value| {
            (line["id"].as_str().unwrap().to_owned(), line["attempt"].as_u64().unwrap())
        };
        let mut booked: Vec<(String, u64)> = self.home.ledger().iter().map(name).collect();
        booked.sort();
        assert_eq!(booked, attempts.keys().cloned().collect::<Vec<_>>(), "the ledger");
    }

    /// All progress of an attempt comes from one life of the agent, or it was run twice; and none is
    /// of a time after the job's last outcome. By the agent's own times, whatever came late.
    fn judge_progress(&self, attempts: &BTreeMap<(String, u64), Vec<&Request>>) {
        let mut lives: BTreeMap<(String, u64), BTreeSet<usize>> = BTreeMap::new();
        for report in self.market.backend.requests("POST /api/jobs/*/progress") {
            let (id, at) = (job_of(&report), report.body["timestamp"].as_str().unwrap());
            let of_job = attempts.iter().filter(|((job, _), _)| *job == id);
            let ends = |sends: &[&Request]| sends[0].body["timestamp"].as_str().unwrap() >= at;
            let attempt =
                of_job.filter(|(_, sends)| ends(sends)).map(|(attempt, _)| attempt).next();
            let attempt =
                attempt.unwrap_or_else(|| panic!("progress of a job that is over: {report:#?}"));
            let life = self.lives.iter().filter(|began| began.as_str() <= at).count();
            lives.entry(attempt.clone()).or_default().insert(life);
        }
        for (attempt, lives) in lives {
            assert_eq!(lives.len(), 1, "{attempt:?} was run in the lives {lives:?} of the agent");
        }
    }

    /// Nothing of what was half written is left, nor any job's work.
    fn judge_folders(&self) {
        for job in fs::read_dir(self.home.path("state/jobs")).unwrap() {
            let files = fs::read_dir(job.unwrap().path()).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let names: BTreeSet<String> = names.collect();
            assert_eq!(names, ["id.json", "record.json"].map(str::to_owned).into());
        }
    }
}

fn job_of(request: &Request) -> String {
    request.call.split('/').nth(3).unwrap().to_owned()
}

fn attempt_of(request: &Request) -> (String, u64) {
    let key = request.header("idempotency-key").unwrap();
    (job_of(request), key.rsplit(':').next().unwrap().parse().unwrap())
}

/// Waits for the end of these processes.
fn assert_all_end(programs: &[OwnedFd]) {
    let bound = Timespec::try_from(BOUND).unwrap();
    for program in programs {
        let ended = poll(&mut [PollFd::new(program, PollFlags::IN)], Some(&bound)).unwrap();
        assert_eq!(ended, 1, "a program outlives its agent");
    }
}
