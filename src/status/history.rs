//! The GPUs over the last hour, for the page's curves: bounded in memory, gone with the process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::snapshot::GpuUse;

/// How often the GPUs are noted.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// How far back the curves go.
pub(super) const SPAN: Duration = Duration::from_secs(60 * 60);

/// No machine has more GPUs; a driver gone mad might tell of any number.
const MAX_GPUS: usize = 64;

/// The last hour.
#[derive(Default)]
pub(super) struct History {
    /// Oldest first. Shared by the thread that notes and those that answer requests.
    moments: Mutex<VecDeque<Moment>>,
}

struct Moment {
    at: Duration,
    gpus: Vec<Noted>,
}

/// As much of a GPU as is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Noted {
    index: u32,
    values: [Option<f32>; 3],
}

/// What is drawn of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    Percent,
    Celsius,
    Watts,
}

/// One value of a curve, so many seconds ago.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) ago: f32,
    pub(super) value: f32,
}

impl History {
    pub(super) fn note(&self, now: Duration, gpus: &[GpuUse]) {
        let mut moments = self.lock();
        let gpus = gpus.iter().take(MAX_GPUS).map(Noted::of).collect();
        moments.push_back(Moment { at: now, gpus });
        while moments.front().is_some_and(|first| now.saturating_sub(first.at) > SPAN) {
            moments.pop_front();
        }
    }

    /// The curve of a GPU, oldest first, with nothing where it was not told.
    pub(super) fn curve(&self, gpu: u32, curve: Curve, now: Duration) -> Vec<Point> {
        let moments = self.lock();
        let value = |moment: &Moment| {
            moment.gpus.iter().find(|noted| noted.index == gpu)?.values[curve as usize]
        };
        let ago = |moment: &Moment| now.saturating_sub(moment.at).as_secs_f32();
        let point = |moment| Some(Point { ago: ago(moment), value: value(moment)? });
        moments.iter().filter_map(point).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Moment>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    #[expect(clippy::cast_possible_truncation, reason = "a curve shows no more digits")]
    fn of(gpu: &GpuUse) -> Self {
        let values = [gpu.percent, gpu.temp_celsius, gpu.power_watts];
        Self { index: gpu.index, values: values.map(|value| value.map(|value| value as f32)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm(index: u32, celsius: Option<f64>) -> GpuUse {
        GpuUse { index, temp_celsius: celsius, ..GpuUse::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_curve_is_of_one_gpu_and_leaves_out_what_was_not_told() {
        let history = History::default();
        history.note(at(100), &[warm(0, Some(40.0)), warm(1, Some(60.0))]);
        history.note(at(105), &[warm(0, None), warm(1, Some(61.0))]);
        history.note(at(110), &[warm(0, Some(42.0))]);
        let points = |gpu| history.curve(gpu, Curve::Celsius, at(110));
        let point = |ago, value| Point { ago, value };
        assert_eq!(points(0), [point(10.0, 40.0), point(0.0, 42.0)]);
        assert_eq!(points(1), [point(10.0, 60.0), point(5.0, 61.0)]);
        assert_eq!(history.curve(0, Curve::Watts, at(110)), []);
    }

    #[test]
    fn no_more_than_an_hour_and_no_more_than_some_gpus_are_kept() {
        let history = History::default();
        let gpus: Vec<_> = (0..1000).map(|index| warm(index, Some(50.0))).collect();
        for second in (0..8000).step_by(5) {
            history.note(at(second), &gpus);
        }
        assert_eq!(history.curve(0, Curve::Celsius, at(7995)).len(), 721);
        assert_eq!(history.lock().iter().map(|moment| moment.gpus.len()).max(), Some(64));
    }
}
