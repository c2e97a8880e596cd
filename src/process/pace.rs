//! How much of a program's output is read: at a bounded rate, since a flood would cost the agent a core of its
//! own, which no limit of the job's counts. Beyond it the pipes stay full, and the program waits.

use std::time::{Duration, Instant};

/// What a line costs besides its bytes.
const LINE: usize = 32;

/// So much is read in a second for ever,
const A_SECOND: f64 = 4.0 * 1024.0 * 1024.0;

/// and so much at once: more than any program prints that is to be read by people.
const AT_ONCE: f64 = 32.0 * 1024.0 * 1024.0;

/// How long nothing is read once there was too much.
pub(super) const REST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, at: now }
    }

    /// Whether more may be read now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if self.left <= 0.0 && now < self.at + REST {
            return false;
        }
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * A_SECOND).min(AT_ONCE);
        self.at = now;
        self.left > 0.0
    }

    pub(super) fn spend(&mut self, read: &[u8]) {
        let lines = read.iter().filter(|byte| **byte == b'\n').count();
        self.left -= (read.len() + lines * LINE) as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many reads of 16 KiB there are within so many seconds of a program that never waits.
    fn reads(byte: u8, seconds: u64) -> usize {
        let (begun, bytes) = (Instant::now(), [byte; 16 << 10]);
        let (mut pace, mut now, mut reads) = (Pace::new(begun), begun, 0);
        while now <= begun + Duration::from_secs(seconds) {
            while pace.allows(now) {
                pace.spend(&bytes);
                reads += 1;
            }
            now += Duration::from_millis(10);
        }
        reads
    }

    #[test]
    fn a_burst_is_read_at_once_and_a_flood_at_its_rate() {
        assert_eq!(reads(b'x', 0), 32 << 6);
        let (lines, long) = (reads(b'\n', 100), reads(b'x', 100));
        let all = (32 + 4 * 100) << 6;
        assert!((all - 100..=all + 100).contains(&long), "{long} of {all}");
        assert!((all / 33 - 100..=all / 33 + 100).contains(&lines), "a line costs 32 bytes more");
    }
}
