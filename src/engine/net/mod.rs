//! A dense network while it learns or answers: ReLU between its layers, softmax at the end.
//!
//! Work is split over threads by outputs and never by a sum, so that the weights are the same to the
//! bit for any number of threads.

mod adam;
mod kernel;
mod math;
mod softmax;

use rayon::prelude::*;

use super::model::{Layer, Model};
use super::vector::{LANES, Level, Line};
use adam::{Adam, Moments};

/// Lines of a panel, which is what one thread works on.
const PANEL: usize = 2;
const ZERO: Line = Line::splat(0.0);

/// How the work is done; the results don't depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    pub(super) level: Level,
    /// Whether the threads of the pool around are to share it.
    pub(super) shared: bool,
}

/// The layers, as the kernels want them.
pub(super) struct Net {
    layers: Vec<Dense>,
    /// The first so many layers stay as they are.
    frozen: usize,
    adam: Adam,
}

/// One layer.
struct Dense {
    inputs: usize,
    outputs: usize,
    panels: Vec<Panel>,
}

/// What belongs to 16 or 32 outputs of a layer.
struct Panel {
    lines: usize,
    /// For each input in turn its lines, then the biases.
    weights: Vec<Line>,
    moments: Vec<Moments>,
    /// The next layer's weights of these outputs as inputs, for each of its outputs in turn.
    onward: Vec<Line>,
}

/// A batch on its way through the network and back.
pub(super) struct Pass {
    /// Rows of the batch, with those of zeros.
    padded: usize,
    /// The input, then what each layer made of it; the last is made to probabilities.
    values: Vec<Vec<Line>>,
    /// Of the loss, by what each layer gave.
    gradients: Vec<Vec<Line>>,
}

/// A panel, what it gives, and what it gave on the way there.
type Turn<'a> = ((&'a mut Panel, &'a mut [Line]), &'a [Line]);

/// How well rows were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Score {
    pub(super) rows: usize,
    /// The sum of the cross-entropies.
    pub(super) loss: f64,
    pub(super) right: usize,
}

impl Score {
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.loss += other.loss;
        self.right += other.right;
    }

    /// Of one row.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.rows as f64
    }

    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.rows as f64
    }
}

/// How many lines hold so many numbers.
pub(super) fn lines(numbers: usize) -> usize {
    numbers.div_ceil(LANES)
}

impl Net {
    pub(super) fn new(model: &Model, rate: f64, frozen: usize) -> Self {
        let mut layers: Vec<_> = model.layers.iter().map(Dense::new).collect();
        // What the gradient passes through on its way back.
        let onward: Vec<_> = layers[1..].iter().map(|next| lines(next.outputs) * LANES).collect();
        for (layer, outputs) in layers.iter_mut().zip(onward) {
            for panel in &mut layer.panels {
                panel.onward = vec![ZERO; outputs * panel.lines];
            }
        }
        Self { layers, frozen, adam: Adam::new(rate) }
    }

    /// The layers as they are kept.
    pub(super) fn layers(&self) -> Vec<Layer> {
        self.layers.iter().map(Dense::layer).collect()
    }

    /// Whether all weights are numbers still: a hidden layer passes nothing on that is none.
    pub(super) fn is_finite(&self) -> bool {
        let panels = self.layers.iter().flat_map(|layer| &layer.panels);
        let mut values = panels.flat_map(|panel| &panel.weights).flat_map(|line| &line.0);
        values.all(|value| value.is_finite())
    }

    /// Takes the weights back from how they are kept; what Adam remembers stays.
    pub(super) fn set(&mut self, layers: &[Layer]) {
        for (dense, layer) in self.layers.iter_mut().zip(layers) {
            for (panel, line) in dense.panels.iter_mut().zip((0..).step_by(PANEL)) {
                panel.weights = Panel::new(layer, line).weights;
            }
        }
    }

    /// Room for batches of up to so many rows.
    pub(super) fn pass(&self, rows: usize) -> Pass {
        let padded = rows.next_multiple_of(kernel::ROWS);
        let widths = self.layers.iter().map(|layer| layer.outputs);
        let room = |width| vec![ZERO; lines(width) * padded];
        let gradients: Vec<_> = widths.map(room).collect();
        let values = [room(self.layers[0].inputs)].into_iter().chain(gradients.clone()).collect();
        Pass { padded, values, gradients }
    }

