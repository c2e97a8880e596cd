//! Scripts that want more disk than they may have, and hide what they have of it.

use serde_json::{Value, json};

use super::reason;
use crate::support::{Disk, Host, script};

/// Writes 640 MiB, and says so if it can; what `write` does with the next file, or to it, is each attack's
/// own. It goes on slowly enough that what it has can be seen before it has all.
const FLOOD: &str = "
import array, os, socket, time
block = b'x' * (1 << 20)
def flood(write, count=640):
    for n in range(count):
        write(n)
        time.sleep(0.02)
    time.sleep(1000)
def put(file):
    os.write(file, block)
def create(n):
    return os.open(str(n), os.O_RDWR | os.O_CREAT)
def made(n):
    file = create(n)
    put(file)
    return file
";

const PLAIN: &str = "
flood(lambda n: os.close(made(n)))
";

/// Whose path is longer than the kernel takes.
const BEHIND_A_LONG_PATH: &str = "
for _ in range(30):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
flood(lambda n: os.close(made(n)))
";

const IN_A_LOCKED_FOLDER: &str = "
os.mkdir('a')
os.mkdir('a/b')
files = [create(f'a/b/{n}') for n in range(640)]
os.chmod('a/b', 0)
os.chmod('a', 0o400)
flood(lambda n: put(files[n]))
";

const IN_FILES_WITHOUT_A_NAME: &str = "
held = []
def write(n):
    held.append(made(n))
    os.unlink(str(n))
flood(write)
";

/// Neither open nor in any folder. Python's own `mmap` keeps them open.
const IN_MAPPED_FILES: &str = "
from ctypes import CDLL, c_int, c_long, c_size_t, c_void_p
libc = CDLL(None)
libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
libc.mmap.restype = c_void_p
def write(n):
    file = made(n)
    assert libc.mmap(None, 1 << 20, 3, 1, file, 0) != 2 ** 64 - 1
    os.close(file)
    os.unlink(str(n))
flood(write)
";

/// On their way through a socket.
const IN_FLIGHT: &str = "
near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
near.setblocking(False)
ends = []
def write(n):
    global near, far
    file = made(n)
    os.unlink(str(n))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [file]))]
    try:
        near.sendmsg([b'x'], rights)
    except BlockingIOError:
        ends.append((near, far))
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        near.sendmsg([b'x'], rights)
    os.close(file)
flood(write)
";

const DEEP: &str = "
for _ in range(200000):
    os.mkdir('d')
    os.chdir('d')
time.sleep(1000)
";

/// Stays below every limit, and goes on for longer than a greedy one beside it can.
const MODEST: &str = "
os.chdir('/tmp')
for n in range(10):
    os.close(made(n))
print('{\"progress\": 50}')
time.sleep(15)
print('{\"result\": {\"wrote\": 10}}')
";

/// Many names and holes, which take no room; and a hole that is larger than a file may be.
const NOTHING_MUCH: &str = "
import json
os.chdir('/tmp')
for n in range(3):
    os.close(create(f'f{n}'))
    for m in range(10000):
        os.link(f'f{n}', f'{n}-{m}')
for n in range(3):
    os.ftruncate(create(n), 40 << 20)
try:
    os.ftruncate(create(3), 3 << 30)
    told = 0
except OSError as error:
    told = error.errno
time.sleep(3)
print(json.dumps({'result': {'told': told}}))
";

fn attack(text: &str) -> Value {
    let mut job = script("python3", &[FLOOD, text].concat());
    job["timeoutSeconds"] = json!(50);
    job
}

#[track_caller]
fn is_killed(host: &Host, text: &str, told: &str) {
    let failed = host.run(&attack(text));
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(error.starts_with(told), "{text}: {failed:#}");
    let details = [reason(&failed), failed["errorDetails"]["blame"].as_str().unwrap()];
    assert_eq!(details, ["killed_signal", "job"], "{text}");
}

const OVER: &str = "killed: disk limit of 50 MiB, 200000 files, 128 folders deep";
const LOW: &str = "killed: the worker's disk ran low: ";

fn no_more_is_had_than_the_limit(mut host: Host) {
    for text in [PLAIN, BEHIND_A_LONG_PATH, IN_A_LOCKED_FOLDER, IN_FILES_WITHOUT_A_NAME, DEEP] {
        is_killed(&host, text, OVER);
    }
    host.goes_on();
}

#[test]
fn no_way_to_hide_leads_beyond_the_limit() {
    no_more_is_had_than_the_limit(Host::start(&["--limit-disk", "50MiB"]));
}

#[test]
fn no_way_to_hide_from_an_ordinary_users_worker_leads_beyond_the_limit() {
    no_more_is_had_than_the_limit(Host::start_as_user(&["--limit-disk", "50MiB"]));
}

#[test]
fn what_cannot_be_counted_ends_where_the_disk_is_to_stay_free() {
    let disk = Disk::of(192);
    let mut host = Host::on(&disk, &["--min-free", "96MiB", "--limit-disk", "50MiB"]);
    for text in [IN_MAPPED_FILES, IN_FLIGHT] {
        is_killed(&host, text, LOW);
    }
    // That a file is too large.
    assert_eq!(host.result(&attack(NOTHING_MUCH))["told"], 27);
    host.goes_on();
}

#[test]
fn a_job_gets_what_is_free_above_what_is_to_stay_so_and_no_more() {
    let disk = Disk::of(192);
    let mut host = Host::on(&disk, &["--min-free", "96MiB"]);
    let ask = "import json, resource\n\
               print(json.dumps({'result': {'most': resource.getrlimit(resource.RLIMIT_FSIZE)[0]}}))";
    let most = host.result(&script("python3", ask))["most"].as_u64().unwrap();
    assert!((64 << 20..96 << 20).contains(&most), "{most}");
    is_killed(&host, PLAIN, LOW);
    host.goes_on();
}

#[test]
fn of_several_jobs_the_one_with_the_most_goes_and_the_others_stay() {
    let disk = Disk::of(256);
    let host = Host::on(&disk, &["--min-free", "96MiB", "--slots", "2"]);
    let modest = host.offer(&attack(MODEST));
    host.backend.wait_for(&format!("POST /api/jobs/{modest}/progress"), 1);
    is_killed(&host, PLAIN, LOW);
    assert_eq!(host.completion(&modest)["result"]["wrote"], 10);
}

#[test]
fn a_script_that_fills_the_disk_fails_by_its_own_fault() {
    let disk = Disk::of(32);
    let mut host = Host::on(&disk, &[]);
    let failed = host.run(&script("bash", "for n in 1 2 3; do cat /dev/zero >$n; done; exit 1"));
    assert_eq!(failed["errorDetails"]["blame"], "job", "{failed:#}");
    host.goes_on();
}

#[test]
fn a_job_that_comes_to_a_full_disk_waits_until_there_is_room() {
    let disk = Disk::of(32);
    let mut host = Host::on(&disk, &["--min-free", "8MiB"]);
    disk.fill();
    // The room is looked at before a beat, and the first of these may have begun before.
    host.backend.wait_beats(2);
    let id = host.offer(&script("bash", "echo fine"));
    let beat = host.backend.wait_beats(2).body;
    assert_eq!(beat["pausedReason"], "less than 8 MiB free on the disk of its state");
    assert_eq!(host.backend.requests("POST /api/jobs/*/progress").len(), 0);
    disk.clear();
    assert_eq!(host.completion(&id)["status"], "completed");
    host.goes_on();
}
