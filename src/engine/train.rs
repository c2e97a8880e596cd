//! Training and fine-tuning: so many epochs over a dataset, of which the best is kept.
//!
//! The result depends on the dataset, the lesson and the start alone, to the bit: not on the threads, the
//! processor or the time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::data::Table;
use super::data::split::{Split, split};
use super::data::standardise::standard;
use super::imprint::Imprint;
use super::model::{Layer, Model};
use super::net::{Means, Net, Pass, Score, lines};
use super::splitmix::SplitMix64;
use super::vector::{LANES, Level, Line};
use super::{Error, Progress};
use crate::text;

const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Rows that are judged together.
const JUDGED: usize = 256;
/// Floating-point operations of a step below which a second thread costs more than it brings.
const SHARED_FROM: usize = 5_000_000;
/// Of weights: as used, turned for the way back, and with two moments; as they began, are, and were best.
const BYTES_A_LINE: usize = 7 * size_of::<Line>();
/// Where the streams of seeded numbers begin: those of the epochs and of the layers.
const SHUFFLES: u64 = 1 << 32;
const STARTS: u64 = 1 << 33;

/// How to learn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lesson {
    pub(crate) epochs: u32,
    pub(crate) batch: usize,
    pub(crate) rate: f64,
    pub(crate) seed: u64,
    /// The share of the rows that are kept for the examination at the end.
    pub(crate) test: f64,
    /// The most it may take, in bytes.
    pub(crate) memory: u64,
}

/// What to begin with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// A new network with hidden layers of these widths.
    Afresh { hidden: Vec<usize> },
    /// One that has learnt before, whose first `frozen` layers stay as they are.
    From { model: Model, frozen: usize },
}

/// How one epoch went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epoch {
    /// From 1 on.
    pub(crate) number: u32,
    /// The mean over the training rows, while they were learnt.
    pub(crate) loss: f64,
    /// On the validation rows, after the epoch.
    pub(crate) validation: Marks,
}

/// How well rows were answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Marks {
    pub(crate) rows: usize,
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Learned {
    /// As it was after the best epoch.
    pub(crate) model: Model,
    pub(crate) epochs: Vec<Epoch>,
    /// The number of the epoch with the least loss on the validation rows.
    pub(crate) best: u32,
    /// On rows that had no part in the training, nor in the choice of the epoch.
    pub(crate) test: Marks,
    pub(crate) training_rows: usize,
    /// What the epochs took, without the judging between them.
    pub(crate) took: Duration,
}

/// Learns, and calls `report` about ten times a second.
pub(crate) fn train(
    table: Table,
    start: Start,
    lesson: &Lesson,
    threads: usize,
    report: &mut Report<'_>,
) -> Result<Learned, Error> {
    train_at(Level::best(), table, start, lesson, threads, report)
}

fn train_at(
    level: Level,
    table: Table,
    start: Start,
    lesson: &Lesson,
    threads: usize,
    report: &mut Report<'_>,
) -> Result<Learned, Error> {
    let split = split(&table.labels, lesson.test, lesson.seed).ok_or(Error::NothingToTest)?;
    // Before anything of that size is made.
    let widths = widths(&table, &start);
    let needs = bytes(&table, &widths, lesson.batch);
    if needs > lesson.memory {
        return Err(Error::TooLarge { needs, allowed: lesson.memory });
    }
    let (mut model, begun) = begin(&table, &split, start, lesson.seed)?;
    let weights: usize = widths.windows(2).map(|widths| widths[0] * widths[1]).sum();
    let shared = threads > 1 && 6 * weights * lesson.batch >= SHARED_FROM;
    let rows = Rows::new(table, &model);
    if begun.has_new_last {
        imprint(&mut model, &rows, &split.training, level);
    }
    let net = Net::new(&model, lesson.rate, begun.frozen);
    let mut course = Course {
        means: Means { level, shared },
        pass: net.pass(lesson.batch.max(JUDGED)),
        net,
        rows: &rows,
        split: &split,
        lesson,
        reported: Instant::now(),
        took: Duration::ZERO,
    };
    let (epochs, best, test) = if shared {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(Error::Threads)?.install(|| course.run(report))?
    } else {
        course.run(report)?
    };
    let model = Model { layers: course.net.layers(), ..model };
    let (training_rows, took) = (split.training.len(), course.took);
    Ok(Learned { model, epochs, best, test, training_rows, took })
}

