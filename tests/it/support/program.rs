//! The real binary, started with nothing in its environment; all it prints is kept, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::BOUND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// The binary under test.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// A running worker. Dropping it kills its group, and shows its log if the test has failed.
pub(crate) struct Program {
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<(Stream, String)>>,
    more: Condvar,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at(WORKER, args, &[])
    }

    pub(crate) fn start_at(binary: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary)
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let said = Arc::new(Said::default());
        let out = keep(Stream::Out, child.stdout.take().unwrap(), &said);
        let err = keep(Stream::Err, child.stderr.take().unwrap(), &said);
        Self { child, said, readers: vec![out, err] }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has held at once, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The processes that any of its threads has started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let threads = format!("/proc/{}/task", self.pid());
        let own = format!("{threads}/{}/children", self.pid());
        assert!(fs::exists(own).unwrap(), "the kernel tells of children");
        let threads = fs::read_dir(threads).unwrap();
        let children = threads.map(|thread| thread.unwrap().path().join("children"));
        // A thread may have ended since.
        let children = children.filter_map(|path| fs::read_to_string(path).ok());
        let children = children.collect::<String>();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end and all that was printed before it. Returns the exit code, or minus the
    /// signal that killed it.
    pub(crate) fn wait(&mut self) -> i32 {
        self.wait_within(BOUND)
    }

    /// The same, of one that does several things in turn.
    pub(crate) fn wait_within(&mut self, bound: Duration) -> i32 {
        assert!(self.ends_within(bound), "the worker did not end within {bound:?}");
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Whether it ends by itself before so much time has passed.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let time = Timespec::try_from(time).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)).unwrap() == 1
    }

    /// Asks it to stop, and expects it to do so in peace.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait(), 0, "a worker that is asked to stop ends with 0");
    }

    /// Kills it as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait(), -9);
    }

    pub(crate) fn text(&self, stream: Stream) -> String {
        let lines = self.said.lines.lock().unwrap();
        lines
            .iter()
            .filter(|(from, _)| *from == stream)
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }

    pub(crate) fn log(&self) -> String {
        self.text(Stream::Err)
    }

    /// How many lines of the log hold these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    /// Waits, for one after the other, until so many lines of the log hold these words.
    pub(crate) fn wait_count(&self, words: &str, count: usize) {
        for count in 1..=count {
            self.wait_said(&format!("{count} lines with {words:?}"), |lines| {
                let found = lines.iter().filter(|(_, line)| line.contains(words)).count();
                (found >= count).then_some(())
            });
        }
    }

    /// Waits for a line that holds these words.
    pub(crate) fn wait_line(&self, stream: Stream, words: &str) -> String {
        self.wait_said(&format!("a line with {words:?}"), |lines| {
            let found = lines.iter().find(|(from, line)| *from == stream && line.contains(words));
            found.map(|(_, line)| line.clone())
        })
    }

    pub(crate) fn wait_log(&self, words: &str) -> String {
        self.wait_line(Stream::Err, words)
    }

    /// Waits until what was printed so far satisfies the condition, and returns what it found.
    pub(crate) fn wait_said<T>(
        &self,
        what: &str,
        find: impl Fn(&[(Stream, String)]) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + BOUND;
        let mut lines = self.said.lines.lock().unwrap();
        loop {
            if let Some(found) = find(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Or the drop, which shows the log, could not read it and would end all tests.
                drop(lines);
                panic!("waited {BOUND:?} in vain for {what}");
            }
            lines = self.said.more.wait_timeout(lines, left).unwrap().0;
        }
    }
}

impl Drop for Program {
    #[expect(clippy::print_stderr, reason = "the harness shows it with the test that failed")]
    fn drop(&mut self) {
        if !self.readers.is_empty() {
            // It may have ended by itself; jobs end with their agent.
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
            self.child.wait().ok();
            for reader in self.readers.drain(..) {
                reader.join().ok();
            }
        }
        if thread::panicking() {
            let (pid, out) = (self.pid(), self.text(Stream::Out));
            eprintln!("---- worker {pid} printed:\n{out}---- and logged:\n{}----", self.log());
        }
    }
}

fn keep(stream: Stream, from: impl Read + Send + 'static, said: &Arc<Said>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    let read = move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            said.lines.lock().unwrap().push((stream, line));
            said.more.notify_all();
        }
    };
    thread::Builder::new().name(format!("{stream:?}")).spawn(read).unwrap()
}

/// Runs the worker to its end. Returns its exit code, what it printed, and what it logged.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    let mut program = Program::start(args);
    let code = program.wait();
    (code, program.text(Stream::Out), program.log())
}
