//! Readers under fire: files of a corpus and what becomes of them by mutation, for a reader that must take any
//! bytes without a panic, without an end that never comes, and within a bound of memory.
//!
//! The attempts are made by a process of their own, which the kernel ends where a reader takes too much memory
//! or time, or overflows its stack; the input is in a file before it is tried, so that it is known then. An input
//! with an answer that none had before is mutated too: that leads deeper than chance alone.
//!
//! `WORKER_FUZZ_SECONDS=600 cargo test --release --lib fuzz_ -- --nocapture` takes that long for each reader;
//! Without `WORKER_FUZZ_SEED` the inputs are the same at every run.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::text;

/// The most memory that a reader may take, with all that a test needs by itself.
const MEMORY: u64 = 192 << 20;

/// How long one input may take, of a processor's time.
const HANGS: u64 = 60;

/// The longest input, and the most that are kept for their answers.
const LONGEST: usize = 64 << 10;
const KEPT: usize = 1000;

/// What the process that makes the attempts is told: the file for its inputs.
const CHILD: &str = "WORKER_FUZZ_INPUT";

/// Tries the reader of the test `fuzz_<target>` with the files in `tests/fuzz/corpus/<target>` and what becomes of
/// them. The attempt asserts what must hold, and returns what the reader answered. `words` are put into inputs.
pub(crate) fn run(target: &str, words: &[&str], attempt: impl Fn(&[u8]) -> String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut corpus = vec![];
    for entry in fs::read_dir(root.join("tests/fuzz/corpus").join(target)).expect("a corpus") {
        corpus.push(entry.expect("a file of the corpus").path());
    }
    corpus.sort();
    match setting(CHILD) {
        None => watch(target),
        Some(file) => attack(&corpus, words, &file, attempt),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is for whoever runs it to say")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| text.parse().expect("a number"))
}

/// Has a process make the attempts, and keeps the input that ended it.
fn watch(target: &str) {
    let input = tempfile::NamedTempFile::new().expect("a file for the inputs");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args([&format!("fuzz_{target}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, input.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let ended = child.and_then(std::process::Child::wait_with_output).expect("it can be run");
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if let Some(line) = said.lines().find(|line| line.starts_with("fuzz: ")) {
        println!("{target} {line}");
    }
    if !ended.status.success() {
        let kept = keep(target, input.path());
        panic!("{target}: {}, at the input in {}:\n{said}", ended.status, kept.display());
    }
    assert!(said.contains("1 passed"), "no test is called fuzz_{target}:\n{said}");
}

/// Beside what cargo builds; once it is mended it belongs to the corpus.
fn keep(target: &str, input: &Path) -> PathBuf {
    let bytes = fs::read(input).expect("the input can be read");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    fs::create_dir_all(&folder).expect("a folder below target");
    let kept = folder.join(format!("{target}-{:08x}", crc(&bytes)));
    File::create(&kept).and_then(|file| file.write_all_at(&bytes, 0)).expect("it can be kept");
    kept
}

/// Tells inputs apart, and answers.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn attack(corpus: &[PathBuf], words: &[&str], input: &str, attempt: impl Fn(&[u8]) -> String) {
    let seconds = number("WORKER_FUZZ_SECONDS").unwrap_or(1);
    let seed = number("WORKER_FUZZ_SEED").unwrap_or(1);
    println!("fuzz: WORKER_FUZZ_SEED={seed}");
    for (resource, most) in
        [(Resource::Data, MEMORY), (Resource::Cpu, seconds + HANGS), (Resource::Core, 0)]
    {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).expect("a limit");
    }
    let input = File::options().write(true).open(input).expect("the file for the inputs");
    let mut answers = HashSet::new();
    let mut try_one = |bytes: &[u8]| {
        input.set_len(0).and_then(|()| input.write_all_at(bytes, 0)).expect("it can be kept");
        answers.insert(crc(shape(&attempt(bytes)).as_bytes()))
    };
    let mut pool: Vec<Vec<u8>> =
        corpus.iter().map(|path| fs::read(path).expect("it is there")).collect();
    pool.iter().for_each(|bytes| {
        try_one(bytes);
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    let (until, mut tried) = (Instant::now() + Duration::from_secs(seconds), pool.len());
    while Instant::now() < until {
        let bytes = mutated(&pool, words, &mut rng);
        tried += 1;
        if try_one(&bytes) && pool.len() < KEPT {
            pool.push(bytes);
        }
    }
    println!("fuzz: WORKER_FUZZ_SEED={seed}, {tried} inputs, {} answers", answers.len());
}

/// An answer without what differs from input to input: numbers, and what it quotes.
fn shape(answer: &str) -> String {
    let mut quoted = false;
    let plain = |c: &char| {
        quoted ^= matches!(c, '"' | '`' | '\'');
        !quoted && !c.is_ascii_digit()
    };
    text::one_line(&answer.chars().filter(plain).collect::<String>(), 200)
}

fn mutated(pool: &[Vec<u8>], words: &[&str], rng: &mut fastrand::Rng) -> Vec<u8> {
    let pick = |rng: &mut fastrand::Rng| pool[rng.usize(..pool.len())].clone();
    let mut bytes = pick(rng);
    for _ in 0..=rng.u32(..6) {
        let (at, most) = (rng.usize(..=bytes.len()), 1 << rng.u32(..10));
        let end = at + rng.usize(..=(bytes.len() - at).min(most));
        match rng.u32(..9) {
            0 if end > at => bytes[at] ^= 1 << rng.u32(..8),
            1 if end > at => {
                bytes[at] = *rng.choice(&[0, 1, 0x20, 0x7f, 0x80, 0xff]).expect("some");
            }
            2 | 3 if !words.is_empty() => {
                let word = words[rng.usize(..words.len())].bytes();
                bytes.splice(at..if rng.bool() { at } else { end }, word);
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let most = if rng.u32(..8) == 0 { 12 } else { 3 };
                let times = 1 << rng.u32(..most);
                let again = bytes[at..end].repeat(times);
                bytes.splice(at..at, again);
            }
            6 => {
                let other = pick(rng);
                let from = rng.usize(..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            7 => extreme(&mut bytes[at..], rng),
            _ => bytes.truncate(at.max(end)),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Puts a number there that is at the edge of what its bytes hold, or near it.
fn extreme(bytes: &mut [u8], rng: &mut fastrand::Rng) {
    let (width, near) = (1 << rng.u32(..4), rng.u64(..3));
    let edges = [0, 1 << 7, 1 << 15, 1 << 31, 1 << 32, 1 << 63, bytes.len() as u64];
    let number = edges[rng.usize(..edges.len())].wrapping_add(near).wrapping_sub(1);
    let mut number = number.to_le_bytes();
    if rng.bool() {
        number[..width].reverse();
    }
    bytes.iter_mut().zip(&number[..width]).for_each(|(byte, new)| *byte = *new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(attempt: impl Fn(&[u8]) -> String) {
        if let Some(input) = setting(CHILD) {
            attack(
                &[Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")],
                &[],
                &input,
                attempt,
            );
        }
    }

    #[test]
    fn fuzz_panics() {
        child(|bytes| {
            str::from_utf8(&bytes[bytes.len() + 1..]).map(str::to_owned).unwrap_or_default()
        });
    }

    #[test]
    fn fuzz_hungers() {
        child(|bytes| vec![bytes.len(); 1 << 30].len().to_string());
    }

    #[test]
    fn fuzz_recurses() {
        fn deep(bytes: &[u8], depth: usize) -> usize {
            let copy = std::hint::black_box([depth; 100]);
            let further = depth < usize::MAX && !bytes.is_empty();
            copy[0]
                + if further { deep(std::hint::black_box(bytes), depth + 1) } else { 0 }
                + copy[99]
        }
        child(|bytes| deep(bytes, 0).to_string());
    }

    #[test]
    fn a_reader_that_goes_wrong_is_found_with_the_input() {
        for (target, how) in [("panics", "panicked"), ("hungers", "memory"), ("recurses", "stack")]
        {
            let found = std::panic::catch_unwind(|| watch(target)).expect_err("it goes wrong");
            let said = found.downcast_ref::<String>().expect("words");
            assert!(
                said.contains(how) && said.contains(&format!("target/fuzz/{target}-")),
                "{said}"
            );
        }
    }
}
