//! What a model says of rows, however they and the model come.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{artefact, digits, ended, ended_at, images, inline, job, result, training};
use crate::support::{Backend, Home, Reply, keys};

/// A home with a model of digits, and its URL.
fn taught() -> (Home, Value) {
    let home = Home::new();
    let told = ended(&home, &[training("base", json!({"dataset": "digits", "epochs": 30}))], &[]);
    (home, result(&told[0])["modelUrl"].clone())
}

fn asked(home: &Home, inputs: &[Value]) -> Vec<Value> {
    let jobs = inputs.iter().enumerate();
    let jobs: Vec<Value> =
        jobs.map(|(n, input)| job(&format!("ask-{n}"), "inference", input.clone())).collect();
    ended(home, &jobs, &[]).iter().map(|told| result(told).clone()).collect()
}

fn classes(result: &Value) -> Vec<&str> {
    let predictions = result["predictions"].as_array().unwrap();
    predictions.iter().map(|told| told["prediction"].as_str().unwrap()).collect()
}

#[test]
fn rows_are_answered_in_order_with_confidence_and_latency() {
    let (home, model) = taught();
    let (rows, shown) = images(100);
    let result = &asked(&home, &[json!({"model": model, "input": rows})])[0];
    let predictions = result["predictions"].as_array().unwrap();
    assert_eq!((&result["rows"], predictions.len()), (&json!(100), 100));
    for told in predictions {
        assert_eq!(keys(told), ["confidence", "latency_ms", "prediction"]);
        let confidence = told["confidence"].as_f64().unwrap();
        assert!((0.1..=1.0).contains(&confidence), "{told}");
        assert!(told["latency_ms"].as_f64().unwrap() > 0.0, "{told}");
    }
    let right = classes(result).iter().zip(&shown).filter(|(told, shown)| *told == shown).count();
    assert!(right >= 95, "{right} of 100: most of them were trained on");
    assert!(result["latency"]["p50_ms"].as_f64() <= result["latency"]["p99_ms"].as_f64());
    assert_eq!(result["artefacts"], json!([]));
}

#[test]
fn a_row_rows_json_lines_and_csv_get_the_same_answers() {
    let (home, model) = taught();
    let (rows, _) = images(2);
    let lines = format!("{}\n{}\n", json!(rows[0]), json!(rows[1]));
    // With its header, the label in front and one column more.
    let csv: String = digits()
        .lines()
        .take(3)
        .map(|row| {
            let (pixels, digit) = row.rsplit_once(',').unwrap();
            format!("{digit},\"a, b\",{pixels}\r\n")
        })
        .collect();
    let answered = asked(
        &home,
        &[
            json!({"model": model, "input": rows}),
            json!({"model": model, "input": rows[0]}),
            json!({"model": model, "input": inline(lines)}),
            json!({"model": model, "input": inline(csv)}),
        ],
    );
    let told = answered.iter().map(classes).collect::<Vec<_>>();
    assert_eq!(told[1], told[0][..1]);
    assert_eq!([&told[2], &told[3]], [&told[0], &told[0]]);
}

#[test]
fn the_answers_to_more_than_a_thousand_rows_are_a_file_too() {
    let (home, model) = taught();
    let mut csv = String::new();
    for row in images(1797).0 {
        let cells: Vec<String> = row.iter().map(f64::to_string).collect();
        writeln!(csv, "{}", cells.join(",")).unwrap();
    }
    let result = &asked(&home, &[json!({"model": model, "input": inline(csv)})])[0];
    let named = &result["artefacts"][0];
    assert_eq!(named["path"], "predictions.jsonl");
    let url = format!("ipfs://{}", named["cid"].as_str().unwrap());
    assert_eq!([&result["predictionsUrl"], &result["rows"]], [&json!(url), &json!(1797)]);
    let text = String::from_utf8(artefact(&home, result)).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1797);
    assert_eq!(result["predictions"].as_array().unwrap()[..], lines[..1000]);
}

#[test]
fn a_model_may_come_in_the_job_or_from_a_url_as_well() {
    let (home, model) = taught();
    let cid = model.as_str().unwrap().strip_prefix("ipfs://").unwrap();
    let bytes = std::fs::read(home.path(&format!("state/artefacts/{cid}"))).unwrap();
    let backend = Backend::start();
    let length = bytes.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    backend.always("GET /model", Reply::Raw([head.as_bytes(), &bytes].concat()));
    let (rows, _) = images(10);
    let elsewhere = Home::new();
    let url = format!("{}/model", backend.url());
    let jobs = [inline(&bytes), json!({"url": url})];
    let jobs = ["inline", "url"]
        .into_iter()
        .zip(jobs)
        .map(|(id, model)| job(id, "inference", json!({"model": model, "input": rows})));
    let jobs: Vec<Value> = jobs.collect();
    let told = ended_at(&backend, &elsewhere, &jobs, &["--allow-private-downloads"]);
    let wanted = &asked(&home, &[json!({"model": model, "input": rows})])[0];
    for told in &told {
        let told = result(told);
        assert_eq!(classes(told), classes(wanted));
        assert_eq!(told["modelUrl"], model, "it is called by what is in it");
    }
}

#[test]
fn a_model_that_is_not_here_is_told_with_what_to_do() {
    let cid = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let ask = json!({"model": format!("ipfs://{cid}"), "input": [1]});
    let told = ended(&Home::new(), &[job("job-1", "inference", ask)], &[]);
    let wanted = format!("ipfs://{cid} is not among this worker's results: give a url");
    assert_eq!(super::error(&told[0], "bad_input", "inputs"), wanted);
}

#[test]
fn rows_that_the_model_cannot_take_are_named() {
    let (home, model) = taught();
    let (mut rows, _) = images(3);
    rows[1].pop();
    let short = json!({"model": model, "input": rows});
    let no_number = json!({"model": model, "input": [vec![Value::Null; 64]]});
    let jobs = [job("short", "inference", short), job("null", "inference", no_number)];
    let told = ended(&home, &jobs, &[]);
    assert_eq!(
        super::error(&told[0], "bad_input", "inputs"),
        "input: row 2 has 63 numbers, the model takes 64"
    );
    let nulls = super::error(&told[1], "bad_input", "inputs");
    assert!(nulls.starts_with("input: row 1, column `pixel_0_0`: null is no number; "), "{nulls}");
    assert!(nulls.ends_with("; and 54 more"), "{nulls}");
}
