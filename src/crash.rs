//! Named points at which the tests let the agent be killed, as a power failure would: between any two
//! steps of the store, of a program's start and of a delivery.
//!
//! Only under the feature `crash-points`, which no release has; without it a point is nothing. By the same
//! feature the tests have a place of their own for the files of Hugging Face.

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// `NAME:N` in the environment: the process ends when it comes to that point for the N-th time.
    const VARIABLE: &str = "WORKER_CRASH";

    struct Armed {
        name: String,
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(crate) fn point(name: &str) {
        if let Some(armed) = ARMED.get_or_init(read).as_ref().filter(|armed| armed.name == name)
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // It is over before the call returns; nothing else could be done about an error.
            kill_process(getpid(), Signal::KILL).ok();
        }
    }

    /// Where the tests keep what stands in for Hugging Face.
    pub(crate) fn hugging_face() -> Option<String> {
        variable("WORKER_HUGGING_FACE")
    }

    #[expect(clippy::disallowed_methods, reason = "no setting: it is there for tests alone")]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read() -> Option<Armed> {
        let text = variable(VARIABLE)?;
        let (name, n) = text.split_once(':')?;
        Some(Armed { name: name.to_owned(), left: AtomicU32::new(n.parse().ok()?) })
    }
}

#[cfg(feature = "crash-points")]
pub(crate) use armed::{hugging_face, point};

#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}

#[cfg(not(feature = "crash-points"))]
pub(crate) fn hugging_face() -> Option<String> {
    None
}
