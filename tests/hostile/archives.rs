//! Archives that a job brings, and what its program leaves as outputs. Whatever they are, the job fails by its
//! own fault or does well: nothing is written elsewhere, and no pause follows.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{EntryType, Header};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::reason;
use crate::support::{Host, Storage, script};

/// What may come of an attack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum May {
    Complete,
    /// `bad_input`, by the job's fault.
    Fail,
    /// Either, or be killed: file systems differ.
    Any,
}
use May::{Any, Complete, Fail};

/// No file of this name may come to be anywhere but in a job's own folder.
const ESCAPED: &str = "escaped-from-an-archive";

#[test]
fn an_archive_is_laid_out_below_its_folder_or_refused() {
    let (mut host, storage) = (Host::start(&["--allow-private-downloads"]), Storage::http());
    let attacks = [tars(), packed_tars(), zips()].concat();
    let job = |n: usize, (_, kind, bytes, _): &Attack| {
        let url = storage.put(&format!("/{n}"), bytes);
        let mut job = script("bash", "true");
        job["inputData"]["inputs"] = json!([{"url": url, "path": "x", "unpack": kind}]);
        job
    };
    let jobs: Vec<Value> = attacks.iter().enumerate().map(|(n, attack)| job(n, attack)).collect();
    for ((what, _, _, may), told) in attacks.iter().zip(host.run_all(&jobs)) {
        assert_may(what, *may, &told);
    }
    host.goes_on();
    assert_nothing_escaped(&host);
    assert!(!host.worker.log().contains("fail here one after the other"));
}

#[test]
fn what_a_program_leaves_is_taken_or_refused() {
    let mut host = Host::start_as_user(&[]);
    let attacks = [
        (
            "a path longer than any",
            "python3",
            "import os\nfor _ in range(20):\n    os.mkdir('d' * 250)\n    os.chdir('d' * 250)\nopen('f', 'w').write('x')",
            Any,
        ),
        (
            "70 folders deep",
            "bash",
            "p=$(printf 'd/%.0s' {1..70}); mkdir -p $p; echo x > $p/f",
            Any,
        ),
        ("a file that nobody may read", "bash", "echo x > a; chmod 0 a", Any),
        ("a folder that nobody may enter", "bash", "mkdir a; echo x > a/b; chmod 0 a", Complete),
        ("an output folder that nobody may enter", "bash", "echo x > a; chmod 0 .", Any),
        ("two files with the same content", "bash", "echo x > a; echo x > b", Complete),
        ("1001 files", "bash", "for i in {1..1001}; do : > $i; done", Fail),
        (
            "20,001 folders",
            "python3",
            "import os\nfor n in range(20001):\n    os.mkdir(str(n))",
            Fail,
        ),
        ("a name that is no text", "bash", "echo x > $'\\xff\\xfe'", Complete),
        ("a name of lines", "bash", "echo x > $'a\\nb'", Complete),
        (
            "a pipe, a socket and a link",
            "bash",
            "mkfifo p; ln -s /etc l; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\"",
            Complete,
        ),
        ("a hole of 3 TiB", "bash", "truncate -s 3T a", Any),
        ("a result that is a pipe", "bash", "mkfifo result.json", Fail),
        ("a result that is a folder", "bash", "mkdir result.json", Fail),
        (
            "a result nested without end",
            "python3",
            "open('result.json', 'w').write('{\"a\":' + '[' * 100000)",
            Fail,
        ),
        (
            "a result of 9 MiB",
            "python3",
            "open('result.json', 'w').write('{\"a\":\"' + 'x' * (9 << 20) + '\"}')",
            Any,
        ),
        (
            "a file beside that is to be kept",
            "bash",
            "mkdir kept; echo x > kept/bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
            Complete,
        ),
    ];
    let jobs: Vec<Value> = attacks.iter().map(|(_, by, text, _)| script(by, text)).collect();
    for ((what, _, _, may), told) in attacks.iter().zip(host.run_all(&jobs)) {
        assert_may(what, *may, &told);
        assert!(!told.to_string().contains(&host.home.path("state")), "{what}: {told:#}");
    }
    host.goes_on();
    assert!(!host.worker.log().contains("fail here one after the other"));
}

