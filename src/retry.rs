//! When to try again: pure delays. Who waits, and on what, is the caller's business.

use std::time::{Duration, SystemTime};

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

/// How long a `Retry-After` asks us to wait: so many seconds, or until a date on the clock of the `Date`
/// beside it. Our own clock may be years off.
pub(crate) fn asked_for(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    match retry_after.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => http_date(retry_after)?.duration_since(http_date(date?)?).ok(),
    }
}

/// Of the three forms of HTTP the one that is still sent: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let mut words = text.split_whitespace().skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.split(' ').position(|name| name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
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
    fn a_date_to_retry_after_is_told_by_the_backends_own_clock() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (retry_after, date, seconds) in [
            ("120", None, Some(120)),
            (" 120 ", date, Some(120)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", date, Some(120)),
            ("Wed, 07 Dec 1994 08:49:37 GMT", date, Some(31 * 86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", date, Some(0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", date, None),
            ("Sun, 06 Nov 1994 08:51:37 GMT", None, None),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some("yesterday"), None),
            ("Sun, 06 Nov 1994", date, None),
            ("Sun, 31 Feb 1995 00:00:00 GMT", date, None),
            ("Sun, 06 Nox 1995 00:00:00 GMT", date, None),
            ("-1", date, None),
            ("1.5", date, None),
            ("\u{e9}, \u{e9} Nov \u{e9}\u{e9} 00:00:00 GMT", date, None),
            ("", date, None),
        ] {
            let asked = asked_for(retry_after, date);
            assert_eq!(asked, seconds.map(Duration::from_secs), "{retry_after:?} {date:?}");
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
