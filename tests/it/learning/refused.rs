//! What cannot be learnt is refused in words that its owner can do something with.

use serde_json::{Value, json};

use super::{ended, error, inline, job, training};
use crate::support::Home;

/// What the jobs were refused with before any of them was begun.
fn declined(jobs: &[Value]) -> Vec<String> {
    let told = ended(&Home::new(), jobs, &[]);
    let reason = |told: &Value| {
        assert_eq!([&told["status"], &told["result"]["code"]], ["failed", "bad_input"], "{told:#}");
        let error = told["error"].as_str().unwrap();
        error.strip_prefix("declined: ").unwrap_or_else(|| panic!("{error}")).to_owned()
    };
    told.iter().map(reason).collect()
}

/// What trainings on these files were refused with, once the files were read.
fn unreadable(files: &[&str], more: &Value) -> Vec<String> {
    let jobs: Vec<Value> = files
        .iter()
        .enumerate()
        .map(|(n, file)| {
            let mut task = more.clone();
            task["dataset"] = inline(file);
            training(&format!("job-{n}"), task)
        })
        .collect();
    let told = ended(&Home::new(), &jobs, &[]);
    told.iter().map(|told| error(told, "bad_input", "inputs").to_owned()).collect()
}

#[test]
fn a_dataset_that_there_is_not_is_told_with_those_there_are_and_how_to_give_a_url() {
    let told = declined(&[
        training("imagenet", json!({"dataset": "imagenet"})),
        training("nothing", json!({})),
        job("no-model", "inference", json!({"model": "gpt2", "input": [1]})),
    ]);
    let how = "an http(s) URL, ipfs://<cid>, {\"url\": …, \"sha256\": …} or {\"inline\": base64}";
    assert_eq!(
        told,
        [
            format!("dataset is \"imagenet\", but must be one of digits, iris, or {how}"),
            "dataset is missing: one of digits, iris, or {\"url\": …} or {\"inline\": …} with a \
             CSV or JSONL file, or two of them for IDX"
                .into(),
            format!("model must be {how}"),
        ]
    );
}

#[test]
fn all_that_is_wrong_with_a_job_is_told_at_once() {
    let told = declined(&[
        training(
            "a",
            json!({"dataset": "imagenet", "epochs": 0, "batchSize": 1.5, "learningRate": -1,
                   "hidden": [0], "seed": -3, "testFraction": 1, "label": [1]}),
        ),
        training(
            "b",
            json!({"dataset": "iris", "epochs": 1_000_000_000, "hidden": vec![1; 10_000]}),
        ),
        job(
            "c",
            "fine-tuning",
            json!({"dataset": "iris", "freeze": -1, "label": "x".repeat(1_000_000)}),
        ),
    ]);
    for wanted in [
        "dataset is \"imagenet\", but must be one of digits, iris, or ",
        "epochs is 0, but must be a whole number from 1 to 100000",
        "batchSize is 1.5, but must be a whole number from 1 to 65536",
        "learningRate is -1, but must be a number above 0, at most 10",
        "hidden is [0], but must be a list of at most 16 whole numbers from 1 to 16384",
        "seed is -3, but must be a whole number from 0 on",
        "testFraction is 1, but must be a number above 0, at most 0.9",
        "label is [1], but must be the name of a column, at most 200 bytes",
    ] {
        assert!(told[0].contains(wanted), "{wanted}: {}", told[0]);
    }
    assert!(told[1].contains("epochs is 1000000000, but must be"), "{}", told[1]);
    assert!(told[1].contains("hidden is [1,1,1,"), "{}", told[1]);
    for wanted in [
        "baseModel is missing: the model to begin with",
        "freeze is -1, but must be a whole number from 0 to 16",
        "label is \"xxx",
    ] {
        assert!(told[2].contains(wanted), "{wanted}: {}", told[2]);
    }
    assert!(told.iter().all(|told| told.len() < 1500), "{told:?}");
}