#[test]
fn how_a_program_ends_and_what_it_asks_for_is_its_own_fault() {
    let mut host = Host::start(&[]);
    let with = |field: &str, value: Value| {
        let mut job = script("bash", "true");
        job["inputData"][field] = value;
        job
    };
    let args: Vec<String> = (0..5).map(|_| "x".repeat(100 << 10)).collect();
    let attacks = [
        ("no memory", with("memoryGb", json!(1e-12)), "declined"),
        ("memory of a page", with("memoryGb", json!(4e-6)), "declined"),
        ("memory of 1 MiB", with("memoryGb", json!(0.001)), "declined"),
        ("memory of 4 MiB", with("memoryGb", json!(0.004)), "declined"),
        ("the least memory", with("memoryGb", json!(0.015625)), "none"),
        ("no processor", with("cpus", json!(1e-12)), "none"),
        ("arguments of 500 KiB", with("args", json!(args)), "none"),
        (
            "a variable that bash keeps for itself",
            with("env", json!({"BASHOPTS": "x", "UID": "0", "PPID": "1"})),
            "any",
        ),
        ("a variable with quotes", with("env", json!({"A": "'; exit 7; '"})), "none"),
        ("exit code 137", script("bash", "exit 137"), "killed_signal"),
        ("exit code 255", script("bash", "exit 255"), "nonzero_exit"),
    ];
    let jobs: Vec<Value> = attacks.iter().map(|(_, job, _)| job.clone()).collect();
    for ((what, _, wanted), told) in attacks.iter().zip(host.run_all(&jobs)) {
        assert!(*wanted == "any" || reason(&told) == *wanted, "{what}: {told:#}");
        assert_ne!(told["errorDetails"]["blame"], "worker", "{what}: {told:#}");
    }
    host.goes_on();
}

#[track_caller]
fn assert_may(what: &str, may: May, told: &Value) {
    let is_done = told["status"] == "completed";
    assert_ne!(told["errorDetails"]["blame"], "worker", "{what}: {told:#}");
    assert!(may == Any || is_done == (may == Complete), "{what}: {told:#}");
    assert!(may != Fail || reason(told) == "bad_input", "{what}: {told:#}");
}

#[track_caller]
fn assert_nothing_escaped(host: &Host) {
    let mut folders = vec![Path::new(&host.home.path("")).to_owned()];
    let elsewhere = ["/", "/tmp", "/work"].map(|folder| Path::new(folder).join(ESCAPED));
    assert!(!elsewhere.iter().any(|path| path.exists()), "it is out");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            assert_ne!(entry.file_name(), ESCAPED, "{}", entry.path().display());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
}

/// What it is, how it is to be unpacked, its bytes, and what may come of it.
type Attack = (&'static str, &'static str, Vec<u8>, May);

fn out_by_dots() -> String {
    format!("../../../../../../{ESCAPED}")
}

fn file(name: &str) -> Vec<u8> {
    entry(name, EntryType::Regular, "", b"x")
}

