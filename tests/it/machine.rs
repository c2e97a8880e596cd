//! What the worker tells of the machine, and of the part of it that it may use.

use std::{fs, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::support::{Backend, Home, run};

/// Runs this on one core only, and what it starts too.
fn on_one_core<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let pinned = || {
        let ours = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|core| ours.is_set(*core)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        what()
    };
    thread::scope(|scope| scope.spawn(pinned).join().unwrap())
}

#[test]
fn the_cores_are_those_that_may_be_used_and_the_hosts_are_told_beside() {
    let home = Home::new();
    let state = home.path("state");
    let (code, out, log) = on_one_core(|| run(&["specs", "--state-dir", &state]));
    assert_eq!(code, 0, "{log}");
    let specs = &serde_json::from_str::<Value>(&out).unwrap()["specs"];
    assert_eq!(specs["cpu_cores"], 1);
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let host = stat.lines().filter(|line| line.starts_with("cpu")).skip(1).count();
    let told = (host > 1).then(|| json!(host));
    assert_eq!(specs.get("host_cpu_cores"), told.as_ref(), "{specs:#}");
}

#[test]
fn a_heartbeat_tells_load_and_disk() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    let usage = &backend.wait_for("POST /api/providers/*/heartbeat", 1).body["usage"];
    assert_eq!(usage["loadAverage"].as_array().unwrap().len(), 3, "{usage:#}");
    let gb = |key: &str| usage[key].as_f64().unwrap();
    assert!(gb("diskTotalGb") > 0.0 && gb("diskFreeGb") <= gb("diskTotalGb"), "{usage:#}");
    assert_eq!(usage.get("netRxBytes"), None, "no interval yet");
    worker.stop();
}
