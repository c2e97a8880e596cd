//! Inputs from a server: whole and as the job says, or not at all.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{digits, ended_at, error, result, training};
use crate::support::{Backend, Home, Reply};

const FILE: &str = "GET /digits";
const PRIVATE: &[&str] = &["--allow-private-downloads"];

fn packed() -> Vec<u8> {
    let mut packer = GzEncoder::new(vec![], Compression::fast());
    packer.write_all(digits().as_bytes()).unwrap();
    packer.finish().unwrap()
}

fn reply(length: usize, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    Reply::Raw([head.as_bytes(), body].concat())
}

fn whole(body: &[u8]) -> Reply {
    reply(body.len(), body)
}

/// How a training on the file at this URL ended, where the file is answered so.
fn trained(backend: &Backend, dataset: &Value, more: &[&str]) -> Value {
    let task = json!({"dataset": dataset, "epochs": 1});
    ended_at(backend, &Home::new(), &[training("job-1", task)], more).remove(0)
}

fn url(backend: &Backend) -> String {
    format!("{}/digits", backend.url())
}

#[test]
fn a_dataset_is_downloaded_unpacked_and_held_against_its_hash() {
    let backend = Backend::start();
    let file = packed();
    let hash: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02X}")).collect();
    backend.always(FILE, whole(&file));
    let told = trained(&backend, &json!({"url": url(&backend), "sha256": hash}), PRIVATE);
    assert_eq!(result(&told)["dataset"]["rows"], 1797);
    assert_eq!(backend.requests(FILE).len(), 1);
}

#[test]
fn a_file_with_another_hash_is_not_used() {
    let backend = Backend::start();
    backend.always(FILE, whole(b"a,b\n1,x\n2,y\n"));
    let wanted = "0".repeat(64);
    let told = trained(&backend, &json!({"url": url(&backend), "sha256": wanted}), PRIVATE);
    let told = error(&told, "download_failed", "inputs");
    let begin = format!("cannot download {}: its sha256 is ", url(&backend));
    assert!(told.starts_with(&begin), "{told}");
    assert!(told.ends_with(&format!(", the job says {wanted}")), "{told}");
}

#[test]
fn what_a_server_answers_instead_of_the_file_is_told() {
    let backend = Backend::start();
    let told = trained(&backend, &json!(url(&backend)), PRIVATE);
    assert_eq!(
        error(&told, "download_failed", "inputs"),
        format!("cannot download {}: the server answered 404", url(&backend))
    );
}

#[test]
fn a_file_that_ends_too_early_is_none() {
    let backend = Backend::start();
    let file = packed();
    backend.always(FILE, reply(file.len(), &file[..file.len() / 2]));
    let told = trained(&backend, &json!(url(&backend)), PRIVATE);
    error(&told, "download_failed", "inputs");
}

#[test]
fn a_redirect_is_followed() {
    let backend = Backend::start();
    let found = b"HTTP/1.1 302 Found\r\nLocation: /digits\r\nContent-Length: 0\r\n\r\n";
    backend.always("GET /moved", Reply::Raw(found.to_vec()));
    backend.always(FILE, whole(&packed()));
    let told = trained(&backend, &json!(format!("{}/moved", backend.url())), PRIVATE);
    assert_eq!(result(&told)["dataset"]["rows"], 1797);
}

#[test]
fn nothing_is_asked_for_on_a_private_network_unless_the_provider_allows_it() {
    let backend = Backend::start();
    let secret = format!("{}?token=hunter2", url(&backend).replace("://", "://me:hunter2@"));
    let told = trained(&backend, &json!(secret), &[]);
    assert_eq!(
        error(&told, "download_failed", "inputs"),
        format!(
            "cannot download {}: 127.0.0.1 is on a private network, which the provider does not \
             allow (allow-private-downloads)",
            url(&backend)
        )
    );
    assert!(!told.to_string().contains("hunter2"), "{told:#}");
    assert_eq!(backend.requests(FILE).len(), 0);
}
