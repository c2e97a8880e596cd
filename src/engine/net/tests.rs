//! What a network learns and answers, held against its definition.

use super::*;
use crate::engine::splitmix::SplitMix64;

/// Numbers between -1 and 1.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut numbers = SplitMix64::stream(seed, 0);
    (0..count).map(|_| (numbers.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn model(widths: &[usize]) -> Model {
    let layer = |widths: &[usize]| Layer {
        inputs: widths[0],
        outputs: widths[1],
        weight: numbers(widths[1] as u64, widths[0] * widths[1]),
        bias: numbers(widths[0] as u64, widths[1]),
    };
    Model {
        layers: widths.windows(2).map(layer).collect(),
        mean: vec![0.0; widths[0]],
        scale: vec![1.0; widths[0]],
        features: (0..widths[0]).map(|n| n.to_string()).collect(),
        classes: (0..widths[widths.len() - 1]).map(|n| n.to_string()).collect(),
        notes: vec![],
    }
}

/// The mean cross-entropy, by its definition, in 64 bits.
fn loss(model: &Model, rows: &[f32], labels: &[u32]) -> f64 {
    let width = model.features.len();
    let losses = rows.chunks(width).zip(labels).map(|(row, label)| {
        let mut values: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        for (n, layer) in model.layers.iter().enumerate() {
            let weights = layer.weight.chunks(layer.inputs).zip(&layer.bias);
            let sums = weights.map(|(weights, bias)| {
                let products = weights.iter().zip(&values).map(|(w, x)| f64::from(*w) * x);
                let sum = products.sum::<f64>() + f64::from(*bias);
                if n + 1 < model.layers.len() { sum.max(0.0) } else { sum }
            });
            values = sums.collect();
        }
        let all: f64 = values.iter().map(|value| value.exp()).sum();
        all.ln() - values[*label as usize]
    });
    losses.sum::<f64>() / labels.len() as f64
}

fn filled(net: &Net, model: &Model, rows: &[f32], count: usize) -> Pass {
    let mut pass = net.pass(count);
    let lines: Vec<Line> =
        rows.chunks(model.features.len()).flat_map(|row| model.standardised(row)).collect();
    let picks: Vec<u32> = (0..).take(count).collect();
    pass.fill(&lines, super::lines(model.features.len()), &picks);
    pass
}

fn means(level: Level) -> Means {
    Means { level, shared: false }
}

#[test]
fn the_loss_is_what_its_definition_gives_for_any_shape() {
    for widths in [&[4, 3][..], &[64, 128, 10], &[5, 17, 33, 40], &[20, 1, 2]] {
        let model = model(widths);
        let (rows, labels) =
            (numbers(9, 11 * widths[0]), (0..11).map(|n| n % 2).collect::<Vec<_>>());
        for level in Level::all() {
            let net = Net::new(&model, 0.0, 0);
            let mut pass = filled(&net, &model, &rows, 11);
            let score = net.judge(means(level), &mut pass, &labels);
            let (found, wanted) = (score.mean_loss(), loss(&model, &rows, &labels));
            assert!(
                (found - wanted).abs() < 2e-5 * wanted,
                "{widths:?} {level:?}: {found} {wanted}"
            );
        }
    }
}

#[test]
fn a_step_goes_against_the_gradient_of_every_weight() {
    let model = model(&[5, 18, 34, 3]);
    let (rows, labels) = (numbers(3, 5 * 9), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    let rate = 1e-3;
    for level in Level::all() {
        let mut net = Net::new(&model, rate, 0);
        let mut pass = filled(&net, &model, &rows, 9);
        net.learn(means(level), &mut pass, &labels);
        let learnt = net.layers();
        let mut clear = 0;
        for (n, layer) in model.layers.iter().enumerate() {
            for at in 0..layer.weight.len() {
                let nudged = |by: f32| {
                    let mut nudged = model.clone();
                    nudged.layers[n].weight[at] += by;
                    loss(&nudged, &rows, &labels)
                };
                let gradient = (nudged(1e-3) - nudged(-1e-3)) / 2e-3;
                let moved = f64::from(learnt[n].weight[at] - layer.weight[at]);
                if gradient.abs() > 1e-4 {
                    // The first step of Adam is the rate, whatever the gradient's size.
                    let wanted = -rate * gradient.signum();
                    assert!((moved - wanted).abs() < 1e-5, "layer {n}, {at}: {moved} {gradient}");
                    clear += 1;
                } else if gradient == 0.0 {
                    assert_eq!(moved, 0.0, "layer {n}, {at}");
                }
            }
        }
        assert!(clear > 400, "{clear} weights had a clear gradient");
    }
}

#[test]
fn weights_are_the_same_to_the_bit_for_any_vectors_and_threads() {
    let model = model(&[20, 70, 40, 18]);
    let (rows, labels) = (numbers(5, 20 * 21), (0..21).map(|n| n % 18).collect::<Vec<_>>());
    let learnt = |level, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let means = Means { level, shared: threads > 1 };
        let mut net = Net::new(&model, 1e-3, 0);
        let mut pass = filled(&net, &model, &rows, 21);
        pool.install(|| {
            for _ in 0..20 {
                net.learn(means, &mut pass, &labels);
            }
        });
        net.layers()
    };
    let first = learnt(Level::best(), 1);
    for level in Level::all() {
        for threads in [1, 2, 4] {
            assert!(learnt(level, threads) == first, "{level:?} {threads} threads");
        }
    }
}

#[test]
fn a_batch_in_a_pass_with_room_for_more_is_learnt_alike() {
    let model = model(&[20, 70, 18, 10]);
    let labels = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    let rows: Vec<Line> =
        numbers(5, 20 * 9).chunks(20).flat_map(|row| model.standardised(row)).collect();
    let learnt = |room| {
        let mut net = Net::new(&model, 1e-3, 0);
        let mut pass = net.pass(room);
        // What a larger batch leaves behind does not count.
        let many: Vec<u32> = (0..).take(room).map(|n: u32| n % 9).collect();
        pass.fill(&rows, lines(20), &many);
        net.judge(means(Level::best()), &mut pass, &vec![1; room]);
        for _ in 0..3 {
            pass.fill(&rows, lines(20), &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
            net.learn(means(Level::best()), &mut pass, &labels);
        }
        net.layers()
    };
    let first = learnt(9);
    assert!([16, 33, 256].into_iter().all(|room| learnt(room) == first));
}

#[test]
fn frozen_layers_stay_as_they_are_to_the_bit() {
    let model = model(&[6, 20, 20, 3]);
    let (rows, labels) = (numbers(5, 6 * 8), [0, 1, 2, 0, 1, 2, 0, 1]);
    for frozen in 0..3 {
        let mut net = Net::new(&model, 1e-2, frozen);
        let mut pass = filled(&net, &model, &rows, 8);
        for _ in 0..5 {
            net.learn(means(Level::best()), &mut pass, &labels);
        }
        let same: Vec<_> =
            net.layers().iter().zip(&model.layers).map(|(now, before)| now == before).collect();
        assert_eq!(same, [frozen > 0, frozen > 1, false]);
    }
}

#[test]
fn answers_are_the_largest_logit_and_its_probability() {
    let model = model(&[5, 12, 40]);
    let rows = numbers(8, 5 * 3);
    let net = Net::new(&model, 0.0, 0);
    for level in Level::all() {
        let mut pass = filled(&net, &model, &rows, 3);
        for ((class, confidence), row) in
            net.answer(means(level), &mut pass, 3).iter().zip(rows.chunks(5))
        {
            let losses = (0..40).map(|label| loss(&model, row, &[label])).collect::<Vec<_>>();
            let least = losses.iter().copied().fold(f64::MAX, f64::min);
            assert_eq!(losses[*class as usize], least);
            assert!((f64::from(*confidence) - (-least).exp()).abs() < 1e-5);
        }
    }
}

#[test]
fn of_equal_logits_only_the_first_counts_as_the_answer() {
    let mut model = model(&[1, 18]);
    model.layers[0].weight.fill(0.0);
    model.layers[0].bias.fill(0.0);
    let net = Net::new(&model, 0.0, 0);
    for level in Level::all() {
        let mut pass = filled(&net, &model, &[0.5; 3], 3);
        assert_eq!(net.judge(means(level), &mut pass, &[0, 1, 17]).right, 1, "{level:?}");
        assert_eq!(net.answer(means(level), &mut pass, 1)[0].0, 0);
    }
}

#[test]
fn weights_come_back_as_they_were_kept() {
    for widths in [&[1, 1, 2][..], &[16, 32, 48], &[17, 33, 5, 100]] {
        let model = model(widths);
        let mut net = Net::new(&model, 0.0, 0);
        assert_eq!(net.layers(), model.layers);
        net.set(&model.layers);
        assert_eq!(net.layers(), model.layers);
    }
}
