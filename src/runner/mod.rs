//! Where a job's program runs: on this machine, as the engine in a child of this binary, in a sandbox, or
//! in a container.

mod local;

use crate::work::Kind;

pub(crate) use local::{all_marks, engine, speed};

/// Whether jobs of this kind can run on this machine, and if not why, and how to help it.
pub(crate) fn works(kind: Kind, interpreters: &[String]) -> Result<(), String> {
    match kind {
        Kind::Training | Kind::Inference | Kind::FineTuning | Kind::Compute => Ok(()),
        Kind::Script => Err(format!("there is no sandbox for {}", interpreters.join(", "))),
        Kind::Container => Err("this version runs no containers".to_owned()),
    }
}
