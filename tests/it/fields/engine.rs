//! What every job may say, and the fields of training, fine-tuning, inference and compute.

use serde_json::{Value, json};

use super::program::Desk;
use super::table::Rows;
use crate::learning::{artefact, opened, tensor};
use crate::support::{endless, short};

const FLOWER: [f64; 4] = [5.1, 3.5, 1.4, 0.2];

pub(super) fn every_job(desk: &Desk, rows: &Rows) {
    let host = &desk.host;
    rows.show(&["id"]);
    host.backend.offer(&[short("a:B-1._")]);
    assert_eq!(host.completion("a:B-1._")["status"], "completed");
    rows.show(&["jobType", "modelType", "inputData"]);
    for (job, kind) in [
        (json!({"jobType": "compute", "modelType": "training"}), "compute"),
        (json!({"jobType": "unheard-of", "modelType": "compute"}), "compute"),
        (json!({"modelType": "compute"}), "compute"),
        (json!({"modelType": "compute", "inputData": {}}), "compute"),
        (json!({"modelType": "train", "inputData": {"dataset": "iris", "epochs": 1}}), "training"),
    ] {
        let mut asked = job.clone();
        asked["computeNeeded"] = json!(0.0001);
        assert_eq!(host.result(&asked)["jobType"], kind, "{job}");
    }
    rows.show(&["timeoutSeconds", "advancedConfig.maxDuration"]);
    for (seconds, hours) in
        [(json!(1), json!(24)), (json!(3600), json!(1.0 / 3600.0)), (json!(1), Value::Null)]
    {
        let mut job = endless("job");
        (job["timeoutSeconds"], job["advancedConfig"]) = (seconds, json!({"maxDuration": hours}));
        assert_eq!(host.run(&job)["error"], "timeout after 1s in stage run", "{job}");
    }
}

pub(super) fn kinds(desk: &Desk, rows: &Rows) {
    let host = &desk.host;
    let iris = json!({"dataset": "iris", "epochs": 1});
    let model = host.result(&json!({"jobType": "training", "inputData": iris}))["modelUrl"].clone();
    let again = json!({"dataset": "iris", "epochs": 1, "baseModel": model});
    let ask = json!({"model": model, "input": FLOWER});
    for (name, kind, input) in [
        ("training", "training", &iris),
        ("train", "training", &iris),
        ("mnist", "training", &iris),
        ("mnist-training", "training", &json!({})),
        ("fine-tuning", "fine-tuning", &again),
        ("finetune", "fine-tuning", &again),
        ("finetuning", "fine-tuning", &again),
        ("inference", "inference", &ask),
        ("infer", "inference", &ask),
        ("compute", "compute", &json!({})),
        ("generic", "compute", &json!({})),
        ("generic-compute", "compute", &json!({})),
        ("benchmark", "compute", &json!({})),
        ("script", "script", &json!({"script": "true", "interpreter": "bash"})),
        ("custom-script", "script", &json!({"script": "true", "interpreter": "bash"})),
    ] {
        rows.show(&[name]);
        for spelling in [name.to_owned(), name.to_uppercase().replace('-', "_")] {
            let job = json!({"jobType": spelling, "computeNeeded": 0.0001, "inputData": input});
            assert_eq!(host.result(&job)["jobType"], kind, "{spelling}");
        }
    }
}

/// What a training of flowers gives, and what its model says of how it came to be.
#[track_caller]
fn learnt(desk: &Desk, more: &Value) -> (Value, Value) {
    let mut job = json!({"jobType": "training", "inputData": {"dataset": "iris", "epochs": 1}});
    for (name, value) in more.as_object().unwrap() {
        job["inputData"][name] = value.clone();
    }
    let result = desk.host.result(&job);
    let about = opened(&artefact(&desk.host.home, &result)).0["__metadata__"].clone();
    (result, about)
}

#[track_caller]
fn notes(about: &Value) -> Value {
    serde_json::from_str(about["notes"].as_str().unwrap()).unwrap()
}

