//! The children that fetch a job's inputs and bring its outputs away, each given its charge as the agent
//! gives it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Storage, WORKER};

/// A job's folder.
struct Work {
    dir: TempDir,
}

/// How a child ended.
struct Moved {
    ok: bool,
    /// What it says of a failure: its reason and its words.
    failure: (String, String),
    progress: Vec<Value>,
}

impl Work {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn run(&self, subcommand: &str, charge: &Value) -> Moved {
        self.write("charge.json", &charge.to_string());
        let mut child = Command::new("timeout")
            .args(["60", WORKER, subcommand])
            .env_clear()
            .env("WORKER_INPUT_DIR", self.path("in"))
            .env("WORKER_OUTPUT_DIR", self.path("out"))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"\n").unwrap();
        let ended = child.wait_with_output().unwrap();
        drop(stdin);
        assert!(!self.path("charge.json").exists(), "the program could read the charge");
        let said = String::from_utf8(ended.stdout).unwrap();
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let failure =
            lines.iter().find_map(|line| line.get("failure")).cloned().unwrap_or_default();
        let text = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
        let progress = lines.into_iter().filter(|line| line.get("progress").is_some()).collect();
        Moved { ok: ended.status.success(), failure: (text("reason"), text("error")), progress }
    }

    fn supply(&self, inputs: &Value) -> Moved {
        self.run("supply", &self.supply_charge(inputs, ""))
    }

    fn supply_charge(&self, inputs: &Value, hugging_face: &str) -> Value {
        let ca = format!("{}/tests/it/tls/ca.pem", env!("CARGO_MANIFEST_DIR"));
        json!({
            "inputs": inputs, "code": null, "network": {"private": true, "ca_cert": ca},
            "artefacts": self.path("artefacts"), "hugging_face": hugging_face,
            "bytes_max": 1 << 20, "unpacked_max": 1 << 20, "files_max": 10,
        })
    }

    fn remove(&self, outputs: &Value) -> Moved {
        let network = json!({"private": true, "ca_cert": null});
        self.run("remove", &json!({"outputs": outputs, "network": network, "bytes_max": 1 << 20}))
    }

    fn answer(&self) -> Value {
        serde_json::from_str(&self.read("answer.json")).unwrap()
    }
}

fn input(origin: &Value, path: &str, sha256: Option<&str>, unpack: Option<&str>) -> Value {
    json!({"origin": origin, "path": path, "sha256": sha256, "unpack": unpack})
}

fn url(url: &str) -> Value {
    json!({"Url": url})
}

fn output(path: &str, zip: bool, form: &Value, to: &str) -> Value {
    json!({"path": path, "except": [], "zip": zip,
           "to": {"url": to, "headers": [["x-tag", "a"]], "form": form}})
}

/// `hello world\n`, by its hash and by its address.
const HELLO: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
const CID: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";

/// An archive with that as `a/hello`.
const ZIP: &str = "UEsDBBQAAAAAAAAAIQAtOwivDAAAAAwAAAAHAAAAYS9oZWxsb2hlbGxvIHdvcmxkClBLAQIUAxQAAAAAAAAAIQAtOwivDAAAAAwAAAAHAAAAAAAAAAAAAACkAQAAAABhL2hlbGxvUEsFBgAAAAABAAEANQAAADEAAAAAAA==";

#[test]
fn a_file_that_was_cut_on_its_way_is_fetched_from_where_it_ended() {
    for storage in [Storage::http(), Storage::https()] {
        let work = Work::new();
        let address = storage.put("/hello", b"hello world\n");
        storage.fail("/hello", 2);
        let moved = work.supply(&json!([input(&url(&address), "data/hello", Some(HELLO), None)]));
        assert!(moved.ok, "{:?}", moved.failure);
        assert_eq!(work.read("in/data/hello"), "hello world\n");
        let ranges: Vec<bool> =
            storage.seen().iter().map(|request| request.head.contains("range: bytes=")).collect();
        assert_eq!(ranges, [false, true, true]);
        let operation = moved.progress[0]["operation"].as_str().unwrap();
        assert!(operation.starts_with("inputs: ") && operation.ends_with("/s"), "{operation}");
    }
}

