//! What training, fine-tuning and inference ask for.

use std::fmt::Display;

use serde_json::Value;

use super::{Problems, given};
use crate::backend::wire;
use crate::work::{FineTuning, Inference, Object, Source, Training};

const EPOCHS_MAX: u32 = 100_000;
const BATCH_MAX: usize = 65_536;
const WIDTH_MAX: usize = 16_384;
const HIDDEN_MAX: usize = 16;
const HIDDEN: usize = 128;
const BATCH: usize = 64;
const EPOCHS: f64 = 10.0;
const RATE: f64 = 0.001;
const RATE_MAX: f64 = 10.0;
const TEST: f64 = 0.2;
const TEST_MAX: f64 = 0.9;
const LABEL_MAX: usize = 200;

impl Problems {
    pub(super) fn training(
        &mut self,
        input: &Object,
        job: &wire::Job,
        amount: f64,
    ) -> Option<Training> {
        // Every field is looked at, whatever is wrong with another.
        let dataset = self.dataset(input, job);
        let training = Training {
            dataset: vec![],
            label: self.label(input),
            epochs: self.epochs(input, amount),
            batch_size: self.whole(input, "batchSize", BATCH, BATCH_MAX),
            learning_rate: self.fraction(input, "learningRate", RATE, RATE_MAX),
            hidden: self.hidden(input),
            seed: self.seed(input),
            test_fraction: self.fraction(input, "testFraction", TEST, TEST_MAX),
        };
        Some(Training { dataset: dataset?, ..training })
    }

    pub(super) fn fine_tuning(
        &mut self,
        input: &Object,
        job: &wire::Job,
        amount: f64,
    ) -> Option<FineTuning> {
        let base_model = self.needed(input, "baseModel", "the model to begin with");
        let freeze = given(input, "freeze").map_or(0, |value| {
            whole(value, 0, HIDDEN_MAX).unwrap_or_else(|| {
                self.bad("freeze", value, &format!("a whole number from 0 to {HIDDEN_MAX}"));
                0
            })
        });
        let training = self.training(input, job, amount);
        Some(FineTuning { base_model: base_model?, freeze, training: training? })
    }

    pub(super) fn inference(&mut self, input: &Object) -> Option<Inference> {
        let model = self.needed(input, "model", "the model to ask");
        let rows = match given(input, "input") {
            Some(rows @ Value::Array(_)) => Some(Source::Inline(rows.to_string().into_bytes())),
            _ => self.needed(input, "input", "a row of numbers, rows of them, or a file of rows"),
        };
        Some(Inference { model: model?, input: rows? })
    }

    /// The column of the label: its name, or its place in a file without names.
    fn label(&mut self, input: &Object) -> Option<String> {
        match given(input, "label")? {
            Value::String(label) if label.len() <= LABEL_MAX => Some(label.clone()),
            Value::Number(column) => Some(column.to_string()),
            value => {
                let wanted = format!("the name of a column, at most {LABEL_MAX} bytes");
                self.bad("label", value, &wanted);
                None
            }
        }
    }

    /// Where the rows are.
    fn dataset(&mut self, input: &Object, job: &wire::Job) -> Option<Vec<Source>> {
        let file = job.file_url.as_ref().filter(|url| !url.is_null() && *url != "");
        match (given(input, "dataset").or(file), names_mnist(job)) {
            (Some(Value::Array(files)), _) if files.len() == 2 => {
                let files: Vec<_> = files.iter().map(|file| self.source("dataset", file)).collect();
                files.into_iter().collect()
            }
            (Some(file), _) => self.dataset_source(file).map(|source| vec![source]),
            (None, true) => Some(vec![Source::Embedded("digits".into())]),
            (None, false) => {
                let known = super::source::datasets();
                self.bad.push(format!(
                    "dataset is missing: one of {known}, or {{\"url\": …}} or {{\"inline\": …}} \
                     with a CSV or JSONL file, or two of them for IDX"
                ));
                None
            }
        }
    }

    fn needed(&mut self, input: &Object, name: &str, what: &str) -> Option<Source> {
        match given(input, name) {
            Some(value) => self.source(name, value),
            None => {
                self.bad.push(format!("{name} is missing: {what}"));
                None
            }
        }
    }

    /// As said, or else by the amount of work.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    fn epochs(&mut self, input: &Object, amount: f64) -> u32 {
        let by_amount = (EPOCHS * amount).round().clamp(1.0, f64::from(EPOCHS_MAX)) as u32;
        self.whole(input, "epochs", by_amount, EPOCHS_MAX)
    }

    fn hidden(&mut self, input: &Object) -> Vec<usize> {
        let Some(value) = given(input, "hidden") else { return vec![HIDDEN] };
        let widths = value.as_array().filter(|widths| widths.len() <= HIDDEN_MAX);
        let width = |value: &Value| whole(value, 1, WIDTH_MAX);
        let widths = widths.and_then(|widths| widths.iter().map(width).collect());
        widths.unwrap_or_else(|| {
            let wanted =
                format!("a list of at most {HIDDEN_MAX} whole numbers from 1 to {WIDTH_MAX}");
            self.bad("hidden", value, &wanted);
            vec![]
        })
    }

    /// A whole number from 1 on.
    fn whole<N: Copy + Display + PartialOrd + From<u8> + TryFrom<u64>>(
        &mut self,
        input: &Object,
        name: &str,
        default: N,
        most: N,
    ) -> N {
        let Some(value) = given(input, name) else { return default };
        whole(value, N::from(1), most).unwrap_or_else(|| {
            self.bad(name, value, &format!("a whole number from 1 to {most}"));
            default
        })
    }

    /// A number above 0.
    fn fraction(&mut self, input: &Object, name: &str, default: f64, most: f64) -> f64 {
        let Some(value) = given(input, name) else { return default };
        value.as_f64().filter(|number| *number > 0.0 && *number <= most).unwrap_or_else(|| {
            self.bad(name, value, &format!("a number above 0, at most {most}"));
            default
        })
    }
}

fn whole<N: PartialOrd + TryFrom<u64>>(value: &Value, least: N, most: N) -> Option<N> {
    let number = N::try_from(value.as_u64()?).ok()?;
    (least..=most).contains(&number).then_some(number)
}

/// Some backends' wizards send no dataset for the jobs that they call so.
fn names_mnist(job: &wire::Job) -> bool {
    job.names().any(|name| name.to_lowercase().contains("mnist"))
}
