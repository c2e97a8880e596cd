//! What a course promises: the same to the bit whatever runs it, the best epoch, and plain refusals.

use super::*;
use crate::engine::data::{Input, embedded, read};
use crate::engine::model::to_bytes;

const LESSON: Lesson =
    Lesson { epochs: 3, batch: 64, rate: 0.001, seed: 0, test: 0.2, memory: 1 << 30 };

fn table(name: &str) -> Table {
    let mut file = embedded::embedded(name).unwrap();
    read(Input { reader: &mut file, size: None }, None, 1 << 20).unwrap().table
}

/// So many rows of each of two classes, which one number tells apart.
fn pairs(rows: u32) -> Table {
    let labels: Vec<u32> = (0..2 * rows).map(|row| row % 2).collect();
    Table {
        features: vec!["x".into()],
        classes: vec!["no".into(), "yes".into()],
        values: labels.iter().map(|label| *label as f32).collect(),
        labels,
    }
}

fn afresh(hidden: &[usize]) -> Start {
    Start::Afresh { hidden: hidden.to_vec() }
}

fn learned(table: Table, start: Start, lesson: &Lesson) -> Learned {
    train(table, start, lesson, 1, &mut |_| {}).unwrap()
}

fn refused(table: Table, start: Start, lesson: &Lesson) -> String {
    train(table, start, lesson, 1, &mut |_| {}).unwrap_err().to_string()
}

#[test]
fn the_model_is_the_same_to_the_bit_for_any_vectors_and_threads() {
    // A step of this is large enough to be shared.
    let lesson = Lesson { batch: 512, ..LESSON };
    let model = |level, threads| {
        let start = afresh(&[96, 40]);
        let learned = train_at(level, table("digits"), start, &lesson, threads, &mut |_| {});
        to_bytes(&learned.unwrap().model)
    };
    let wanted = model(Level::best(), 1);
    for level in Level::all() {
        for threads in [1, 2, 4] {
            assert!(model(level, threads) == wanted, "{level:?} with {threads} threads");
        }
    }
}

#[test]
fn another_seed_is_another_model() {
    let model = |seed| learned(table("iris"), afresh(&[8]), &Lesson { seed, ..LESSON });
    assert_eq!(model(1).model, model(1).model);
    assert_ne!(model(1).model.layers, model(2).model.layers);
}

#[test]
fn the_best_epoch_is_kept_and_not_the_last() {
    // At this rate it is best early.
    let lesson = Lesson { epochs: 40, rate: 0.3, batch: 16, ..LESSON };
    let whole = learned(table("iris"), afresh(&[16]), &lesson);
    let least = |a: &&Epoch, b: &&Epoch| a.validation.loss.total_cmp(&b.validation.loss);
    let best = whole.epochs.iter().min_by(least).unwrap();
    assert_eq!(whole.best, best.number);
    assert!(whole.best < 40, "else this shows nothing");
    let short = learned(table("iris"), afresh(&[16]), &Lesson { epochs: whole.best, ..lesson });
    assert_eq!((short.model, short.test), (whole.model, whole.test));
}

#[test]
fn a_handful_of_rows_has_none_to_validate_on_and_is_learnt_all_the_same() {
    for rows in [2, 3, 5] {
        let lesson = Lesson { epochs: 200, rate: 0.05, ..LESSON };
        let Learned { test, epochs, training_rows, .. } =
            learned(pairs(rows), afresh(&[4]), &lesson);
        assert_eq!(test.accuracy, 1.0, "{rows}");
        let seen = epochs[0].validation.rows;
        assert!(seen == training_rows || seen + training_rows + test.rows == 2 * rows as usize);
    }
    let each_once = Table { labels: vec![0, 1], values: vec![0.0, 1.0], ..pairs(1) };
    assert!(refused(each_once, afresh(&[4]), &LESSON).starts_with("no class has two rows"));
}

#[test]
fn a_model_of_other_classes_gets_a_new_last_layer_and_keeps_the_others_classes_out() {
    let base = learned(table("iris"), afresh(&[8]), &LESSON).model;
    let table = Table { classes: ["a", "b", "c"].map(str::to_owned).to_vec(), ..table("iris") };
    let start = Start::From { model: base.clone(), frozen: 1 };
    let tuned = learned(table, start, &LESSON).model;
    assert_eq!(tuned.classes, ["a", "b", "c"]);
    assert_eq!((&tuned.layers[0], &tuned.mean), (&base.layers[0], &base.mean), "it was frozen");
    assert_ne!(tuned.layers[1], base.layers[1]);
}

#[test]
fn a_model_of_the_same_classes_goes_on_from_where_it_is() {
    let first = learned(table("iris"), afresh(&[8]), &Lesson { epochs: 50, rate: 0.01, ..LESSON });
    let start = Start::From { model: first.model, frozen: 0 };
    let on = learned(table("iris"), start, &Lesson { epochs: 1, ..LESSON });
    assert!(
        on.epochs[0].loss < first.epochs[0].loss / 2.0,
        "{:?} {:?}",
        on.epochs,
        first.epochs[0]
    );
}

#[test]
fn what_cannot_be_gone_on_from_is_refused() {
    let model = learned(table("iris"), afresh(&[8]), &LESSON).model;
    let from = |frozen| Start::From { model: model.clone(), frozen };
    assert_eq!(
        refused(table("iris"), from(2), &LESSON),
        "freeze is 2, but the model has 2 layers and the last one has to learn"
    );
    assert_eq!(
        refused(table("digits"), from(0), &LESSON),
        "the model takes 4 numbers a row, and the data has 64"
    );
    let mut swapped = table("iris");
    swapped.features.swap(0, 3);
    let told = refused(swapped.clone(), from(0), &LESSON);
    let (data, model) = (&swapped.features[0], &swapped.features[3]);
    assert_eq!(
        told,
        format!(
            "the data has the model's columns in another order, `{data}` where the model has \
             `{model}`: put them into the model's order"
        )
    );
}

#[test]
fn what_is_too_large_is_refused_with_the_numbers_before_it_is_made() {
    // Nobody has as much memory as these weights take.
    let start = afresh(&[16_384; 16]);
    assert_eq!(
        refused(table("iris"), start, &LESSON),
        "this network with its data needs about 105.5 GiB, this job may use 1 GiB: \
         take fewer rows or narrower layers"
    );
    let wide = Lesson { batch: 65_536, ..LESSON };
    assert!(refused(table("iris"), afresh(&[4096]), &wide).contains("needs about 2 GiB"));
}

#[test]
fn learning_that_diverges_names_the_epoch_and_the_rate() {
    let lesson = Lesson { rate: 10.0, batch: 16, epochs: 20, ..LESSON };
    assert_eq!(
        refused(table("digits"), afresh(&[64; 16]), &lesson),
        "learning diverged in epoch 1: the loss is no number any more; \
         a learningRate below 10 would help"
    );
}

#[test]
fn progress_never_goes_back_and_ends_with_100() {
    let mut told = vec![];
    let mut tell = |progress: Progress| told.push(progress);
    train(table("digits"), afresh(&[256]), &Lesson { epochs: 20, ..LESSON }, 1, &mut tell).unwrap();
    assert!(told.is_sorted_by_key(|progress| progress.percent), "{told:?}");
    let last = told.last().unwrap();
    assert_eq!(last.percent, 100);
    assert!(last.operation.starts_with("epoch 20/20, loss 0."), "{last:?}");
    assert_eq!(told.iter().filter(|progress| progress.percent == 100).count(), 1);
}
