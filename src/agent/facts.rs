//! What is registered of this machine.

use std::path::Path;

use super::{GPU_FIRST, GPU_PERIOD};
use crate::backend::Facts;
use crate::cli;
use crate::config::{Identity, Jobs};
use crate::machine::{self, Gpus};
use crate::process::{Groups, Sandbox};
use crate::runner::{self, Engine, Found};
use crate::store;
use crate::work::Kind;

pub(super) fn make_worker_id(identity: &Identity) -> String {
    let dir = &identity.state_dir;
    // The folder was just opened; should it not resolve, its own spelling is as good a name.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    machine::worker_id(machine::read_machine_id().as_deref(), &dir, fastrand::u128(..))
}

/// What would be registered of this machine.
///
/// With the reason why there is no GPU, or not every one.
pub(crate) fn facts_without_agent(
    identity: &Identity,
    slots: usize,
    jobs: &Jobs,
) -> (Facts, Option<String>) {
    let kept = store::read_worker_id(&identity.state_dir).ok().flatten();
    let worker_id = identity.worker_id.clone().or(kept);
    let worker_id = worker_id.unwrap_or_else(|| make_worker_id(identity));
    let watch = machine::watch(identity.nvml_library.as_deref(), GPU_PERIOD);
    let gpus = watch.wait_first(GPU_FIRST);
    let Offered { kinds, .. } = offered(jobs, &identity.state_dir, Groups::look(Path::new("/")));
    let facts = facts(identity, worker_id, slots, &kinds, &gpus);
    (facts, gpus.absence.map(|absence| absence.reason().to_owned()))
}

/// What this worker runs, and by what.
pub(super) struct Offered {
    pub(super) kinds: Vec<Kind>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) engine: Option<Engine>,
}

/// The allowed kinds that work on this machine; of the others the log says why not.
pub(super) fn offered(jobs: &Jobs, state_dir: &Path, groups: Result<(), String>) -> Offered {
    let found = Found::look(&jobs.kinds, jobs, cli::LIMIT, state_dir, groups);
    let works = |kind: &Kind| match runner::works(*kind, jobs, &found) {
        Ok(()) => true,
        Err(why) => {
            log::error!("{} jobs are allowed but cannot run here: {why}", kind.name());
            false
        }
    };
    let kinds = jobs.kinds.iter().copied().filter(works).collect();
    let Found { sandbox, engine, .. } = found;
    Offered { kinds, sandbox: sandbox.and_then(Result::ok), engine: engine.and_then(Result::ok) }
}

pub(super) fn facts(
    identity: &Identity,
    worker_id: String,
    slots: usize,
    kinds: &[Kind],
    gpus: &Gpus,
) -> Facts {
    let specs = machine::specs(&identity.state_dir, gpus.specs.to_vec());
    Facts {
        name: name(identity, &worker_id),
        address: identity
            .address
            .clone()
            .unwrap_or_else(|| format!("QUBIC_{}", worker_id.to_uppercase())),
        location: identity.location.clone(),
        price: identity.price,
        slots,
        kinds: kinds.iter().copied().map(Kind::name).collect(),
        // Of this machine as it is now, or it has to be measured anew.
        gflops: store::read_speed(&identity.state_dir)
            .filter(|speed| speed.fits(&specs))
            .map(|speed| speed.measured.gflops),
        specs,
        worker_id,
    }
}

/// What consumers see.
pub(super) fn name(identity: &Identity, worker_id: &str) -> String {
    let short = worker_id.get(..8).unwrap_or(worker_id);
    identity.name.clone().unwrap_or_else(|| format!("Provider-{short}"))
}
