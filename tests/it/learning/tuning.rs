//! Fine-tuning: what was learnt before helps, and what is frozen stays.

use serde_json::{Value, json};

use super::{artefact, digits_of, ended, inline, job, result, tensor, training};
use crate::support::{Home, keys};

/// A model of the digits 0 to 4, and the home of the worker that made it.
fn base() -> (Home, Value) {
    let home = Home::new();
    let task = json!({"dataset": inline(digits_of("01234")), "epochs": 30});
    let told = ended(&home, &[training("base", task)], &[]);
    (home, result(&told[0]).clone())
}

fn tuned(home: &Home, input: Value) -> Value {
    result(&ended(home, &[job("tuned", "fine-tuning", input)], &[])[0]).clone()
}

/// The loss on the validation rows after each epoch.
fn losses(result: &Value) -> Vec<f64> {
    let epochs = result["trainingMetrics"].as_array().unwrap();
    epochs.iter().map(|epoch| epoch["validationLoss"].as_f64().unwrap()).collect()
}

#[test]
fn five_epochs_from_a_model_of_other_digits_do_what_ten_afresh_do_not() {
    let (home, base) = base();
    let dataset = inline(digits_of("56789"));
    let task = json!({"baseModel": base["modelUrl"], "dataset": dataset, "epochs": 5});
    let tuned = tuned(&home, task);
    let afresh = training("afresh", json!({"dataset": dataset, "epochs": 30}));
    let told = ended(&home, &[afresh], &[]);
    let reached = losses(&tuned)[4];
    let afresh = losses(result(&told[0]));
    let epochs = afresh.iter().position(|loss| *loss <= reached).map_or(31, |at| at + 1);
    assert!(epochs >= 10, "{reached} after 5 epochs, and afresh after {epochs}: {afresh:?}");
    let accuracy = tuned["finalMetrics"]["finalAccuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.95, "{accuracy}");
    assert_eq!(tuned["checkpointUrl"], tuned["modelUrl"]);
    assert_eq!(keys(&tuned["computationData"]), ["epoch", "loss", "validation_accuracy"]);
}

#[test]
fn frozen_layers_stay_as_they_are_to_the_bit() {
    let (home, base) = base();
    let task = json!({
        "baseModel": base["modelUrl"], "dataset": inline(digits_of("56789")), "freeze": 1,
        "epochs": 3,
    });
    let tuned = tuned(&home, task);
    let [before, after] = [&base, &tuned].map(|result| artefact(&home, result));
    for kept in ["input.mean", "input.scale", "0.weight", "0.bias"] {
        assert_eq!(tensor(&before, kept), tensor(&after, kept), "{kept}");
    }
    for learnt in ["2.weight", "2.bias"] {
        assert_ne!(tensor(&before, learnt), tensor(&after, learnt), "{learnt}");
    }
    let classes = super::opened(&after).0["__metadata__"]["classes"].clone();
    assert_eq!(classes, r#"["5","6","7","8","9"]"#);
}

#[test]
fn freezing_every_layer_leaves_none_to_learn_and_is_refused() {
    let (home, base) = base();
    let input = json!({"baseModel": base["modelUrl"], "dataset": "digits", "freeze": 2});
    let told = ended(&home, &[job("tuned", "fine-tuning", input)], &[]);
    assert_eq!(
        super::error(&told[0], "bad_input", "run"),
        "freeze is 2, but the model has 2 layers and the last one has to learn"
    );
}

#[test]
fn a_model_of_other_inputs_than_the_data_has_is_refused() {
    let (home, base) = base();
    let input = json!({"baseModel": base["modelUrl"], "dataset": "iris"});
    let told = ended(&home, &[job("tuned", "fine-tuning", input)], &[]);
    assert_eq!(
        super::error(&told[0], "bad_input", "run"),
        "the model takes 64 numbers a row, and the data has 4"
    );
}
