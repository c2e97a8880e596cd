//! What the engine's child does for training, fine-tuning and inference: opens what the job names, lets
//! the engine work, writes the model and the result.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::tls::TlsConfig;

use crate::cid::{self, Version};
use crate::engine::{
    self, Answer, DataError, Dataset, Epoch, Input, Learned, Lesson, Model, ModelLimits, Progress,
    Start,
};
use crate::fetch::{self, Wanted};
use crate::machine;
use crate::store::replace;
use crate::text;
use crate::work::{FineTuning, Inference, Reason, Source, Stage, Training, digest};

/// The share of the progress that downloads take where there are any.
const DOWNLOADED: u8 = 10;
const MODEL: &str = "model.safetensors";
const PREDICTIONS: &str = "predictions.jsonl";
/// How many answers and epochs stand in a result: some backends take no body of more than 100 kB.
const ANSWERS_MAX: usize = 1000;
const EPOCHS_SHOWN: usize = 200;
/// Of models that are loaded.
const LAYERS_MAX: usize = 64;
const WIDTH_MAX: usize = 1 << 20;
/// A weight as it is read, kept, and used, with what the optimiser remembers of it.
const BYTES_A_PARAMETER: u64 = 32;
/// In memory and as a line with a short class, before and after it has grown.
const BYTES_AN_ANSWER: u64 = 256;
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Why it cannot be done, fit to be told to the job's owner.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) stage: Stage,
    pub(super) error: String,
}

/// Where the job's files are, and what it may use.
pub(super) struct Desk<'a> {
    pub(super) input: &'a Path,
    pub(super) output: &'a Path,
    /// In bytes, of this process.
    pub(super) memory: u64,
    pub(super) private_downloads: bool,
}

