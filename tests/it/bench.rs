//! `worker bench`: a figure for people, for programs, and for the next registration.

use std::fs;

use serde_json::Value;

use crate::support::{Home, run};

#[test]
fn the_speed_is_measured_told_and_kept() {
    let home = Home::new();
    let (state, file) = (home.path("state"), home.path("state/speed.json"));
    let kept = || serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap();

    let (code, told, log) = run(&["bench", "--state-dir", &state]);
    assert_eq!(code, 0, "{log}");
    assert!(told.contains(" GFLOP/s (f32, "), "{told}");
    assert!(told.ends_with(&format!("kept in {file}\n")), "{told}");
    assert_eq!(kept()["format"], 1);
    assert!(kept()["speed"]["gflops"].as_f64().unwrap() > 0.0);

    // Another run replaces it, and an agent that holds the directory is no hindrance.
    home.file("state/speed.json", "damaged", 0o600);
    let (code, told, log) = run(&["bench", "--json", "--state-dir", &state]);
    assert_eq!(code, 0, "{log}");
    assert_eq!(kept()["speed"], serde_json::from_str::<Value>(&told).unwrap());
}
