//! Where a job's program runs: on this machine, as the engine in a child of this binary, in a sandbox, or
//! in a container.

mod local;
mod script;

use crate::process::Sandbox;
use crate::work::Kind;

pub(crate) use local::{all_marks, engine, speed};
pub(crate) use script::{STATUS_FILE, find_sandbox, has_ended, interpreters, lay_out, script};

/// Whether jobs of this kind can run on this machine, and if not why, and how to help it. What is needed
/// for it is looked for before, if it is allowed.
pub(crate) fn works(
    kind: Kind,
    named: &[String],
    sandbox: Option<&Result<Sandbox, String>>,
) -> Result<(), String> {
    match kind {
        Kind::Training | Kind::Inference | Kind::FineTuning | Kind::Compute => Ok(()),
        Kind::Script if interpreters(named).is_empty() => {
            Err(format!("none of {} is here: install one of them", named.join(", ")))
        }
        Kind::Script => match sandbox {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(why.clone()),
            None => Err("no sandbox was looked for".to_owned()),
        },
        Kind::Container => Err("this version runs no containers".to_owned()),
    }
}
