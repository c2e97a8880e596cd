//! The GPUs, as NVIDIA's NVML tells of them.
//!
//! One thread asks the driver; everybody else reads its last answer from a shared slot. A driver
//! that hangs delays nobody: the last answer grows old, and is then no longer given out.

mod ask;
mod driver;
mod energy;

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::reading::{GpuSpecs, GpuUsage};
use driver::Sampler;

/// As the system finds it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// All GPUs at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Gpus {
    pub(crate) specs: Arc<[GpuSpecs]>,
    pub(crate) usage: Vec<GpuUsage>,
    /// What single GPUs do not tell: the GPU's index, what, and why.
    pub(crate) silences: Vec<(u32, String)>,
    pub(crate) absence: Option<Absence>,
}

/// Why a GPU, or all of them, cannot be told of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Absence {
    /// As far as can be told, the machine has none.
    NoGpu(String),
    /// Something is there, or was.
    Trouble(String),
}

impl Absence {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NoGpu(reason) | Self::Trouble(reason) => reason,
        }
    }
}

/// A view of the GPUs; the thread behind it ends when this is dropped.
pub(crate) struct GpuWatch {
    slot: Arc<Slot>,
    /// Nothing once the thread is to end.
    wishes: Option<SyncSender<()>>,
    period: Duration,
}

/// How long the thread is waited for. The program must not end while it unloads the driver's library,
/// whose own cleaning up at the end would meet with that; one that hangs meets with nothing.
const END_FOR: Duration = Duration::from_secs(1);

/// Shared by the watch, which reads it, and its thread, which writes it.
#[derive(Default)]
struct Slot {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
enum Seen {
    #[default]
    Nothing,
    Absent(Absence),
    /// Asked of the driver so long after boot.
    Sample(Duration, Gpus),
    /// The thread has ended.
    Over,
}

/// Samples the GPUs every `period` from now on, by the library given or the system's own.
pub(crate) fn watch(library: Option<&Path>, period: Duration) -> GpuWatch {
    let library = library.map_or_else(|| OsString::from(LIBRARY), |path| path.into());
    let slot = Arc::new(Slot::default());
    let (wishes, wished) = mpsc::sync_channel(1);
    let theirs = Arc::clone(&slot);
    // Outside any scope, and never joined: a call into a driver that hangs may never return, and a
    // scope would wait for it for ever.
    let thread = thread::Builder::new().name("gpu".to_owned());
    let sample = move || {
        Sampler::new(&library, &theirs, &wished, period).run();
        theirs.put(Seen::Over);
    };
    if let Err(error) = thread.spawn(sample) {
        let why = format!("cannot start the thread that asks the GPU driver: {error}");
        slot.put(Seen::Absent(Absence::Trouble(why)));
    }
    GpuWatch { slot, wishes: Some(wishes), period }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        self.wishes = None;
        let goes_on = |seen: &mut Seen| !matches!(seen, Seen::Over);
        // Late or not, the program ends.
        drop(self.slot.changed.wait_timeout_while(self.slot.lock(), END_FOR, goes_on));
    }
}

impl GpuWatch {
    /// Returns the first sample, or after `at_most` the reason why there is none yet.
    pub(crate) fn wait_first(&self, at_most: Duration) -> Gpus {
        let seen = self.slot.lock();
        let nothing = |seen: &mut Seen| matches!(seen, Seen::Nothing);
        let (seen, _) = self
            .slot
            .changed
            .wait_timeout_while(seen, at_most, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        give(&seen, clock::since_boot(), self.period)
    }

    /// Returns the newest sample without waiting for the driver.
    pub(crate) fn latest(&self) -> Gpus {
        give(&self.slot.lock(), clock::since_boot(), self.period)
    }

    /// Asks for the next look at once, for those to whom a period is too long.
    pub(crate) fn look_soon(&self) {
        if let Some(wishes) = &self.wishes {
            // One wish that waits is as good as two.
            wishes.try_send(()).ok();
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, seen: Seen) {
        *self.lock() = seen;
        self.changed.notify_all();
    }
}

/// What may be given out at `now`. A sample of which two successors are missing is stale: only what
/// the GPUs are is still told of it.
fn give(seen: &Seen, now: Duration, period: Duration) -> Gpus {
    match seen {
        Seen::Nothing => Gpus {
            absence: Some(stale("the NVIDIA driver has not answered yet".to_owned())),
            ..Gpus::default()
        },
        Seen::Over => Gpus::default(),
        Seen::Absent(absence) => Gpus { absence: Some(absence.clone()), ..Gpus::default() },
        Seen::Sample(at, gpus) if now.saturating_sub(*at) > 2 * period => {
            let limit = humantime::format_duration(2 * period);
            let why = stale(format!("the NVIDIA driver has not answered for {limit}"));
            Gpus { specs: Arc::clone(&gpus.specs), absence: Some(why), ..Gpus::default() }
        }
        Seen::Sample(_, gpus) => gpus.clone(),
    }
}

fn stale(why: String) -> Absence {
    Absence::Trouble(format!("stale: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);
    const AT: Duration = Duration::from_secs(1000);

    fn one_gpu() -> Gpus {
        let specs = GpuSpecs { name: Some("RTX 3090".to_owned()), ..GpuSpecs::default() };
        let usage = GpuUsage { temp_c: Some(66.0), ..GpuUsage::default() };
        Gpus { specs: [specs].into(), usage: vec![usage], ..Gpus::default() }
    }

    #[test]
    fn an_answer_is_given_out_until_it_is_stale() {
        let seen = Seen::Sample(AT, one_gpu());
        for now in [AT, AT + PERIOD, AT + 2 * PERIOD, AT - PERIOD] {
            assert_eq!(give(&seen, now, PERIOD), one_gpu(), "{now:?}");
        }
        let why = "stale: the NVIDIA driver has not answered for 10s".to_owned();
        let absence = Some(Absence::Trouble(why));
        let stale = Gpus { usage: vec![], absence, ..one_gpu() };
        assert_eq!(give(&seen, AT + Duration::from_secs(11), PERIOD), stale);
    }

    #[test]
    fn before_the_first_answer_there_is_a_reason_and_no_gpu() {
        let gpus = give(&Seen::Nothing, AT, PERIOD);
        assert_eq!((gpus.specs.len(), gpus.usage.len()), (0, 0));
        let absence = gpus.absence.unwrap();
        assert_eq!(absence.reason(), "stale: the NVIDIA driver has not answered yet");
    }

    #[test]
    fn without_the_library_the_reason_names_it_and_the_thread_ends_with_the_watch() {
        let watch = watch(Some(Path::new("libno-such-driver.so.1")), PERIOD);
        let gpus = watch.wait_first(Duration::from_secs(60));
        let Some(Absence::NoGpu(reason)) = &gpus.absence else { panic!("{gpus:?}") };
        assert!(reason.starts_with("no NVIDIA driver: libno-such-driver.so.1"), "{reason}");
        assert_eq!(watch.latest(), gpus);
        let slot = Arc::clone(&watch.slot);
        drop(watch);
        assert!(matches!(*slot.lock(), Seen::Over));
    }
}
