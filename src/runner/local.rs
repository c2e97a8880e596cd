//! Programs that run on this machine, in the job's own work folder.

use std::ffi::OsString;
use std::path::Path;

use crate::process::{Bounds, Program};
use crate::work::JobId;

/// The link and not the path it leads to: an upgrade may have replaced the file since.
pub(super) const THIS: &str = "/proc/self/exe";

/// The embedded engine: this same binary under its hidden subcommand.
pub(crate) fn engine(id: &JobId, work: &Path, subcommand: &str, bounds: &Bounds) -> Program {
    Program {
        mark: mark(work),
        path: THIS.into(),
        args: vec![subcommand.into(), bounds.to_string().into()],
        env: vec![
            ("WORKER_JOB_ID", id.as_str().into()),
            ("WORKER_INPUT_DIR", work.join("in").into()),
            ("WORKER_OUTPUT_DIR", work.join("out").into()),
        ],
        dir: work.to_owned(),
        is_wrapped: false,
    }
}

/// The measurement of the processor: this same binary again.
pub(crate) fn speed(subcommand: &str) -> Program {
    Program {
        mark: "speed".into(),
        path: THIS.into(),
        args: vec![subcommand.into()],
        env: vec![],
        dir: "/".into(),
        is_wrapped: false,
    }
}

/// The mark of a job's processes: no two jobs of any agents on this machine share a work folder.
pub(super) fn mark(work: &Path) -> OsString {
    work.into()
}

/// How the marks of all jobs begin whose records are in this folder.
pub(crate) fn all_marks(state_dir: &Path) -> OsString {
    // With the slash at its end, or another folder's name might begin like this one's.
    state_dir.join("jobs/").into()
}
