//! A job request as ComputeHorde's validators send it, from its volume to its uploads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::engines::with_both;
use crate::support::Storage;

const REQUEST: &str = include_str!("horde.json");

/// `more/words.txt`, zipped.
const VOLUME: &str = "UEsDBBQAAAAAAAAAIVh1p+PmBQAAAAUAAAAOAAAAbW9yZS93b3Jkcy50eHRiZXRhClBLAQIUAxQAAAAAAAAAIVh1p+PmBQAAAAUAAAAOAAAAAAAAAAAAAACkAQAAAABtb3JlL3dvcmRzLnR4dFBLBQYAAAAAAQABADwAAAAxAAAAAAA=";

#[test]
fn a_job_request_of_computehorde_runs_in_its_container() {
    with_both(|place| {
        let storage = Storage::http();
        storage.put("/volume.zip", &STANDARD.decode(VOLUME).unwrap());
        let job: Value = serde_json::from_str(&REQUEST.replace("STORAGE", &storage.url)).unwrap();
        let body = place.run(&job, &["--allow-private-downloads"]);
        assert_eq!(body["status"], "completed", "{}: {body:#}", place.engine);
        let told: Vec<_> = body["result"]["artefacts"].as_array().unwrap().iter().collect();
        let told: Vec<_> =
            told.iter().map(|one| (&one["path"], &one["upload"]["status"])).collect();
        let created = json!(201);
        let paths = ["upper.txt", "length.json", "output.zip"].map(|path| json!(path));
        assert_eq!(told, paths.each_ref().map(|path| (path, &created)), "{body:#}");
        assert!(!body.to_string().contains("hidden"), "{body:#}");
        let seen = storage.seen();
        let calls: Vec<&str> = seen.iter().filter_map(|seen| seen.call.split('?').next()).collect();
        assert_eq!(calls, ["GET /volume.zip", "PUT /upper", "POST /length", "PUT /rest"]);
        assert_eq!(seen[1].body, b"ALPHA\nBETA\n");
        let posted = String::from_utf8_lossy(&seen[2].body);
        assert!(posted.contains(r#"{"length": 11, "seed": "42"}"#), "{posted}");
        let seconds = body["metrics"]["processingTimeSeconds"].as_f64().unwrap();
        assert!(seconds > 0.0, "{body:#}");
        let percents: Vec<u64> = place
            .backend
            .requests("POST /api/jobs/*/progress")
            .iter()
            .filter_map(|request| request.body["progress"].as_u64())
            .collect();
        assert!(
            percents.is_sorted() && percents.iter().all(|p| (1..100).contains(p)),
            "{percents:?}"
        );
    });
}