#[test]
fn a_file_that_nothing_can_be_learnt_from_is_told_with_its_places() {
    let many: String = (0..1_000_000 / 32).map(|n| format!("1,{n}\n")).collect();
    let told = unreadable(
        &[
            "",
            "a,b,kind\n",
            "a,kind\n1,x\n2,x\n",
            "a,b,kind\n1,NaN,x\n2,3,y\n,4,x\n",
            "a,b,kind\n1,2,x\n3,y\n4,5,6,z\n",
            &many,
            "a,a,kind\n1,2,x\n2,1,y\n",
        ],
        &json!({}),
    );
    assert_eq!(
        told,
        [
            "dataset: there is nothing in it: 0 rows",
            "dataset: there are 0 rows of data",
            "dataset: all rows have the same label `kind`: `x`; a network needs two classes, name \
             the right column with `label`",
            "dataset: line 2, column `b`: `NaN` is no finite number of 32 bits; line 4, column \
             `a`: is empty",
            "dataset: line 3 has 2 cells, the header has 3; line 4 has 4 cells, the header has 3",
            "dataset: the label `1` has more than 10000 classes: name the right one with `label`",
            "dataset: two columns are named `a`: rename one",
        ]
    );
}

#[test]
fn a_label_that_there_is_not_is_told_with_those_there_are() {
    let told = unreadable(&["length,width,kind\n1,2,x\n2,1,y\n"], &json!({"label": "kinds"}));
    assert_eq!(
        told,
        ["dataset: there is no column `kinds` to take the label from: there are `length`, \
          `width`, `kind`; did you mean `kind`?"]
    );
}

#[test]
fn a_hostile_model_is_refused_by_what_is_wrong_with_it() {
    let file = |length: u64, header: &str| [&length.to_le_bytes(), header.as_bytes()].concat();
    let one = |dtype: &str, end: u64| {
        let header = format!(
            "{{\"0.weight\":{{\"dtype\":\"{dtype}\",\"shape\":[2,2],\"data_offsets\":[0,{end}]}}}}"
        );
        [file(header.len() as u64, &header), vec![0; 16]].concat()
    };
    let overlapping = "{\"0.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\
                       \"0.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    let models = [
        (vec![], "0 bytes are no safetensors file"),
        (file(1 << 63, "{}"), "its header is 9223372036854775808 bytes long"),
        (file(100, "{}"), "it is cut off: its header should have 100 bytes, and 2 are there"),
        (one("F64", 16), "0.weight is F64: only F32 is read"),
        (one("F32", 1 << 60), "0.weight is [2, 2], which does not fit into its bytes 0 to "),
        (one("F32", 16), "0.bias is missing"),
        (
            [file(overlapping.len() as u64, overlapping), vec![0; 12]].concat(),
            "0.weight overlaps the tensor before it: it begins at 4 instead of 8",
        ),
    ];
    let job = |(n, (model, _)): (usize, &(Vec<u8>, &str))| {
        job(&format!("job-{n}"), "inference", json!({"model": inline(model), "input": [[1, 2]]}))
    };
    let jobs: Vec<Value> = models.iter().enumerate().map(job).collect();
    for (told, (_, wanted)) in ended(&Home::new(), &jobs, &[]).iter().zip(&models) {
        let told = error(told, "bad_input", "inputs");
        let wanted = format!("model: this model cannot be loaded: {wanted}");
        assert!(told.starts_with(&wanted), "{wanted}: {told}");
    }
}

#[test]
fn a_model_of_the_worker_itself_that_was_cut_off_is_refused() {
    let home = Home::new();
    let told = ended(&home, &[training("base", json!({"dataset": "iris"}))], &[]);
    let model = super::artefact(&home, super::result(&told[0]));
    let cut = inline(&model[..model.len() - 1]);
    let ask = json!({"baseModel": cut, "dataset": "iris"});
    let told = ended(&home, &[job("tune", "fine-tuning", ask)], &[]);
    let told = error(&told[0], "bad_input", "inputs");
    assert!(told.starts_with("baseModel: this model cannot be loaded: it is cut off"), "{told}");
}

#[test]
fn learning_that_diverges_says_so_and_what_would_help() {
    let task = json!({"dataset": "digits", "learningRate": 10, "hidden": vec![64; 16],
                      "batchSize": 16});
    let told = ended(&Home::new(), &[training("job-1", task)], &[]);
    let told = error(&told[0], "bad_input", "run");
    let wanted = "learning diverged in epoch 1: the loss is no number any more; a learningRate \
                  below 10 would help";
    assert_eq!(told, wanted);
}