#[test]
fn every_origin_is_laid_out_at_its_path() {
    let (work, storage) = (Work::new(), Storage::http());
    work.write(&format!("artefacts/{CID}"), "hello world\n");
    let zip = STANDARD.decode(ZIP).unwrap();
    let address = storage.put("/files.zip", &zip);
    let moved = work.supply(&json!([
        input(&json!({"Inline": "aGVsbG8gd29ybGQK"}), "inline", Some(HELLO), None),
        input(&json!({"Artefact": CID}), "earlier", None, None),
        input(&json!({"Inline": ZIP}), "", None, Some("Zip")),
        input(&url(&address), "deep/er", None, Some("Zip")),
    ]));
    assert!(moved.ok, "{:?}", moved.failure);
    for path in ["inline", "earlier", "a/hello", "deep/er/a/hello"] {
        assert_eq!(work.read(&format!("in/{path}")), "hello world\n", "{path}");
    }
}

#[test]
fn the_files_of_a_repository_are_those_that_are_wanted() {
    let (work, storage) = (Work::new(), Storage::http());
    let list = json!({"siblings": [{"rfilename": "a.json"}, {"rfilename": "d/b.json"},
                                   {"rfilename": "weights.bin"}]});
    storage.put("/api/datasets/o/n/revision/main", list.to_string().as_bytes());
    storage.put("/datasets/o/n/resolve/main/a.json", b"a");
    storage.put("/datasets/o/n/resolve/main/d/b.json", b"b");
    let repository = json!({"HuggingFace": {"kind": "Dataset", "name": "o/n", "revision": "main",
                                            "files": ["*.json"], "token": "secret"}});
    let charge = work.supply_charge(&json!([input(&repository, "data", None, None)]), &storage.url);
    let moved = work.run("supply", &charge);
    assert!(moved.ok, "{:?}", moved.failure);
    assert_eq!(
        (work.read("in/data/a.json"), work.read("in/data/d/b.json")),
        ("a".into(), "b".into())
    );
    assert!(!work.path("in/data/weights.bin").exists());
    let seen = storage.seen();
    assert!(seen.iter().all(|request| request.head.contains("authorization: bearer secret")));
}