fn tars() -> Vec<Attack> {
    let e = ESCAPED;
    let (up, long, deep) = (out_by_dots(), "n".repeat(300), "d/".repeat(2500));
    let tar = |entries: &[Vec<u8>]| archive(entries);
    let link = |name: &str, to: &str| entry(name, EntryType::Symlink, to, b"");
    let hard = |name: &str, to: &str| entry(name, EntryType::Link, to, b"");
    vec![
        ("tar: a name of 300 bytes", "tar", tar(&[long_name(&long), file("a")]), Fail),
        ("tar: a path of 5000 bytes", "tar", tar(&[long_name(&deep), file("a")]), Fail),
        ("tar: up and out", "tar", tar(&[file(&up)]), Fail),
        ("tar: from the root", "tar", tar(&[file(&format!("/tmp/{e}"))]), Fail),
        ("tar: a link out", "tar", tar(&[link("l", "/tmp")]), Fail),
        (
            "tar: a link out, and through it",
            "tar",
            tar(&[link("l", ".."), file(&format!("l/{e}"))]),
            Fail,
        ),
        (
            "tar: links in a row",
            "tar",
            tar(&[link("a", "b"), link("b", "a"), file(&format!("a/{e}"))]),
            Fail,
        ),
        (
            "tar: up through a link",
            "tar",
            tar(&[link("d/a", "../.."), file(&format!("d/a/{e}"))]),
            Fail,
        ),
        ("tar: a device", "tar", tar(&[entry("d", EntryType::Block, "", b"")]), Fail),
        ("tar: a pipe", "tar", tar(&[entry("p", EntryType::Fifo, "", b"")]), Fail),
        ("tar: set-user-id", "tar", tar(&[file("s")]), Complete),
        ("tar: a hard link out", "tar", tar(&[hard("h", "/etc/passwd")]), Fail),
        ("tar: a hard link up", "tar", tar(&[hard("h", "../../code/script")]), Fail),
        ("tar: a hard link to nothing", "tar", tar(&[hard("h", "nothing")]), Fail),
        ("tar: no name", "tar", tar(&[file("")]), Fail),
        ("tar: a folder, then a file of its name", "tar", tar(&[file("a/b"), file("a")]), Fail),
        ("tar: a file, then a folder of its name", "tar", tar(&[file("a"), file("a/b")]), Fail),
        ("tar: cut", "tar", tar(&[file("a")])[..600].to_vec(), Fail),
        ("tar: none", "tar", b"hello".repeat(300), Fail),
        ("tar: empty", "tar", vec![], Any),
        ("tar: a size of 8 EiB", "tar", sized(u64::MAX / 2), Fail),
        ("tar: a size of 1 TiB", "tar", sized(1 << 40), Fail),
        ("tar: a huge size by pax", "tar", pax("size", "9223372036854775807"), Fail),
        ("tar: a NUL in a path by pax", "tar", pax("path", "a\0b"), Fail),
        ("tar: a path out by pax", "tar", pax("path", &up), Fail),
        ("tar: a link out by pax", "tar", pax("linkpath", "/etc/passwd"), Any),
    ]
}

fn packed_tars() -> Vec<Attack> {
    let one = archive(&[file("a")]);
    let long = archive(&[long_name(&"n".repeat(30 << 20)), file("a")]);
    vec![
        ("tar.gz: a name of 30 MiB", "tar.gz", gzip(&long), Fail),
        ("tar.gz: a name of 200 MiB", "tar.gz", zeros_as(EntryType::GNULongName, 200), Fail),
        ("tar.gz: a comment of 200 MiB", "tar.gz", zeros_as(EntryType::XHeader, 200), Any),
        ("tar.gz: zeros without end", "tar.gz", zeros_as(EntryType::Regular, 700), Fail),
        ("tar.gz: 66,000 names of one file", "tar.gz", gzip(&names_of_one(66_000)), Any),
        ("tar.gz: cut", "tar.gz", gzip(&one)[..30].to_vec(), Fail),
        ("tar.gz: not packed", "tar.gz", one, Fail),
    ]
}

