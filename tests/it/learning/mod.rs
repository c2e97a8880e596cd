//! Training, fine-tuning and inference by the real binary, as whoever sends such jobs sees them.

mod downloads;
mod inference;
mod ipfs;
mod limits;
mod refused;
mod reuse;
mod training;
mod tuning;

use std::fmt::Write as _;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::support::{Backend, Home};

/// Has the jobs done one after the other, and returns what was told of each at its end.
fn ended(home: &Home, jobs: &[Value], more: &[&str]) -> Vec<Value> {
    ended_at(&Backend::start(), home, jobs, more)
}

fn ended_at(backend: &Backend, home: &Home, jobs: &[Value], more: &[&str]) -> Vec<Value> {
    backend.offer(jobs);
    let mut worker = home.worker(&backend.url(), more);
    let told = |job: &Value| {
        let complete = format!("POST /api/jobs/{}/complete", job["id"].as_str().unwrap());
        backend.wait_for(&complete, 1).body
    };
    let told = jobs.iter().map(told).collect();
    worker.stop();
    told
}

/// The result of a job that has to succeed.
fn result(told: &Value) -> &Value {
    assert_eq!(told["status"], "completed", "{told:#}");
    assert_eq!(told["result"]["status"], "success");
    &told["result"]
}

fn done(home: &Home, job: &Value) -> Value {
    result(&ended(home, std::slice::from_ref(job), &[])[0]).clone()
}

/// The error of a job that was begun and has to fail by its own fault, with this reason and stage.
#[track_caller]
fn error<'a>(told: &'a Value, reason: &str, stage: &str) -> &'a str {
    assert_eq!(told["status"], "failed", "{told:#}");
    let details = ["reason", "stage", "blame"].map(|name| told["errorDetails"][name].clone());
    assert_eq!(details, [reason, stage, "job"], "{told:#}");
    told["error"].as_str().unwrap()
}

fn job(id: &str, kind: &str, input: Value) -> Value {
    json!({"id": id, "jobType": kind, "computeNeeded": 1, "inputData": input})
}

fn training(id: &str, input: Value) -> Value {
    job(id, "training", input)
}

/// A file that travels in the job.
fn inline(bytes: impl AsRef<[u8]>) -> Value {
    json!({"inline": STANDARD.encode(bytes)})
}

/// The dataset that is in the binary, as CSV with the digit in the last column.
fn digits() -> String {
    let packed = include_bytes!("../../../src/engine/data/embedded/digits.csv.gz");
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    text
}

/// Of these digits alone, with its header.
fn digits_of(wanted: &str) -> String {
    let text = digits();
    let (header, rows) = text.split_once('\n').unwrap();
    let mut kept = format!("{header}\n");
    for row in rows.lines().filter(|row| row.ends_with(|digit| wanted.contains(digit))) {
        writeln!(kept, "{row}").unwrap();
    }
    kept
}

/// The pixels of the first so many images, and what they show.
fn images(count: usize) -> (Vec<Vec<f64>>, Vec<String>) {
    let text = digits();
    let row = |line: &str| {
        let (pixels, digit) = line.rsplit_once(',').unwrap();
        let pixels = pixels.split(',').map(|pixel| pixel.parse().unwrap()).collect::<Vec<_>>();
        (pixels, digit.to_owned())
    };
    text.lines().skip(1).take(count).map(row).unzip()
}

/// The file of the first artefact that a result names.
pub(crate) fn artefact(home: &Home, result: &Value) -> Vec<u8> {
    let cid = result["artefacts"][0]["cid"].as_str().unwrap();
    std::fs::read(home.path(&format!("state/artefacts/{cid}"))).unwrap()
}

/// The header of a safetensors file, and the numbers behind it.
pub(crate) fn opened(model: &[u8]) -> (Value, &[u8]) {
    let (length, rest) = model.split_first_chunk().unwrap();
    let (header, numbers) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    (serde_json::from_slice(header).unwrap(), numbers)
}

/// The bytes of one tensor of a model.
pub(crate) fn tensor<'a>(model: &'a [u8], name: &str) -> &'a [u8] {
    let (header, numbers) = opened(model);
    let at = |end: usize| {
        let at = header[name]["data_offsets"][end].as_u64();
        usize::try_from(at.unwrap_or_else(|| panic!("{name} in {header:#}"))).unwrap()
    };
    &numbers[at(0)..at(1)]
}