pub(super) fn training(desk: &Desk, rows: &Rows) {
    let host = &desk.host;
    for (name, count) in [("digits", 1797), ("iris", 150)] {
        rows.show(&["dataset", &format!("dataset {name}")]);
        let (result, _) = learnt(desk, &json!({"dataset": name}));
        assert_eq!(
            [&result["dataset"]["name"], &result["dataset"]["rows"]],
            [&json!(name), &json!(count)]
        );
    }
    rows.show(&["dataset of two"]);
    let [images, labels] = super::files::idx();
    for pair in [json!([images, labels]), json!([labels, images])] {
        assert_eq!(learnt(desk, &json!({"dataset": pair})).0["dataset"]["format"], "IDX");
    }
    rows.show(&["fileUrl of the job"]);
    let url = desk.storage.put("/iris.csv", super::files::iris().as_bytes());
    let job = json!({"jobType": "training", "fileUrl": url, "inputData": {"epochs": 1}});
    assert_eq!(host.result(&job)["dataset"]["rows"], 150);
    rows.show(&["label", "label as a number"]);
    for (label, text) in [(json!("b"), "a,b,c\n"), (json!(1), "")] {
        let lines = (0..40).map(|n| format!("{n},{},{}\n", ["no", "yes"][n % 2], n * 2));
        let file = super::files::inline((text.to_owned() + &lines.collect::<String>()).as_bytes());
        let (_, about) = learnt(desk, &json!({"dataset": file, "label": label}));
        assert_eq!(about["classes"], r#"["no","yes"]"#, "{label}");
    }
    rows.show(&["epochs"]);
    assert_eq!(
        learnt(desk, &json!({"epochs": 3})).0["trainingMetrics"].as_array().unwrap().len(),
        3
    );
    rows.show(&["computeNeeded of the job"]);
    let job =
        json!({"jobType": "training", "computeNeeded": 0.4, "inputData": {"dataset": "iris"}});
    assert_eq!(host.result(&job)["trainingMetrics"].as_array().unwrap().len(), 4);
    for (name, value) in [
        ("batchSize", json!(16)),
        ("learningRate", json!(0.01)),
        ("seed", json!(7)),
        ("testFraction", json!(0.5)),
    ] {
        rows.show(&[name]);
        let noted = notes(&learnt(desk, &json!({name: value})).1)[name].clone();
        assert_eq!(noted.as_str().unwrap(), value.to_string(), "{name}");
    }
    rows.show(&["hidden"]);
    let (_, about) = learnt(desk, &json!({"hidden": [5, 4]}));
    assert!(about["architecture"].as_str().unwrap().starts_with("dense 4-5-4-3,"), "{about}");
}

pub(super) fn fine_tuning(desk: &Desk, rows: &Rows) {
    let (base, _) = learnt(desk, &json!({}));
    rows.show(&["baseModel", "freeze"]);
    let tuned = |freeze: u8| {
        let input = json!({"baseModel": base["modelUrl"], "dataset": "iris", "epochs": 2, "freeze": freeze, "seed": 3});
        desk.host.result(&json!({"jobType": "fine-tuning", "inputData": input}))
    };
    let models = [&base, &tuned(0), &tuned(1)].map(|result| artefact(&desk.host.home, result));
    let [before, free, frozen] = models.each_ref().map(|model| tensor(model, "0.weight"));
    assert_ne!(before, free);
    assert_eq!(before, frozen);
}

pub(super) fn inference(desk: &Desk, rows: &Rows) {
    let (base, _) = learnt(desk, &json!({"epochs": 30}));
    rows.show(&["model"]);
    let file = super::files::inline(b"[5.1, 3.5, 1.4, 0.2]\n[6.3, 3.3, 6.0, 2.5]\n");
    for (row, input, count) in [
        ("input as a row", json!(FLOWER), 1),
        ("input as rows", json!([FLOWER, FLOWER, FLOWER]), 3),
        ("input as a file", file, 2),
    ] {
        rows.show(&[row]);
        let ask = json!({"jobType": "inference", "inputData": {"model": base["modelUrl"], "input": input}});
        let told = desk.host.result(&ask)["predictions"].clone();
        assert_eq!(told.as_array().unwrap().len(), count);
        assert_eq!(told[0]["prediction"], "setosa");
    }
}

pub(super) fn compute(desk: &Desk, rows: &Rows) {
    let told = |kernel: &str, amount: f64, seed: u64| {
        let input = json!({"kernel": kernel, "seed": seed});
        let job = json!({"jobType": "compute", "computeNeeded": amount, "inputData": input});
        let data = desk.host.result(&job)["computationData"].clone();
        assert_eq!(data["kernel"], kernel);
        data["result"].clone()
    };
    rows.show(&["computeNeeded of the job", "kernel primes"]);
    assert_eq!(told("primes", 0.0001, 0), 9592);
    assert_eq!(told("primes", 0.001, 0), 78498);
    rows.show(&["kernel sha256", "seed"]);
    // As README's program has it.
    let hash = told("sha256", 0.001, 1);
    assert!(hash.as_str().unwrap().starts_with("f8fdafe8e9185852"), "{hash}");
    assert_ne!(told("sha256", 0.001, 2), hash);
    rows.show(&["kernel matmul"]);
    let by_default = json!({"jobType": "compute", "computeNeeded": 0.0001, "inputData": {}});
    let by_default = desk.host.result(&by_default)["computationData"]["result"].clone();
    assert_eq!(told("matmul", 0.0001, 0), by_default);
    assert_ne!(told("matmul", 0.0001, 1), by_default);
}
