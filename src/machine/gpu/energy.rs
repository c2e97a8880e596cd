//! What a GPU has used since it was first looked at: by its own counter, else its power over time.

use std::time::Duration;

/// Over a longer gap nobody knows what the power was.
const GAP_MAX: Duration = Duration::from_secs(30);

const MILLI: f64 = 1e-3;

/// The sum for one GPU.
#[derive(Debug, Default)]
pub(super) struct Energy {
    joules: f64,
    /// Of the counter, which begins anew with the driver.
    counter_mj: Option<u64>,
    /// When, and how many watts.
    power: Option<(Duration, f64)>,
}

impl Energy {
    /// Adds what was used since the last look; nothing where neither was ever told.
    pub(super) fn add(
        &mut self,
        at: Duration,
        counter_mj: Option<u64>,
        power_w: Option<f64>,
    ) -> Option<f64> {
        self.joules += match (self.counter_mj, counter_mj) {
            (Some(last), Some(now)) => now.saturating_sub(last) as f64 * MILLI,
            (None, None) => self.integrated(at, power_w).unwrap_or(0.0),
            // The next answer of the counter tells of this time too.
            (Some(_), None) | (None, Some(_)) => 0.0,
        };
        self.counter_mj = counter_mj.or(self.counter_mj);
        self.power = power_w.map(|watts| (at, watts));
        (self.counter_mj.is_some() || power_w.is_some()).then_some(self.joules)
    }

    /// As if the power had changed evenly between the looks.
    fn integrated(&self, at: Duration, power_w: Option<f64>) -> Option<f64> {
        let (last_at, last_w) = self.power?;
        let time = at.checked_sub(last_at).filter(|time| *time <= GAP_MAX)?;
        Some((last_w + power_w?) / 2.0 * time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_counter_is_believed_and_may_begin_anew() {
        let mut energy = Energy::default();
        let watts = Some(1000.0);
        assert_eq!(energy.add(s(0), Some(5_000_000), watts), Some(0.0));
        assert_eq!(energy.add(s(5), Some(5_002_500), watts), Some(2.5));
        assert_eq!(energy.add(s(10), None, watts), Some(2.5), "one answer that failed");
        assert_eq!(energy.add(s(15), Some(5_003_500), watts), Some(3.5));
        assert_eq!(energy.add(s(20), Some(100), watts), Some(3.5), "the driver was loaded again");
        assert_eq!(energy.add(s(25), Some(1100), watts), Some(4.5));
    }

    #[test]
    fn without_a_counter_power_is_summed_up_over_short_gaps() {
        let mut energy = Energy::default();
        assert_eq!(energy.add(s(0), None, Some(100.0)), Some(0.0));
        assert_eq!(energy.add(s(5), None, Some(300.0)), Some(1000.0));
        assert_eq!(energy.add(s(36), None, Some(300.0)), Some(1000.0), "asleep, or hung");
        assert_eq!(energy.add(s(41), None, Some(300.0)), Some(2500.0));
    }

    #[test]
    fn a_gpu_that_tells_neither_has_no_figure() {
        assert_eq!(Energy::default().add(s(0), None, None), None);
    }
}
