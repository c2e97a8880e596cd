//! A last layer for classes that a network has not learnt, so that fine-tuning does not begin at nothing.
//!
//! What the layers before it give is averaged for each class, and a class's weights point from the mean of
//! all classes to its own: the nearest mean wins. After Qi, Brown and Lowe, "Low-shot learning with
//! imprinted weights" (2018), without their normalisation. Sums are in 64 bits and in the order of the
//! rows, so that they are the same everywhere.

use super::model::Layer;

/// How much the logits tell the classes apart at first: sure enough to be of use, not so sure that a
/// mistake is dear.
const CERTAINTY: f64 = 4.0;

/// The sums of what was seen of each class.
pub(super) struct Imprint {
    width: usize,
    sums: Vec<f64>,
    counts: Vec<u32>,
}

impl Imprint {
    pub(super) fn new(width: usize, classes: usize) -> Self {
        Self { width, sums: vec![0.0; width * classes], counts: vec![0; classes] }
    }

    /// What the layers before give for a row of this class.
    pub(super) fn add(&mut self, class: u32, given: &[f32]) {
        let class = class as usize;
        self.counts[class] += 1;
        let sums = &mut self.sums[class * self.width..][..self.width];
        for (sum, value) in sums.iter_mut().zip(given) {
            *sum += f64::from(*value);
        }
    }

    /// Nothing where the classes cannot be told apart by their means.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest f32")]
    pub(super) fn layer(self) -> Option<Layer> {
        let Self { width, sums: mut means, counts } = self;
        let outputs = counts.len();
        for (mean, count) in means.chunks_exact_mut(width).zip(&counts) {
            mean.iter_mut().for_each(|sum| *sum /= f64::from(*count.max(&1)));
        }
        let mut middle = vec![0.0; width];
        for mean in means.chunks_exact(width) {
            middle.iter_mut().zip(mean).for_each(|(middle, mean)| *middle += mean / outputs as f64);
        }
        let squares = means.chunks_exact(width).flat_map(|mean| mean.iter().zip(&middle));
        let apart = squares.map(|(mean, middle)| (mean - middle) * (mean - middle)).sum::<f64>();
        let steepness = CERTAINTY * outputs as f64 / apart;
        if !steepness.is_finite() {
            return None;
        }
        let mut layer = Layer { inputs: width, outputs, weight: vec![], bias: vec![] };
        for mean in means.chunks_exact(width) {
            let mut bias = 0.0;
            for (mean, middle) in mean.iter().zip(&middle) {
                let weight = steepness * (mean - middle);
                layer.weight.push(weight as f32);
                bias -= weight * (mean + middle) / 2.0;
            }
            layer.bias.push(bias as f32);
        }
        Some(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_with_the_nearest_mean_has_the_largest_logit() {
        let mut seen = Imprint::new(2, 2);
        for (class, given) in [(0, [0.0, 0.0]), (0, [0.0, 2.0]), (1, [4.0, 1.0])] {
            seen.add(class, &given);
        }
        // The means are (0, 1) and (4, 1), each 2 from the middle.
        let layer = seen.layer().unwrap();
        assert_eq!(layer.weight, [-2.0, 0.0, 2.0, 0.0]);
        assert_eq!(layer.bias, [2.0, -6.0]);
    }

    #[test]
    fn classes_of_one_mean_leave_nothing_to_go_by() {
        let mut seen = Imprint::new(1, 2);
        seen.add(0, &[3.0]);
        seen.add(1, &[3.0]);
        assert_eq!(seen.layer(), None);
    }
}
