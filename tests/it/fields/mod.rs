//! Every field of a job that is documented, in every spelling, from every source and to every destination,
//! from its offer to its completion.

mod engine;
mod files;
mod program;
mod scripts;
mod table;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Host, Storage};
use program::Desk;
use table::{OF_CONTAINERS, Rows};

/// One test for each section, by its name in docs/fields.md.
macro_rules! sections {
    ($($section:literal => $test:ident by $show:path;)*) => {
        const SECTIONS: &[&str] = &[$($section),*];

        $(#[test]
        fn $test() {
            let rows = Rows::of($section);
            $show(&desk(), &rows);
            rows.end();
        })*
    };
}

sections! {
    "Every job" => every_job by engine::every_job;
    "Kinds" => kinds by engine::kinds;
    "Training" => training by engine::training;
    "Fine-tuning" => fine_tuning by engine::fine_tuning;
    "Inference" => inference by engine::inference;
    "Compute" => compute by engine::compute;
    "Files of the engine" => files_of_the_engine by files::files;
    "Scripts" => scripts by scripts::scripts;
    "Inputs" => inputs by program::inputs;
    "Outputs" => outputs by program::outputs;
    "Times" => times by program::times;
    "What a program finds and says" => what_a_program_finds_and_says by program::finds_and_says;
}

#[test]
fn every_section_has_its_test() {
    let shown: BTreeSet<&str> = SECTIONS.iter().chain(&OF_CONTAINERS).copied().collect();
    assert_eq!(shown, table::names());
}

/// A worker that runs scripts, and the servers that its jobs name.
fn desk() -> Desk {
    let storage = Storage::http();
    let ca = format!("{}/tests/it/tls/ca.pem", env!("CARGO_MANIFEST_DIR"));
    let args = ["--allow", "script", "--allow-private-downloads", "--ca-cert", &ca];
    let args = [args.as_slice(), &["--progress-interval", "1s"]].concat();
    let host = Host::of(&args, &[("WORKER_HUGGING_FACE", &storage.url)]);
    Desk { host, storage, program: of_bash }
}

fn of_bash(text: &str) -> Value {
    json!({"jobType": "script", "inputData": {"script": text, "interpreter": "bash"}})
}
