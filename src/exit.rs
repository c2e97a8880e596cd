//! The exit codes: a contract with scripts and with `RestartPreventExitStatus=`. See the README.

use std::process::ExitCode;

/// How the program ended. The numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Stopped as asked.
    Stopped = 0,
    /// A fault of the program itself, or of the machine under it.
    Internal = 1,
    /// A flag, `worker.toml` or the environment asks for something that cannot be.
    Usage = 2,
    /// The backend refused our credentials.
    Refused = 3,
    /// The state directory cannot be used, or another agent uses it.
    State = 4,
    /// `--once` or `--max-jobs` ended with a failed job.
    JobFailed = 5,
    /// `worker status`: no agent runs.
    NotRunning = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants above are all below 256.
        Self::from(exit as u8)
    }
}
