//! The only reader of the clocks. Everything else takes the time as an argument.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Time since boot, on a clock that runs on while the machine sleeps: a lease does not wait for us.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel's clock is never before boot, and its nanoseconds stay below a second.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The processor time that this process has used.
pub(crate) fn of_process() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// The processor time that this thread has used.
pub(crate) fn of_thread() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// The clock that the service manager speaks of; it stands still while the machine sleeps.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The end of the year 9999, in seconds: no later time can be written, and none before 1970.
const LAST: u64 = 253_402_300_799;

/// The wall clock, for time stamps only; at its nearest to what can be written.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
pub(crate) fn wall() -> SystemTime {
    let first = SystemTime::UNIX_EPOCH;
    SystemTime::now().clamp(first, first + Duration::from_secs(LAST))
}

/// Whether the wall clock stands before 1970, where neither time stamps nor TLS work.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
pub(crate) fn is_before_1970() -> bool {
    SystemTime::now() < SystemTime::UNIX_EPOCH
}

/// `2026-01-15T10:30:00.000Z`, as the wire and the files have it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