#[test]
fn what_is_wrong_with_an_input_is_told_and_by_whom() {
    let storage = Storage::http();
    let missing = format!("{}/none?token=secret", storage.url);
    let large = storage.put("/large", &[0; (1 << 20) + 1]);
    let other = "0".repeat(64);
    let hello = storage.put("/hello", b"hello world\n");
    for (input, reason, told) in [
        (input(&url(&missing), "x", None, None), "download_failed", "the server answered 404"),
        (input(&url(&hello), "x", Some(&other), None), "download_failed", "its sha256 is a94890"),
        (input(&url(&large), "x", None, None), "download_failed", "the most is 1 MiB"),
        (input(&url(&hello), "x", None, Some("Zip")), "bad_input", "an archive is refused"),
        (input(&json!({"Artefact": CID}), "x", None, None), "bad_input", "give a url"),
    ] {
        let moved = Work::new().supply(&json!([input]));
        assert!(!moved.ok);
        let (why, error) = &moved.failure;
        assert!(why == reason && error.contains(told), "{why}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn outputs_are_brought_where_the_job_wants_them_and_a_first_failure_is_no_matter() {
    let (work, storage) = (Work::new(), Storage::http());
    work.write("out/hello", "hello world\n");
    work.write("out/more/a.csv", "1,2\n");
    storage.fail("/one", 1);
    let to = |path| format!("{}{path}?signature=secret", storage.url);
    let moved = work.remove(&json!([
        output("hello", false, &json!("Put"), &to("/one")),
        output("**/*.csv", false, &json!({"Post": [["key", "k"]]}), &to("/two")),
        output("**", true, &json!("Put"), &to("/three")),
    ]));
    assert!(moved.ok, "{:?}", moved.failure);
    let answer = work.answer();
    let shown = |path| format!("{}{path}", storage.url);
    assert_eq!(
        answer["artefacts"][0],
        json!({"path": "hello", "bytes": 12, "sha256": HELLO, "cid": CID,
               "upload": {"url": shown("/one"), "status": 201}})
    );
    assert_eq!(answer["artefacts"][1]["path"], "more/a.csv");
    assert_eq!(
        (&answer["artefacts"][2]["path"], &answer["artefacts"][2]["files"]),
        (&json!("output.zip"), &json!(2))
    );
    assert!(!answer.to_string().contains("secret"), "{answer}");
    let seen = storage.seen();
    let calls: Vec<&str> =
        seen.iter().map(|request| request.call.split('?').next().unwrap()).collect();
    assert_eq!(calls, ["PUT /one", "PUT /one", "POST /two", "PUT /three"]);
    assert_eq!(seen[1].body, b"hello world\n");
    assert!(seen[0].head.contains("x-tag: a"));
    assert!(seen[3].body.starts_with(b"PK\x03\x04"));
}

#[test]
fn the_same_files_are_not_kept_without_end() {
    let work = Work::new();
    work.write("out/large", &"x".repeat(600 << 10));
    let kept = json!({"path": "large", "except": [], "zip": false, "to": null});
    let moved = work.remove(&json!([kept.clone(), kept]));
    let (why, error) = &moved.failure;
    assert!(why == "bad_input" && error.contains("more than 1 MiB to be kept"), "{why}: {error}");
}

#[test]
fn what_is_to_go_nowhere_is_kept_and_no_link_is_followed() {
    let work = Work::new();
    work.write("out/sub/hello", "hello world\n");
    work.write("out/result.json", "{}");
    work.write("secret", "ours");
    symlink(work.path("secret"), work.path("out/link")).unwrap();
    symlink(work.path("in"), work.path("out/folder")).unwrap();
    mknodat(CWD, work.path("out/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let moved = work.remove(&json!([]));
    assert!(moved.ok, "{:?}", moved.failure);
    let kept = json!({"path": "sub/hello", "bytes": 12, "sha256": HELLO, "cid": CID});
    let skipped = |path: &str, reason: &str| json!({"path": path, "reason": reason});
    assert_eq!(
        work.answer(),
        json!({"artefacts": [kept], "skipped": [
            skipped("folder", "a symbolic link"),
            skipped("link", "a symbolic link"),
            skipped("pipe", "a pipe"),
        ]})
    );
    assert_eq!(work.read(&format!("kept/{CID}")), "hello world\n");
    assert!(Path::new(&work.path("out/sub/hello")).exists());
}

#[test]
fn an_output_that_is_not_there_or_not_taken_fails_with_its_name() {
    let (work, storage) = (Work::new(), Storage::http());
    symlink("/etc/passwd", work.path("out/link")).unwrap();
    storage.fail("/x", 100);
    let to = format!("{}/x", storage.url);
    let moved = work.remove(&json!([
        output("none.csv", false, &json!("Put"), &to),
        output("link", false, &json!("Put"), &to),
    ]));
    let told = "the program left no none.csv; link is a symbolic link and was not taken";
    assert_eq!(moved.failure, ("upload_failed".into(), told.into()));
    assert_eq!(storage.seen().len(), 0);
}

#[test]
fn an_output_folder_that_became_a_link_is_not_looked_into() {
    let work = Work::new();
    fs::remove_dir(work.path("out")).unwrap();
    symlink("/etc", work.path("out")).unwrap();
    let (reason, error) = work.remove(&json!([])).failure;
    assert_eq!(reason, "bad_input");
    assert!(error.starts_with("the output folder cannot be read: "), "{error}");
}

#[test]
fn more_names_of_one_file_than_a_disk_has_are_the_jobs_own_fault() {
    let mut tar = tar::Builder::new(GzEncoder::new(vec![], Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, "file", io::empty()).unwrap();
    header.set_entry_type(tar::EntryType::Link);
    for n in 0..66_000 {
        tar.append_link(&mut header, format!("{n}"), "file").unwrap();
    }
    let archive = STANDARD.encode(tar.into_inner().unwrap().finish().unwrap());
    let work = Work::new();
    let links = input(&json!({"Inline": archive}), "", None, Some("TarGz"));
    let mut charge = work.supply_charge(&json!([links]), "");
    charge["files_max"] = json!(100_000);
    let moved = work.run("supply", &charge);
    // Some disks take any number.
    assert!(moved.ok || moved.failure.0 == "bad_input", "{:?}", moved.failure);
}

#[test]
fn a_path_that_is_longer_than_any_may_be_is_the_jobs_own_fault() {
    let work = Work::new();
    let long = "d".repeat(200);
    // One below the other, as a program does it that goes down into each.
    let mut folder = File::open(work.path("out")).unwrap();
    for _ in 0..20 {
        mkdirat(&folder, &long, Mode::RWXU).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        folder = openat(&folder, &long, flags, Mode::empty()).unwrap().into();
    }
    let moved = work.remove(&json!([]));
    let told = "the output folder cannot be read: its path is too long: the most is 64 folders and 3072 bytes";
    assert_eq!(moved.failure, ("bad_input".into(), told.into()));
}
