//! Kills at each named step, by `src/crash.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use super::{Campaign, assert_all_end};
use crate::support::short;

/// The steps of one job's life, in their order, with how often each comes.
const STEPS: [(&str, u32); 18] = [
    ("temporary-written", 6),
    ("temporary-synced", 6),
    ("temporary-in-place", 6),
    ("id-written", 1),
    ("taken", 1),
    ("staged", 1),
    ("program-held", 1),
    ("handle-recorded", 1),
    ("program-let-go", 1),
    ("ended", 1),
    ("outcome-recorded", 1),
    ("before-send", 1),
    ("answered", 1),
    ("line-written", 1),
    ("line-synced", 1),
    ("delivery-recorded", 1),
    ("work-removed", 1),
    // Only where a job was lost.
    ("loss-recorded", 0),
];

/// Kills in the start that follows a kill.
const TWICE: [[&str; 2]; 9] = [
    ["program-let-go:1", "temporary-written:1"],
    ["program-let-go:1", "temporary-synced:1"],
    ["program-let-go:1", "temporary-in-place:1"],
    ["program-let-go:1", "loss-recorded:1"],
    ["program-let-go:1", "answered:1"],
    ["taken:1", "program-let-go:1"],
    ["outcome-recorded:1", "before-send:1"],
    ["line-synced:1", "temporary-synced:1"],
    ["answered:1", "line-synced:1"],
];

fn campaigns() -> Vec<Vec<String>> {
    let once = STEPS
        .iter()
        .flat_map(|(step, times)| (1..=*times).map(move |n| vec![format!("{step}:{n}")]));
    once.chain(TWICE.map(|steps| steps.map(str::to_owned).into())).collect()
}

fn run(steps: &[String]) {
    let mut campaign = Campaign::new(vec![short("job-1")]);
    for step in steps {
        let mut worker = campaign.start(&[("WORKER_CRASH", step)]);
        assert_eq!(worker.wait(), -9, "it comes to {step} of {steps:?}");
        assert_all_end(&campaign.killed());
    }
    campaign.end();
}

#[test]
fn killed_between_any_two_steps_it_tells_each_outcome_once() {
    let left = Mutex::new(campaigns());
    let work = || {
        loop {
            let next = left.lock().unwrap().pop();
            let Some(steps) = next else { return };
            run(&steps);
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            thread::Builder::new().spawn_scoped(scope, work).unwrap();
        }
    });
}

fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in(&path, names);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let points = text.split("crash::point(\"").skip(1);
        names.extend(points.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
}

#[test]
fn every_step_that_has_a_name_is_tried() {
    let mut names = BTreeSet::new();
    named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert_eq!(names, STEPS.map(|(step, _)| step.to_owned()).into());
}
