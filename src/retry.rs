//! When to try again: pure delays. Who waits, and on what, is the caller's business.

use std::time::Duration;

use backoff::{BackoffBuilder as _, ExponentialBuilder};

/// The longest that a backend's `Retry-After` is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// `min(1 s · 2^attempt, 5 min) · rand[0.5, 1)`, for the `attempt`-th failure in a row, from 0.
pub(crate) fn delay(attempt: u32, rng: &mut fastrand::Rng) -> Duration {
    let longest = Duration::from_secs(300);
    let unjittered = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(longest)
        .without_max_times()
        .build()
        // 2^9 s is above the cap already: no need to walk further for a week-long outage.
        .nth(attempt.min(10) as usize);
    // The factor is ours and not backon's jitter, so that it comes from the seeded generator.
    unjittered.unwrap_or(longest).mul_f64(0.5 + rng.f64() / 2.0)
}

/// Honours `Retry-After` where it asks for more than we would have waited.
pub(crate) fn at_least(delay: Duration, retry_after: Option<Duration>) -> Duration {
    retry_after.map_or(delay, |asked| delay.max(asked.min(RETRY_AFTER_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_keep_at_least_half() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (attempt, full) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (1_000_000, 300)] {
            for _ in 0..100 {
                let delay = delay(attempt, &mut rng).as_secs_f64();
                let full = f64::from(full);
                assert!((full / 2.0..full).contains(&delay), "attempt {attempt}: {delay}");
            }
        }
    }

    #[test]
    fn retry_after_is_honoured_up_to_fifteen_minutes() {
        let secs = Duration::from_secs;
        assert_eq!(at_least(secs(4), None), secs(4));
        assert_eq!(at_least(secs(4), Some(secs(60))), secs(60));
        assert_eq!(at_least(secs(4), Some(secs(1))), secs(4));
        assert_eq!(at_least(secs(4), Some(secs(86_400))), secs(900));
    }
}