    /// One step of learning on the batch in `pass`.
    pub(super) fn learn(&mut self, means: Means, pass: &mut Pass, labels: &[u32]) -> Score {
        self.forward(means, pass);
        let score = self.compare(means, pass, labels);
        self.backward(means, pass);
        self.adam.next();
        let adam = &self.adam;
        let work = |(n, layer): (usize, &mut Dense)| {
            // A buffer may have room for more rows, and the rest of an earlier batch in it.
            let input = &pass.values[n][..lines(layer.inputs) * pass.padded];
            let gradient = &pass.gradients[n][..lines(layer.outputs) * pass.padded];
            let work = |(panel, gradient): (&mut Panel, &[Line])| {
                let Panel { lines, weights, moments, .. } = panel;
                let panel = kernel::Learned { weights, moments };
                kernel::update(means.level, *lines, input, gradient, panel, adam);
            };
            let chunk = PANEL * pass.padded;
            if means.shared {
                layer.panels.par_iter_mut().zip(gradient.par_chunks(chunk)).for_each(work);
            } else {
                layer.panels.iter_mut().zip(gradient.chunks(chunk)).for_each(work);
            }
        };
        let frozen = self.frozen;
        if means.shared {
            self.layers.par_iter_mut().enumerate().skip(frozen).for_each(work);
        } else {
            self.layers.iter_mut().enumerate().skip(frozen).for_each(work);
        }
        score
    }

    /// Takes the batch in `pass` through all layers: its last values are logits from then on.
    fn forward(&self, means: Means, pass: &mut Pass) {
        let last = self.layers.len() - 1;
        for (n, layer) in self.layers.iter().enumerate() {
            let padded = pass.padded;
            let (before, after) = pass.values.split_at_mut(n + 1);
            let input = &before[n][..lines(layer.inputs) * padded];
            let out = &mut after[0][..lines(layer.outputs) * padded];
            let work = |(panel, out): (&Panel, &mut [Line])| {
                panel.forward(means.level, input, out, n < last);
            };
            if means.shared {
                layer.panels.par_iter().zip(out.par_chunks_mut(PANEL * padded)).for_each(work);
            } else {
                layer.panels.iter().zip(out.chunks_mut(PANEL * padded)).for_each(work);
            }
        }
    }

    /// How well the batch in `pass` is answered.
    pub(super) fn judge(&self, means: Means, pass: &mut Pass, labels: &[u32]) -> Score {
        self.forward(means, pass);
        self.compare(means, pass, labels)
    }

    /// The most probable class of each of the first `rows` rows, and how probable it is.
    pub(super) fn answer(&self, means: Means, pass: &mut Pass, rows: usize) -> Vec<(u32, f32)> {
        self.forward(means, pass);
        let (Some(layer), Some(logits)) = (self.layers.last(), pass.values.last()) else {
            return vec![];
        };
        let logits = &logits[..lines(layer.outputs) * pass.padded];
        softmax::answer(means.level, logits, rows, layer.outputs)
    }

    /// What the last layer is given for each of the first `rows` rows of the batch in `pass`.
    pub(super) fn before_last(
        &self,
        means: Means,
        pass: &mut Pass,
        rows: usize,
    ) -> impl Iterator<Item = Vec<f32>> {
        self.forward(means, pass);
        let last = self.layers.len() - 1;
        let (width, padded, values) = (self.layers[last].inputs, pass.padded, &pass.values[last]);
        let value = move |row: usize, at: usize| values[at / LANES * padded + row].0[at % LANES];
        (0..rows).map(move |row| (0..width).map(|at| value(row, at)).collect())
    }

    /// Compares the logits with what is right, and leaves the gradient of the loss.
    fn compare(&self, means: Means, pass: &mut Pass, labels: &[u32]) -> Score {
        let Some(layer) = self.layers.last() else { return Score::default() };
        let size = lines(layer.outputs) * pass.padded;
        let (Some(logits), Some(gradient)) = (pass.values.last(), pass.gradients.last_mut()) else {
            return Score::default();
        };
        let (logits, gradient) = (&logits[..size], &mut gradient[..size]);
        softmax::compare(means.level, logits, gradient, labels, layer.outputs)
    }

    /// Takes the gradient back to the first layer that learns.
    fn backward(&mut self, means: Means, pass: &mut Pass) {
        for n in (self.frozen + 1..self.layers.len()).rev() {
            let (before, after) = self.layers.split_at_mut(n);
            let (layer, next) = (&mut before[n - 1], &after[0]);
            let padded = pass.padded;
            let (lower, upper) = pass.gradients.split_at_mut(n);
            let from = &upper[0][..lines(next.outputs) * padded];
            let to = &mut lower[n - 1][..lines(layer.outputs) * padded];
            let values = &pass.values[n][..lines(layer.outputs) * padded];
            let chunk = PANEL * padded;
            let work = |(at, ((panel, to), values)): (usize, Turn<'_>)| {
                next.turn(at * PANEL, panel);
                panel.backward(means.level, from, to, values);
            };
            if means.shared {
                let targets = layer.panels.par_iter_mut().zip(to.par_chunks_mut(chunk));
                targets.zip(values.par_chunks(chunk)).enumerate().for_each(work);
            } else {
                let targets = layer.panels.iter_mut().zip(to.chunks_mut(chunk));
                targets.zip(values.chunks(chunk)).enumerate().for_each(work);
            }
        }
    }
}