fn zips() -> Vec<Attack> {
    let e = ESCAPED;
    let (up, long) = (out_by_dots(), "n".repeat(300));
    let zip = |files: &[(&str, &[u8])]| zip_of(files);
    vec![
        ("zip: up and out", "zip", zip(&[(&up, b"x")]), Fail),
        ("zip: by backslashes", "zip", zip(&[(&up.replace('/', "\\"), b"x")]), Any),
        ("zip: from the root", "zip", zip(&[(&format!("/tmp/{e}"), b"x")]), Fail),
        ("zip: a name of 300 bytes", "zip", zip(&[(&long, b"x")]), Fail),
        ("zip: a link out", "zip", zip_link("l", "/etc/passwd"), Fail),
        ("zip: a bomb", "zip", zip_bomb(500), Fail),
        ("zip: a size that is a lie", "zip", zip_lie(), Fail),
        ("zip: one name twice", "zip", zip_twice(), Any),
        ("zip: encrypted", "zip", zip_encrypted(), Fail),
        ("zip: empty", "zip", zip(&[]), Complete),
        ("zip: cut", "zip", zip(&[("a", b"x")])[..30].to_vec(), Fail),
    ]
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// Whatever its name: a builder would refuse bad ones.
fn header(name: &str, kind: EntryType, to: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let fields = header.as_old_mut();
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..to.len()].copy_from_slice(to.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6777);
    header.set_size(size);
    header.set_cksum();
    header
}

fn entry(name: &str, kind: EntryType, to: &str, content: &[u8]) -> Vec<u8> {
    let header = header(name, kind, to, content.len() as u64);
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes().as_slice(), content, &padding].concat()
}

fn long_name(name: &str) -> Vec<u8> {
    entry("././@LongLink", EntryType::GNULongName, "", format!("{name}\0").as_bytes())
}

/// A file that says it has so many bytes.
fn sized(bytes: u64) -> Vec<u8> {
    archive(&[header("a", EntryType::Regular, "", bytes).as_bytes().to_vec()])
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    let extended = entry("x", EntryType::XHeader, "", format!("{length}{rest}").as_bytes());
    archive(&[extended, entry("a", EntryType::Regular, "", b"x")])
}

/// An entry of so many MiB of zeros, packed.
fn zeros_as(kind: EntryType, mib: usize) -> Vec<u8> {
    let head = gzip(header("a", kind, "", (mib as u64) << 20).as_bytes());
    // What is packed may follow on what is packed.
    [head, gzip(&vec![0; 1 << 20]).repeat(mib), gzip(&entry("b", EntryType::Regular, "", b""))]
        .concat()
}

fn names_of_one(count: usize) -> Vec<u8> {
    let first = entry("a", EntryType::Regular, "", b"x");
    let more = (0..count).map(|n| entry(&format!("l{n}"), EntryType::Link, "a", b""));
    archive(&[first].into_iter().chain(more).collect::<Vec<_>>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(vec![], Compression::best());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn zip_link(name: &str, to: &str) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    zip.add_symlink(name, to, SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap().into_inner()
}

fn zip_bomb(mib: usize) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    zip.start_file("a", SimpleFileOptions::default()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..mib {
        zip.write_all(&zeros).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The central directory and the file's own header say one byte of content, of which there are a million.
fn zip_lie() -> Vec<u8> {
    let mut zip = zip_of(&[("a", &vec![b'x'; 1_000_000])]);
    for (mark, at) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let start = zip.windows(4).position(|window| window == mark).unwrap() + at;
        zip[start..start + 4].copy_from_slice(&1u32.to_le_bytes());
    }
    zip
}

/// Two files whose names were made the same afterwards.
fn zip_twice() -> Vec<u8> {
    let mut zip = zip_of(&[("aa", b"one"), ("ab", b"two")]);
    let at: Vec<usize> = (0..zip.len() - 1).filter(|at| &zip[*at..*at + 2] == b"ab").collect();
    for at in at {
        zip[at + 1] = b'a';
    }
    zip
}

/// Marked as encrypted, in both of its headers.
fn zip_encrypted() -> Vec<u8> {
    let mut zip = zip_of(&[("a", b"secret")]);
    for (mark, at) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let start = zip.windows(4).position(|window| window == mark).unwrap() + at;
        zip[start] |= 1;
    }
    zip
}
