//! Where the engine's jobs have their files from, and in which form.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::program::Desk;
use super::table::Rows;

/// The flowers that are in the binary, as CSV with a header.
pub(super) fn iris() -> String {
    let packed = include_bytes!("../../../src/engine/data/embedded/iris.csv.gz");
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    text
}

pub(super) fn inline(bytes: &[u8]) -> Value {
    json!({"inline": STANDARD.encode(bytes)})
}

/// Forty images of 2 × 2 points, dark and light, and what they are.
pub(super) fn idx() -> [Value; 2] {
    let labels: Vec<u8> = (0..40).map(|n| n % 2).collect();
    let images: Vec<u8> =
        labels.iter().flat_map(|label| [label * 200, 9, 7, label * 100]).collect();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2], &images[..]].concat();
    let labels = [&[0, 0, 8, 1, 0, 0, 0, 40], &labels[..]].concat();
    [inline(&images), inline(&labels)]
}

pub(super) fn files(desk: &Desk, rows: &Rows) {
    let trained = |dataset: &Value| {
        let job = json!({"jobType": "training", "inputData": {"dataset": dataset, "epochs": 1}});
        desk.host.result(&job)["dataset"].clone()
    };
    let text = iris();
    let url = desk.storage.put("/iris.csv", text.as_bytes());
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
    let made =
        desk.result(&format!("cat >$WORKER_OUTPUT_DIR/iris.csv <<'END'\n{text}END\n"), &json!({}));
    let cid = made["artefacts"][0]["cid"].as_str().unwrap();
    for (row, source) in [
        (r#""https://…""#, json!(url)),
        (r#"{"url": …}"#, json!({"url": url})),
        (r#"{"url": …, "sha256": …}"#, json!({"url": url, "sha256": hash})),
        (r#"{"inline": …}"#, inline(text.as_bytes())),
        (r#""ipfs://<cid>""#, json!(format!("ipfs://{cid}"))),
        (r#"{"url": "ipfs://<cid>"}"#, json!({"url": format!("ipfs://{cid}")})),
    ] {
        rows.show(&[row]);
        assert_eq!(trained(&source)["rows"], 150, "{row}");
    }
    let (_, without) = text.split_once('\n').unwrap();
    let lines: String = without
        .lines()
        .map(|line| {
            let (numbers, name) = line.rsplit_once(',').unwrap();
            format!("{{\"sizes\": [{numbers}], \"name\": \"{name}\"}}\n")
        })
        .collect();
    let mut packer = GzEncoder::new(vec![], Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    for (row, file, format) in [
        ("CSV with a header", inline(text.as_bytes()), "CSV with a header"),
        ("CSV without a header", inline(without.as_bytes()), "CSV without a header"),
        ("JSON Lines", inline(lines.as_bytes()), "JSON Lines"),
        ("IDX", json!(idx()), "IDX"),
        ("gzip", inline(&packed), "CSV with a header"),
    ] {
        rows.show(&[row]);
        assert_eq!(trained(&file)["format"], format, "{row}");
    }
}
