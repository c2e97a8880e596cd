//! Files of the state directory damaged in every way, or replaced by what is no file: each is recovered from or ends
//! with 4, and nothing stalls, panics, or takes memory.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::{Backend, Home, Program, WORKER, endless, run, short};

/// What may become of a file.
const DAMAGES: [&str; 11] = [
    "cut",
    "flipped",
    "emptied",
    "removed",
    "newer",
    "folder",
    "link",
    "pipe",
    "device",
    "unreadable",
    "huge",
];

const FILES: [&str; 11] = [
    "lock",
    "reserve",
    "worker-id",
    "ledger.jsonl",
    "ledger.1.jsonl",
    "status.json",
    "speed.json",
    "pause.json",
    "record.json",
    "id.json",
    "log",
];

/// What people type who look at it.
const LOOKS: [&[&str]; 5] = [
    &["jobs"],
    &["earnings"],
    &["status"],
    &["logs", "job-1"],
    &["doctor", "--backend", "http://127.0.0.1:9"],
];

/// Not enough for what reads a huge file as a whole.
const MEMORY: &str = "ulimit -v 4000000; exec \"$0\" \"$@\"";

/// A state with everything in it: a job that was delivered, one that was cut short, and a pause.
fn template() -> Home {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-0"), endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--slots", "2", "--worker-id", "rig-1"]);
    backend.wait_for("POST /api/jobs/job-0/complete", 1);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    backend.wait_beats(2);
    worker.kill();
    let state = home.path("state");
    assert_eq!(run(&["pause", "--for", "1h", "--state-dir", &state]).0, 0);
    fs::copy(home.path("state/ledger.jsonl"), home.path("state/ledger.1.jsonl")).unwrap();
    home.file("state/worker-id", "rig-1", 0o600);
    home
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Where the file is; those of a job are of the one that was cut short.
fn place(state: &Path, file: &str) -> PathBuf {
    let open = |job: &PathBuf| {
        let record = fs::read_to_string(job.join("record.json")).unwrap();
        record.contains(r#""id":"job-1""#)
    };
    let mut jobs = fs::read_dir(state.join("jobs")).unwrap().map(|job| job.unwrap().path());
    let job = jobs.find(open).unwrap();
    match file {
        "record.json" | "id.json" => job.join(file),
        "log" => state.join("logs").join(job.file_name().unwrap()).with_extension("log"),
        _ => state.join(file),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test plays the disk, which damages as it likes")]
fn damage(path: &Path, how: &str) {
    let whole = fs::read(path).unwrap_or_default();
    fs::remove_file(path).ok();
    match how {
        "cut" => fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        "flipped" => {
            fs::write(path, whole.iter().map(|byte| byte ^ 0x20).collect::<Vec<_>>()).unwrap();
        }
        "emptied" => fs::write(path, "").unwrap(),
        "removed" => {}
        "newer" => {
            let text = String::from_utf8_lossy(&whole).replace("\"format\":1", "\"format\":99");
            fs::write(path, text).unwrap();
        }
        "folder" => fs::create_dir(path).unwrap(),
        "link" => symlink("/etc/passwd", path).unwrap(),
        "pipe" => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        // Only root can make one.
        "device" if rustix::process::geteuid().is_root() => {
            mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5))
                .unwrap();
        }
        "device" => {}
        "unreadable" => {
            fs::write(path, whole).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap();
        }
        "huge" => File::create(path).unwrap().set_len(3 << 30).unwrap(),
        other => panic!("{other} is no damage"),
    }
}

fn ends(args: &[&str], what: &str, may_end: &[i32]) -> String {
    let mut program = Program::start_at("/bin/sh", &[&["-c", MEMORY, WORKER], args].concat(), &[]);
    let code = program.wait();
    let log = program.log();
    assert!(
        may_end.contains(&code) && !log.contains("panicked"),
        "{what}: {args:?} ended with {code}: {log}"
    );
    log
}

fn start(state: &str, backend: &Backend, what: &str) {
    let url = backend.url();
    let args =
        ["run", "--backend", &url, "--state-dir", state, "--min-free", "0", "--worker-id", "rig-1"];
    let mut worker =
        Program::start_at("/bin/sh", &[["-c", MEMORY, WORKER].as_slice(), &args].concat(), &[]);
    let is_up = worker.wait_said("an end or a registration", |lines| {
        let said = |words: &str| lines.iter().any(|(_, line)| line.contains(words));
        if said("registered") { Some(true) } else { said("worker: ").then_some(false) }
    });
    if is_up {
        worker.signal(Signal::QUIT);
    }
    let code = worker.wait();
    let log = worker.log();
    assert_eq!(code, if is_up { 0 } else { 4 }, "{what}: {log}");
    assert!(!log.contains("panicked"), "{what}: {log}");
}

#[test]
fn no_damaged_file_stalls_a_start_or_a_command_or_makes_it_panic() {
    let (template, backend) = (template(), Backend::start());
    let cases: Vec<(&str, &str)> =
        FILES.iter().flat_map(|file| DAMAGES.iter().map(move |how| (*file, *how))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((file, how)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let what = format!("{file} {how}");
            let home = Home::unmeasured();
            let state = home.path("state");
            copy(Path::new(&template.path("state")), Path::new(&state));
            damage(&place(Path::new(&state), file), how);
            for look in LOOKS {
                // Told, nothing there, 2 for a job that is not known, 4 for what cannot be read, 6 for no agent.
                ends(&[look, &["--state-dir", &state]].concat(), &what, &[0, 1, 2, 4, 6]);
            }
            start(&state, &backend, &what);
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            thread::Builder::new().name("damage".to_owned()).spawn_scoped(scope, work).unwrap();
        }
    });
}
