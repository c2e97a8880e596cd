//! What a training gives: a model that can be checked, and told figures that are measured.

use std::fmt::Write as _;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{artefact, digits, done, ended, ended_at, inline, opened, result, training};
use crate::support::{Backend, Home, has_null, keys, run};

fn of_digits(id: &str) -> Value {
    training(id, json!({"dataset": "digits", "epochs": 30}))
}

fn accuracy(result: &Value) -> f64 {
    result["finalMetrics"]["finalAccuracy"].as_f64().unwrap()
}

#[test]
fn digits_are_learnt_in_30_epochs_and_the_model_is_in_the_store_by_its_address() {
    let home = Home::new();
    let result = done(&home, &of_digits("job-1"));
    assert!(accuracy(&result) >= 0.95, "{result:#}");
    assert!(!has_null(&result), "{result:#}");
    assert_eq!([&result["jobType"], &result["status"]], ["training", "success"]);
    let cid = result["modelUrl"].as_str().unwrap().strip_prefix("ipfs://").unwrap();
    let model = artefact(&home, &result);
    let sha256: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = json!({
        "path": "model.safetensors", "bytes": model.len(), "sha256": sha256, "cid": cid,
    });
    assert_eq!(result["artefacts"], json!([entry]));
    let (code, told, _) = run(&["cid", &home.path(&format!("state/artefacts/{cid}"))]);
    assert_eq!((code, told.split_whitespace().next()), (0, Some(cid)));
}

#[test]
fn every_epoch_is_told_and_the_best_is_kept() {
    let home = Home::new();
    let result = done(&home, &of_digits("job-1"));
    let epochs = result["trainingMetrics"].as_array().unwrap();
    let numbers: Vec<u64> = epochs.iter().map(|epoch| epoch["epoch"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<u64>>());
    for epoch in epochs {
        assert_eq!(keys(epoch), ["accuracy", "epoch", "loss", "validationLoss"]);
    }
    let by_loss = |a: &&Value, b: &&Value| {
        let loss = |epoch: &Value| epoch["validationLoss"].as_f64().unwrap();
        loss(a).total_cmp(&loss(b))
    };
    let best = epochs.iter().min_by(by_loss).unwrap();
    let kept = json!({
        "epoch": best["epoch"], "loss": best["loss"], "accuracy": best["accuracy"],
    });
    assert_eq!(result["computationData"], kept);
    let about = &result["dataset"];
    let rows = ["name", "rows", "features", "classes", "trainingRows", "testRows"];
    assert_eq!(
        json!(rows.map(|name| about[name].clone())),
        json!(["digits", 1797, 64, 10, 1294, 359])
    );
}

#[test]
fn the_model_says_how_it_came_to_be_and_nothing_of_the_machine() {
    let home = Home::new();
    let result = done(&home, &of_digits("job-1"));
    let model = artefact(&home, &result);
    let (header, _) = opened(&model);
    assert_eq!(
        keys(&header),
        ["0.bias", "0.weight", "2.bias", "2.weight", "__metadata__", "input.mean", "input.scale"]
    );
    assert_eq!(header["0.weight"]["shape"], json!([128, 64]), "as PyTorch has it");
    let about = &header["__metadata__"];
    assert_eq!(about["architecture"], "dense 64-128-10, ReLU between, softmax at the end");
    let notes: Value = serde_json::from_str(about["notes"].as_str().unwrap()).unwrap();
    assert_eq!(
        keys(&notes),
        [
            "batchSize",
            "bestEpoch",
            "dataset",
            "epochs",
            "learningRate",
            "seed",
            "testAccuracy",
            "testFraction",
            "testLoss",
            "testRows"
        ]
    );
    assert_eq!(notes["dataset"], result["dataset"]["sha256"]);
    let told = notes["testAccuracy"].as_str().unwrap().parse::<f64>().unwrap();
    assert!((told - accuracy(&result)).abs() < 1e-9);
}

#[test]
fn progress_tells_the_epoch_with_loss_and_accuracy() {
    let (home, backend) = (Home::new(), Backend::start());
    // Long enough that one report at least falls into it, whatever the machine.
    let long = training("job-1", json!({"dataset": "digits", "epochs": 100_000}));
    backend.offer(&[long]);
    let mut worker = home.worker(&backend.url(), &["--progress-interval", "1s"]);
    let operation = backend.wait("an epoch with its figures", |seen| {
        let mut operations =
            seen.iter().filter_map(|request| request.body["currentOperation"].as_str());
        operations.rfind(|told| told.contains("accuracy")).map(str::to_owned)
    });
    let form = ["epoch ", "/100000, loss 0.", ", accuracy "];
    assert!(form.iter().all(|part| operation.contains(part)), "{operation}");
    worker.kill();
}

#[test]
fn iris_is_learnt() {
    let task = json!({"dataset": "iris", "epochs": 100, "batchSize": 16, "learningRate": 0.01});
    let result = done(&Home::new(), &training("job-1", task));
    assert!(accuracy(&result) >= 0.93, "{result:#}");
}

#[test]
fn the_same_job_gives_the_same_model_again_on_another_machine_and_on_one_core() {
    // Large enough that its work is shared between threads where there are some.
    let task = json!({"dataset": "digits", "epochs": 3, "hidden": [256, 64], "batchSize": 256});
    let [first, again] = ["first", "again"].map(|id| training(id, task.clone()));
    let told = ended(&Home::new(), &[first.clone(), again], &[]);
    let one_core = on_one_core(|| done(&Home::new(), &first));
    let urls = [result(&told[0]), result(&told[1]), &one_core].map(|told| &told["modelUrl"]);
    assert!(urls.iter().all(|url| *url == urls[0] && url.is_string()), "{urls:?}");
    let seeded = json!({"dataset": "digits", "epochs": 3, "hidden": [256, 64], "batchSize": 256,
                        "seed": 1});
    let other = done(&Home::new(), &training("seeded", seeded));
    assert_ne!(&other["modelUrl"], urls[0], "another seed is another model");
}

/// Where all that is started in it has a single core.
fn on_one_core<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join()).unwrap()
}