/// What a course takes: the rows twice for a moment, a batch on its way, and of each weight what is
/// kept, used, remembered of it and best.
fn bytes(table: &Table, widths: &[usize], batch: usize) -> u64 {
    let weights = widths.windows(2).map(|widths| lines(widths[1]) * lines(widths[0]) * LANES);
    let rows = table.rows() * lines(table.features.len()) * size_of::<Line>();
    let pass = Pass::bytes(widths, batch.max(JUDGED));
    (2 * rows + pass + weights.sum::<usize>() * BYTES_A_LINE) as u64
}

/// Of the input, then of what each layer gives.
fn widths(table: &Table, start: &Start) -> Vec<usize> {
    let hidden = match start {
        Start::Afresh { hidden } => hidden.clone(),
        Start::From { model, .. } => {
            model.layers.iter().skip(1).map(|layer| layer.inputs).collect()
        }
    };
    [&[table.features.len()], &*hidden, &[table.classes.len()]].concat()
}

/// What is special about a network that has learnt before.
#[derive(Default)]
struct Begun {
    /// So many of its layers stay as they are.
    frozen: usize,
    /// Its last layer tells other classes apart than the one it came with.
    has_new_last: bool,
}

/// The network before the first epoch.
fn begin(table: &Table, split: &Split, start: Start, seed: u64) -> Result<(Model, Begun), Error> {
    match start {
        Start::Afresh { hidden } => {
            let standard = standard(table, &split.training);
            let widths = [&[table.features.len()], &*hidden, &[table.classes.len()]].concat();
            let layers = widths.windows(2).zip(0..);
            let model = Model {
                layers: layers.map(|(widths, n)| fresh(widths[0], widths[1], seed, n)).collect(),
                mean: standard.mean,
                scale: standard.scale,
                features: table.features.clone(),
                classes: table.classes.clone(),
                notes: vec![],
            };
            Ok((model, Begun::default()))
        }
        Start::From { mut model, frozen } => {
            let inputs = model.features.len();
            if inputs != table.features.len() {
                return Err(Error::Inputs { model: inputs, data: table.features.len() });
            }
            if let Some((model, data)) = misplaced(&model.features, &table.features) {
                let shown = |name| text::one_line(name, 60);
                return Err(Error::Order { model: shown(model), data: shown(data) });
            }
            let last = model.layers.len() - 1;
            if frozen > last {
                return Err(Error::Frozen { frozen, layers: last + 1 });
            }
            let has_new_last = model.classes != table.classes;
            if has_new_last {
                let (width, outputs) = (model.layers[last].inputs, table.classes.len());
                model.layers[last] = fresh(width, outputs, seed, last as u64);
                model.classes.clone_from(&table.classes);
            }
            Ok((model, Begun { frozen, has_new_last }))
        }
    }
}

/// The first column that stands elsewhere than in the model, and the model's in its place, where both have
/// the same names. Columns of other names are taken by their place.
fn misplaced<'a>(model: &'a [String], data: &'a [String]) -> Option<(&'a str, &'a str)> {
    let (wanted, found) = model.iter().zip(data).find(|(wanted, found)| wanted != found)?;
    let names = |of: &'a [String]| of.iter().collect::<BTreeSet<_>>();
    (names(model) == names(data)).then_some((wanted.as_str(), found.as_str()))
}

/// Gives the last layer a beginning from what the others make of the rows.
fn imprint(model: &mut Model, rows: &Rows, training: &[u32], level: Level) {
    let Some(last) = model.layers.last() else { return };
    let mut seen = Imprint::new(last.inputs, last.outputs);
    let net = Net::new(model, 0.0, 0);
    let mut pass = net.pass(JUDGED);
    for batch in training.chunks(JUDGED) {
        pass.fill(&rows.lines, rows.width, batch);
        let given = net.before_last(Means { level, shared: false }, &mut pass, batch.len());
        for (row, given) in batch.iter().zip(given) {
            seen.add(rows.labels[*row as usize], &given);
        }
    }
    if let (Some(last), Some(layer)) = (model.layers.last_mut(), seen.layer()) {
        *last = layer;
    }
}

/// A layer that knows nothing: drawn evenly from ±1/√inputs, as PyTorch does.
#[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest f32")]
fn fresh(inputs: usize, outputs: usize, seed: u64, layer: u64) -> Layer {
    let mut numbers = SplitMix64::stream(seed, STARTS + layer);
    let bound = (inputs as f64).sqrt().recip();
    let mut draw = |_| {
        let share = (numbers.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((2.0 * share - 1.0) * bound) as f32
    };
    let weight = (0..inputs * outputs).map(&mut draw).collect();
    Layer { inputs, outputs, weight, bias: (0..outputs).map(draw).collect() }
}

/// The rows of a dataset, standardised, each in so many lines.
struct Rows {
    lines: Vec<Line>,
    width: usize,
    labels: Vec<u32>,
}

impl Rows {
    fn new(table: Table, model: &Model) -> Self {
        let width = lines(table.features.len());
        let rows = (0..table.rows()).flat_map(|row| model.standardised(table.row(row)));
        Self { lines: rows.collect(), width, labels: table.labels }
    }
}

/// A course of epochs under way.
struct Course<'a> {
    means: Means,
    net: Net,
    pass: Pass,
    rows: &'a Rows,
    split: &'a Split,
    lesson: &'a Lesson,
    reported: Instant,
    took: Duration,
}