/// A model file and how it came to be, as the job's result.
pub(super) fn train(
    desk: &Desk<'_>,
    task: &Training,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<Value, Refused> {
    let dataset = desk.dataset(task, tell)?;
    let start = Start::Afresh { hidden: task.hidden.clone() };
    desk.learn(task, dataset, start, vec![], tell)
}

/// The same, beginning with a model.
pub(super) fn fine_tune(
    desk: &Desk<'_>,
    task: &FineTuning,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<Value, Refused> {
    let (model, address) = desk.model("baseModel", &task.base_model, tell)?;
    let dataset = desk.dataset(&task.training, tell)?;
    let start = Start::From { model, frozen: task.freeze };
    let note = ("baseModel".into(), address);
    let mut result = desk.learn(&task.training, dataset, start, vec![note], tell)?;
    result["checkpointUrl"] = result["modelUrl"].clone();
    let data = &mut result["computationData"];
    data["validation_accuracy"] = data["accuracy"].take();
    if let Some(data) = data.as_object_mut() {
        data.remove("accuracy");
    }
    Ok(result)
}

/// What a model says of each row.
pub(super) fn infer(
    desk: &Desk<'_>,
    task: &Inference,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<Value, Refused> {
    let (model, address) = desk.model("model", &task.model, tell)?;
    let (mut file, size) = desk.open("input", &task.input, tell)?;
    let input = Input { reader: &mut file, size };
    let rows = engine::rows(input, &model.features, desk.memory / 4)
        .map_err(|error| unreadable("input", &error))?;
    let count = rows.len() / model.features.len();
    let (needs, allowed) = (count as u64 * BYTES_AN_ANSWER, desk.memory / 4);
    if needs > allowed {
        return Err(refused(&engine::Error::TooLarge { needs, allowed }));
    }
    let answers = engine::answer(&model, &rows, &mut |progress| tell(progress))
        .map_err(|error| refused(&error))?;
    let shown = answers.iter().map(|answer| shown(answer, &model));
    let mut result = json!({
        "modelUrl": format!("ipfs://{address}"),
        "rows": count,
        "latency": latencies(&answers),
        "predictions": shown.clone().take(ANSWERS_MAX).collect::<Vec<_>>(),
        "artefacts": [],
    });
    if count > ANSWERS_MAX {
        let lines: String = shown.map(|answer| format!("{answer}\n")).collect();
        let url = desk.keep(PREDICTIONS, lines.as_bytes())?;
        result["predictionsUrl"] = json!(url);
        result["artefacts"] = json!([{"path": PREDICTIONS}]);
    }
    Ok(result)
}

fn shown(answer: &Answer, model: &Model) -> Value {
    json!({
        "prediction": model.classes[answer.class as usize],
        "confidence": rounded(f64::from(answer.confidence), 1e6),
        "latency_ms": milliseconds(answer.latency),
    })
}

/// Half of the rows took at most the first, all but one in a hundred at most the second.
fn latencies(answers: &[Answer]) -> Value {
    let mut sorted: Vec<Duration> = answers.iter().map(|answer| answer.latency).collect();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted.get(last * percent / 100).copied().map(milliseconds)
    };
    json!({"p50_ms": at(50), "p99_ms": at(99)})
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3, 1e6)
}

fn rounded(value: f64, units: f64) -> f64 {
    (value * units).round() / units
}

impl Desk<'_> {
    fn learn(
        &self,
        task: &Training,
        dataset: Dataset,
        start: Start,
        mut notes: Vec<(String, String)>,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Value, Refused> {
        let lesson = Lesson {
            epochs: task.epochs,
            batch: task.batch_size,
            rate: task.learning_rate,
            seed: task.seed,
            test: task.test_fraction,
            memory: self.memory,
        };
        let hash = dataset.table.hash();
        let mut about = json!({
            "format": dataset.format,
            "label": dataset.label,
            "rows": dataset.table.rows(),
            "features": dataset.table.features.len(),
            "classes": dataset.table.classes.len(),
            "sha256": hash,
        });
        if let [Source::Embedded(name)] = &*task.dataset {
            about["name"] = json!(name);
        }
        let downloads = task.dataset.iter().any(|source| matches!(source, Source::Url { .. }));
        let first = if downloads { DOWNLOADED } else { 0 };
        let mut scaled = |progress: Progress| {
            let part = u32::from(progress.percent) * u32::from(100 - first) / 100;
            let percent = first + u8::try_from(part).unwrap_or(100 - first);
            tell(Progress { percent, ..progress });
        };
        let threads = machine::threads();
        let learned = engine::train(dataset.table, start, &lesson, threads, &mut scaled)
            .map_err(|error| refused(&error))?;
        about["trainingRows"] = json!(learned.training_rows);
        about["testRows"] = json!(learned.test.rows);
        notes.extend(notes_of(task, &learned, &hash));
        let learnt = learned.training_rows as f64 * f64::from(task.epochs);
        let seconds = learned.took.as_secs_f64();
        let model = Model { notes, ..learned.model.clone() };
        let url = self.keep(MODEL, &engine::to_bytes(&model))?;
        Ok(json!({
            "modelUrl": url,
            "finalMetrics": {
                "finalLoss": learned.test.loss,
                "finalAccuracy": learned.test.accuracy,
            },
            "computationData": last(&learned),
            "trainingSeconds": rounded(seconds, 1e6),
            "examplesPerSecond": rounded(learnt / seconds.max(1e-9), 1.0),
            "trainingMetrics": thinned(&learned.epochs).map(told).collect::<Vec<_>>(),
            "dataset": about,
            "artefacts": [{"path": MODEL}],
        }))
    }

    /// Writes a file for the store, and says what it will be called there.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<String, Refused> {
        let address = cid::address(&mut &*bytes, Version::V1).map_err(|error| internal(&error))?;
        replace(&self.output.join(name), bytes).map_err(|error| internal(&error))?;
        Ok(format!("ipfs://{}", address.cid))
    }

    fn dataset(
        &self,
        task: &Training,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Dataset, Refused> {
        let label = task.label.as_deref();
        let read = match &*task.dataset {
            [Source::Embedded(name)] => {
                let mut bytes = engine::embedded(name)
                    .ok_or_else(|| bad_input(format!("there is no dataset {name}")))?;
                let size = Some(bytes.len() as u64);
                engine::read(Input { reader: &mut bytes, size }, label, self.memory)
            }
            [source] => {
                let (mut file, size) = self.open("dataset", source, tell)?;
                engine::read(Input { reader: &mut file, size }, label, self.memory)
            }
            sources => {
                let mut opened = vec![];
                for source in sources {
                    opened.push(self.open("dataset", source, tell)?);
                }
                let [(one, size), (other, other_size)] = &mut opened[..] else {
                    return Err(bad_input("dataset: one file, or two of IDX".into()));
                };
                let one = Input { reader: one, size: *size };
                engine::read_pair(one, Input { reader: other, size: *other_size }, self.memory)
            }
        };
        read.map_err(|error| unreadable("dataset", &error))
    }

    fn model(
        &self,
        name: &str,
        source: &Source,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(Model, String), Refused> {
        let bytes = self.read(&self.file(name, source, tell)?)?;
        let parameters = usize::try_from(self.memory / BYTES_A_PARAMETER).unwrap_or(usize::MAX);
        let limits = ModelLimits { layers: LAYERS_MAX, width: WIDTH_MAX, parameters };
        let model = engine::from_bytes(&bytes, limits)
            .map_err(|error| bad_input(format!("{name}: {error}")))?;
        let address = cid::address(&mut &*bytes, Version::V1).map_err(|error| internal(&error))?;
        Ok((model, address.cid.to_string()))
    }

    fn open(
        &self,
        name: &str,
        source: &Source,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(File, Option<u64>), Refused> {
        let path = self.file(name, source, tell)?;
        let file = File::open(&path).map_err(|error| internal(&error))?;
        let size = file.metadata().ok().map(|meta| meta.len());
        Ok((file, size))
    }

    /// The whole of a file that is to fit into memory.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Refused> {
        let size = path.metadata().map_err(|error| internal(&error))?.len();
        let most = self.memory / 4;
        if size > most {
            let (size, most) = (text::size(size), text::size(most));
            return Err(bad_input(format!("a file of {size} is too large: the most is {most}")));
        }
        std::fs::read(path).map_err(|error| internal(&error))
    }

    /// Where a source's bytes lie, once they are here.
    fn file(
        &self,
        name: &str,
        source: &Source,
        tell: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<PathBuf, Refused> {
        match source {
            Source::File(file) => Ok(self.input.join(file)),
            Source::Url { url, sha256 } => {
                let path = self.input.join(format!("{name}-{}", digest(&[url])));
                let sha256 = sha256.as_deref();
                let wanted = Wanted { url, sha256, token: None, bytes_max: fetch::BYTES_MAX };
                let mut downloaded = download_progress(name, tell);
                let agent = fetch::agent(self.private_downloads, TlsConfig::default());
                match fetch::fetch(&agent, wanted, &path, &mut downloaded) {
                    Ok(()) => Ok(path),
                    Err(error) => Err(not_fetched(error)),
                }
            }
            Source::Embedded(_) | Source::Inline(_) | Source::Artefact(_) => {
                Err(bad_input(format!("{name} is not a file")))
            }
        }
    }
}

/// Tells about ten times a second how much is here.
fn download_progress<'a>(
    name: &'a str,
    tell: &'a mut (dyn FnMut(Progress) + Send),
) -> impl FnMut(u64, Option<u64>) + 'a {
    let mut told: Option<Instant> = None;
    move |bytes, size| {
        if told.is_some_and(|told| told.elapsed() < REPORT_EVERY) {
            return;
        }
        told = Some(Instant::now());
        let part = size.map_or(0, |size| bytes * u64::from(DOWNLOADED) / size.max(1));
        let percent = u8::try_from(part).unwrap_or(DOWNLOADED).min(DOWNLOADED);
        let of = size.map_or_else(String::new, |size| format!(" of {}", text::size(size)));
        let operation = format!("downloading {name}, {}{of}", text::size(bytes));
        tell(Progress { percent, operation });
    }
}

/// What somebody wants to know who finds the model without the job; nothing of this machine, so that the
/// same training gives the same bytes everywhere.
fn notes_of(task: &Training, learned: &Learned, hash: &str) -> Vec<(String, String)> {
    let test = learned.test;
    [
        ("dataset", hash.to_owned()),
        ("epochs", task.epochs.to_string()),
        ("bestEpoch", learned.best.to_string()),
        ("batchSize", task.batch_size.to_string()),
        ("learningRate", task.learning_rate.to_string()),
        ("seed", task.seed.to_string()),
        ("testFraction", task.test_fraction.to_string()),
        ("testRows", test.rows.to_string()),
        ("testLoss", test.loss.to_string()),
        ("testAccuracy", test.accuracy.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The epoch that was kept.
fn last(learned: &Learned) -> Value {
    let kept = learned.epochs.iter().find(|epoch| epoch.number == learned.best);
    kept.map_or(Value::Null, |epoch| {
        let Epoch { number, loss, validation } = epoch;
        json!({"epoch": number, "loss": loss, "accuracy": validation.accuracy})
    })
}

/// Evenly few enough, with the last.
fn thinned(epochs: &[Epoch]) -> impl Iterator<Item = &Epoch> {
    let step = epochs.len().div_ceil(EPOCHS_SHOWN).max(1);
    epochs.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev()
}

fn told(epoch: &Epoch) -> Value {
    let Epoch { number, loss, validation } = epoch;
    json!({
        "epoch": number,
        "loss": loss,
        "validationLoss": validation.loss,
        "accuracy": validation.accuracy,
    })
}

/// The job's owner can do something about it.
fn bad_input(error: String) -> Refused {
    Refused { reason: Reason::BadInput, stage: Stage::Inputs, error }
}

fn unreadable(name: &str, error: &DataError) -> Refused {
    match error {
        DataError::Bad(_) | DataError::TooLarge { .. } => bad_input(format!("{name}: {error}")),
        DataError::Read(_) => internal(error),
    }
}

fn not_fetched(error: fetch::Error) -> Refused {
    let (reason, error) = match error {
        fetch::Error::Theirs(error) => (Reason::DownloadFailed, error),
        fetch::Error::Ours(error) => (Reason::Internal, error),
    };
    Refused { reason, stage: Stage::Inputs, error }
}

fn internal(error: &(dyn Error + 'static)) -> Refused {
    let mut whole = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        whole.push_str(": ");
        whole.push_str(&error.to_string());
        cause = error.source();
    }
    let error = whole;
    Refused { reason: Reason::Internal, stage: Stage::Run, error }
}

fn refused(error: &engine::Error) -> Refused {
    match error {
        engine::Error::WrongProduct(_)
        | engine::Error::Thread { .. }
        | engine::Error::Threads(_) => internal(error),
        engine::Error::NothingToTest
        | engine::Error::Diverged { .. }
        | engine::Error::Inputs { .. }
        | engine::Error::Order { .. }
        | engine::Error::Overflow { .. }
        | engine::Error::Frozen { .. }
        | engine::Error::TooLarge { .. } => {
            Refused { reason: Reason::BadInput, stage: Stage::Run, error: error.to_string() }
        }
    }
}