#[test]
fn mnist_of_a_wizard_that_sends_nothing_trains_on_digits_for_as_long_as_is_paid() {
    let wizards = json!({
        "id": "job-1", "jobType": null, "modelType": "mnist-training", "computeNeeded": 0.3,
        "fileUrl": "", "inputData": {},
    });
    let result = done(&Home::new(), &wizards);
    assert_eq!(result["dataset"]["name"], "digits", "and it is told");
    assert_eq!(result["trainingMetrics"].as_array().unwrap().len(), 3, "ten epochs for 1.0");
}

#[test]
fn csv_json_lines_and_idx_hold_the_same_digits() {
    let idx = |sides: &[u32], bytes: &[u8]| {
        let sides: Vec<u8> = sides.iter().flat_map(|side| side.to_be_bytes()).collect();
        let count = u8::try_from(sides.len() / 4).unwrap();
        [&[0, 0, 8, count], &sides[..], bytes].concat()
    };
    let (mut lines, mut pixels, mut labels) = (String::new(), vec![], vec![]);
    for row in digits().lines().skip(1) {
        let (image, digit) = row.rsplit_once(',').unwrap();
        writeln!(lines, "{{\"digit\": {digit}, \"image\": [{image}]}}").unwrap();
        pixels.extend(image.split(',').map(|pixel| pixel.parse::<u8>().unwrap()));
        labels.push(digit.parse::<u8>().unwrap());
    }
    let count = u32::try_from(labels.len()).unwrap();
    // Quoted, and with the label first, so that it has to be named.
    let quoted: String = digits()
        .lines()
        .map(|row| {
            let (image, digit) = row.rsplit_once(',').unwrap();
            format!("\"{digit}\",{image}\r\n")
        })
        .collect();
    let pair = json!([inline(idx(&[count], &labels)), inline(idx(&[count, 8, 8], &pixels))]);
    let trainings = [
        json!({"dataset": "digits"}),
        json!({"dataset": inline(quoted), "label": "digit"}),
        json!({"dataset": inline(lines), "label": "digit"}),
        json!({"dataset": pair}),
    ];
    let jobs: Vec<Value> = (0..)
        .zip(trainings)
        .map(|(n, mut task): (usize, Value)| {
            task["epochs"] = json!(2);
            training(&format!("job-{n}"), task)
        })
        .collect();
    let told = ended(&Home::new(), &jobs, &[]);
    let results: Vec<&Value> = told.iter().map(result).collect();
    let formats: Vec<&Value> = results.iter().map(|told| &told["dataset"]["format"]).collect();
    assert_eq!(formats, ["CSV with a header", "CSV with a header", "JSON Lines", "IDX"]);
    for told in &results[1..] {
        assert_eq!(told["finalMetrics"], results[0]["finalMetrics"]);
        assert_eq!(told["trainingMetrics"], results[0]["trainingMetrics"]);
    }
}

#[test]
fn an_epoch_of_a_long_training_is_shown_every_so_often() {
    let task = json!({"dataset": "iris", "epochs": 1001, "batchSize": 128, "hidden": []});
    let backend = Backend::start();
    let told = ended_at(&backend, &Home::new(), &[training("job-1", task)], &[]);
    let epochs = result(&told[0])["trainingMetrics"].as_array().unwrap();
    assert!((100..=200).contains(&epochs.len()), "{}", epochs.len());
    assert_eq!(epochs.last().unwrap()["epoch"], 1001);
}