type Report<'a> = dyn FnMut(Progress) + Send + 'a;

impl Course<'_> {
    /// Goes through all epochs, returns to the best of them, and examines that.
    fn run(&mut self, report: &mut Report<'_>) -> Result<(Vec<Epoch>, u32, Marks), Error> {
        let mut epochs: Vec<Epoch> = vec![];
        let mut best: Option<(u32, f64, Vec<Layer>)> = None;
        for number in 1..=self.lesson.epochs {
            let start = Instant::now();
            let loss = self.learn(number, epochs.last(), report)?;
            self.took += start.elapsed();
            let validation = self.validate();
            if !validation.loss.is_finite() || !self.net.is_finite() {
                return Err(Error::Diverged { epoch: number, rate: self.lesson.rate });
            }
            if best.as_ref().is_none_or(|(_, least, _)| validation.loss < *least) {
                best = Some((number, validation.loss, self.net.layers()));
            }
            epochs.push(Epoch { number, loss, validation });
        }
        let mut kept = 0;
        if let Some((number, _, layers)) = best {
            kept = number;
            self.net.set(&layers);
        }
        let test = self.judge(&self.split.test);
        if !test.loss.is_finite() {
            return Err(Error::Diverged { epoch: kept, rate: self.lesson.rate });
        }
        report(told(100, self.lesson.epochs, self.lesson, epochs.last()));
        Ok((epochs, kept, test))
    }

    /// One epoch, every training row once. Returns the mean loss.
    fn learn(
        &mut self,
        epoch: u32,
        before: Option<&Epoch>,
        report: &mut Report<'_>,
    ) -> Result<f64, Error> {
        let mut order = self.split.training.clone();
        SplitMix64::stream(self.lesson.seed, SHUFFLES + u64::from(epoch)).shuffle(&mut order);
        let mut score = Score::default();
        let mut labels = vec![];
        for batch in order.chunks(self.lesson.batch) {
            self.take(batch, &mut labels);
            score.add(self.net.learn(self.means, &mut self.pass, &labels));
            if self.reported.elapsed() >= REPORT_EVERY {
                self.reported = Instant::now();
                let done = score.rows * 100 / order.len();
                let percent =
                    (u64::from(epoch - 1) * 100 + done as u64) / u64::from(self.lesson.epochs);
                report(told(u8::try_from(percent).unwrap_or(100), epoch, self.lesson, before));
            }
        }
        let loss = score.mean_loss();
        if loss.is_finite() {
            Ok(loss)
        } else {
            Err(Error::Diverged { epoch, rate: self.lesson.rate })
        }
    }

    /// Tells which epoch is the best. Where there are too few rows for that, by those of the training.
    fn validate(&mut self) -> Marks {
        let split = self.split;
        let rows = if split.validation.is_empty() { &split.training } else { &split.validation };
        self.judge(rows)
    }

    fn judge(&mut self, rows: &[u32]) -> Marks {
        let mut score = Score::default();
        let mut labels = vec![];
        for batch in rows.chunks(JUDGED) {
            self.take(batch, &mut labels);
            score.add(self.net.judge(self.means, &mut self.pass, &labels));
        }
        Marks { rows: score.rows, loss: score.mean_loss(), accuracy: score.accuracy() }
    }

    fn take(&mut self, batch: &[u32], labels: &mut Vec<u32>) {
        self.pass.fill(&self.rows.lines, self.rows.width, batch);
        labels.clear();
        labels.extend(batch.iter().map(|row| self.rows.labels[*row as usize]));
    }
}

fn told(percent: u8, epoch: u32, lesson: &Lesson, before: Option<&Epoch>) -> Progress {
    let so_far = before.map_or_else(String::new, |before| {
        let Marks { accuracy, .. } = before.validation;
        format!(", loss {:.4}, accuracy {accuracy:.4}", before.loss)
    });
    let operation = format!("epoch {epoch}/{}{so_far}", lesson.epochs);
    Progress { percent: percent.min(if epoch == lesson.epochs { 100 } else { 99 }), operation }
}

#[cfg(test)]
mod tests;
