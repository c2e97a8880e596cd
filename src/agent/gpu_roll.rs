//! Which GPUs were there when it was last looked: says in the log what has changed, and whether the
//! backend has to hear of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::machine::{Absence, Gpus};
use crate::reading::GpuSpecs;

/// The GPUs as they were last called.
#[derive(Debug, Default)]
pub(super) struct GpuRoll {
    specs: Arc<[GpuSpecs]>,
    absence: Option<Absence>,
    /// The troubles since all were there: two that take turns are said once each.
    troubles: BTreeSet<String>,
    /// What single GPUs do not tell is said once.
    silences: BTreeSet<(u32, String)>,
}

impl GpuRoll {
    /// Returns whether other GPUs are there than at the last call.
    pub(super) fn call(&mut self, gpus: &Gpus) -> bool {
        let same = self.specs.len() == gpus.specs.len()
            && self.specs.iter().zip(&*gpus.specs).all(|(old, new)| old.is_same(new));
        if self.absence != gpus.absence || !same {
            self.absence.clone_from(&gpus.absence);
            self.say(gpus);
        }
        self.say_silences(&gpus.silences);
        self.specs = Arc::clone(&gpus.specs);
        !same
    }

    fn say(&mut self, gpus: &Gpus) {
        match &gpus.absence {
            Some(Absence::Trouble(reason)) if self.troubles.insert(reason.clone()) => {
                log::warn!("GPU: {reason}");
            }
            Some(Absence::Trouble(_)) => {}
            Some(Absence::NoGpu(reason)) => log::info!("GPU: {reason}"),
            None => {
                self.troubles.clear();
                let name = |gpu: &GpuSpecs| gpu.name.clone().unwrap_or_else(|| "no name".into());
                let names: Vec<String> = gpus.specs.iter().map(name).collect();
                log::info!("GPU: {}", names.join(", "));
            }
        }
    }

    fn say_silences(&mut self, silences: &[(u32, String)]) {
        let mut new: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for silence in silences {
            if self.silences.insert(silence.clone()) {
                new.entry(silence.0).or_default().push(&silence.1);
            }
        }
        for (index, what) in new {
            log::info!("GPU {index} does not tell: {}", what.join(", "));
        }
    }

    /// Why a GPU that should be there is not; a machine without any has nothing to explain.
    pub(super) fn missing(&self) -> Option<String> {
        match &self.absence {
            Some(Absence::Trouble(reason)) => Some(reason.clone()),
            Some(Absence::NoGpu(_)) | None => None,
        }
    }
}
