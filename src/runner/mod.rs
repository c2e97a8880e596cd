//! Where a job's program runs: on this machine, as the engine in a child of this binary, in a sandbox, or
//! in a container.

mod container;
mod local;
mod running;
mod script;

use std::path::Path;

use crate::config::{Containers, Jobs};
use crate::process::Sandbox;
use crate::work::Kind;

pub(crate) use container::{
    Container, Engine, Mount, Plan, full_name, has_image, image_objection, is_allowed, pull,
    remove, sweep,
};
pub(crate) use local::{all_marks, engine, speed};
pub(crate) use running::{Ended, NotStarted, Running};
pub(crate) use script::{STATUS_FILE, has_ended, interpreters, lay_out, script};

/// What runs other people's programs, or why nothing does and how to help it; of what is not allowed
/// nothing was looked for.
pub(crate) struct Found {
    pub(crate) sandbox: Option<Result<Sandbox, String>>,
    pub(crate) engine: Option<Result<Engine, String>>,
    /// Whether control groups limit what scripts take.
    pub(crate) groups: Result<(), String>,
}

impl Found {
    /// Looks for what these kinds need. `limit` is the subcommand that sets limits, `state_dir` what no
    /// program may see.
    pub(crate) fn look(
        kinds: &[Kind],
        jobs: &Jobs,
        limit: &str,
        state_dir: &Path,
        groups: Result<(), String>,
    ) -> Self {
        let Containers { engine, env, .. } = &jobs.containers;
        let scripts = kinds.contains(&Kind::Script);
        let containers = kinds.contains(&Kind::Container);
        Self {
            sandbox: scripts.then(|| script::find_sandbox(limit, state_dir)),
            engine: containers.then(|| Engine::find(engine.as_deref(), env)),
            groups,
        }
    }
}

fn limited(jobs: &Jobs, found: &Found) -> Result<(), String> {
    match &found.groups {
        Err(why) if !jobs.limits_by_polling => Err(format!(
            "the memory of scripts cannot be limited: {why}; or take a limit that a hostile script evades: \
             --limits-by-polling"
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether jobs of this kind can run on this machine, and if not why, and how to help it.
pub(crate) fn works(kind: Kind, jobs: &Jobs, found: &Found) -> Result<(), String> {
    fn is_there<T>(found: Option<&Result<T, String>>) -> Result<(), String> {
        match found {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(why.clone()),
            None => Err("nothing was looked for that runs it".to_owned()),
        }
    }
    match kind {
        Kind::Training | Kind::Inference | Kind::FineTuning | Kind::Compute => Ok(()),
        Kind::Script if interpreters(&jobs.interpreters).is_empty() => {
            let named = jobs.interpreters.join(", ");
            Err(format!("none of {named} is here: install one of them"))
        }
        Kind::Script => is_there(found.sandbox.as_ref()).and_then(|()| limited(jobs, found)),
        Kind::Container => is_there(found.engine.as_ref()),
    }
}