impl Dense {
    fn new(layer: &Layer) -> Self {
        let starts = (0..lines(layer.outputs)).step_by(PANEL);
        let panels = starts.map(|line| Panel::new(layer, line)).collect();
        Self { inputs: layer.inputs, outputs: layer.outputs, panels }
    }

    fn layer(&self) -> Layer {
        let Self { inputs, outputs, .. } = *self;
        let mut layer = Layer {
            inputs,
            outputs,
            weight: vec![0.0; inputs * outputs],
            bias: vec![0.0; outputs],
        };
        for (panel, first) in self.panels.iter().zip((0..).step_by(PANEL * LANES)) {
            let width = panel.lines * LANES;
            for output in first..outputs.min(first + width) {
                let at = |input: usize| {
                    let column = output - first;
                    panel.weights[input * panel.lines + column / LANES].0[column % LANES]
                };
                for input in 0..inputs {
                    layer.weight[output * inputs + input] = at(input);
                }
                layer.bias[output] = at(lines(inputs) * LANES);
            }
        }
        layer
    }

    /// Writes the weights of the inputs from `first` on into the panel that makes these inputs.
    fn turn(&self, first: usize, before: &mut Panel) {
        let width = before.lines;
        let chunks = before.onward.chunks_mut(PANEL * LANES * width);
        for (panel, onward) in self.panels.iter().zip(chunks) {
            let weights = &panel.weights[first * LANES * panel.lines..];
            for (at, block) in weights.chunks_exact(LANES * panel.lines).take(width).enumerate() {
                for line in 0..panel.lines {
                    let block: [&Line; LANES] =
                        std::array::from_fn(|input| &block[input * panel.lines + line]);
                    for output in 0..LANES {
                        let place = &mut onward[(line * LANES + output) * width + at];
                        for (place, line) in place.0.iter_mut().zip(block) {
                            *place = line.0[output];
                        }
                    }
                }
            }
        }
    }
}

impl Panel {
    fn new(layer: &Layer, first: usize) -> Self {
        let width = PANEL.min(lines(layer.outputs) - first);
        let inputs = lines(layer.inputs) * LANES;
        let mut weights = vec![ZERO; (inputs + 1) * width];
        for output in first * LANES..layer.outputs.min((first + width) * LANES) {
            let column = output - first * LANES;
            let mut put = |input: usize, weight: f32| {
                weights[input * width + column / LANES].0[column % LANES] = weight;
            };
            let of_output = &layer.weight[output * layer.inputs..][..layer.inputs];
            for (input, weight) in of_output.iter().enumerate() {
                put(input, *weight);
            }
            put(inputs, layer.bias[output]);
        }
        let moments = vec![Moments::ZERO; weights.len()];
        Self { lines: width, weights, moments, onward: vec![] }
    }

    fn forward(&self, level: Level, input: &[Line], out: &mut [Line], hidden: bool) {
        let (weights, bias) = self.weights.split_at(self.weights.len() - self.lines);
        kernel::product(level, self.lines, input, weights, bias, out);
        if hidden {
            kernel::relu(level, out);
        }
    }

    fn backward(&self, level: Level, from: &[Line], to: &mut [Line], values: &[Line]) {
        kernel::product(level, self.lines, from, &self.onward, &[ZERO; PANEL], to);
        kernel::unrelu(level, to, values);
    }
}

impl Model {
    /// A row as the network takes it.
    pub(super) fn standardised(&self, row: &[f32]) -> Vec<Line> {
        let mut out = vec![ZERO; lines(row.len())];
        let columns = row.iter().zip(&self.mean).zip(&self.scale);
        for (at, ((value, mean), scale)) in columns.enumerate() {
            out[at / LANES].0[at % LANES] = (value - mean) * scale;
        }
        out
    }
}

impl Pass {
    /// How many bytes a pass of so many rows takes, for layers of these widths.
    pub(super) fn bytes(widths: &[usize], rows: usize) -> usize {
        let numbers: usize = widths.iter().map(|width| 2 * lines(*width)).sum();
        numbers * rows.next_multiple_of(kernel::ROWS) * size_of::<Line>()
    }

    /// Takes the picked ones of `rows`, which are so many lines wide, as the batch.
    pub(super) fn fill(&mut self, rows: &[Line], width: usize, picks: &[u32]) {
        self.padded = picks.len().next_multiple_of(kernel::ROWS);
        let input = &mut self.values[0];
        for column in input.chunks_exact_mut(self.padded) {
            column[picks.len()..].fill(ZERO);
        }
        for (r, pick) in picks.iter().enumerate() {
            for (q, line) in rows[*pick as usize * width..][..width].iter().enumerate() {
                input[q * self.padded + r] = *line;
            }
        }
    }
}

#[cfg(test)]
mod tests;
