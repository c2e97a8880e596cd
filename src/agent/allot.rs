//! Which GPUs are a job's alone: those that are handed into its container, and to no other's meanwhile.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::work::{Decline, DeclineCode};

/// What is allotted now, by UUID.
#[derive(Debug, Default)]
pub(super) struct Allotments(Mutex<BTreeSet<String>>);

/// GPUs of one job; free again when this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Allotment<'a> {
    from: &'a Allotments,
    pub(super) gpus: Vec<String>,
}

impl Allotments {
    pub(super) fn none(&self) -> Allotment<'_> {
        Allotment { from: self, gpus: vec![] }
    }

    /// The first so many of these that no other job has.
    pub(super) fn take(&self, wanted: u32, all: &[String]) -> Result<Allotment<'_>, Decline> {
        let wanted = wanted as usize;
        let mut taken = self.lock();
        let free = all.iter().filter(|gpu| !taken.contains(*gpu)).take(wanted);
        let gpus: Vec<String> = free.cloned().collect();
        if gpus.len() < wanted {
            return Err(too_few(wanted, all.len()));
        }
        taken.extend(gpus.iter().cloned());
        Ok(Allotment { from: self, gpus })
    }

    /// Keeps from others what a job of an earlier agent has, until that job goes on.
    pub(super) fn reserve(&self, gpus: &[String]) {
        self.lock().extend(gpus.iter().cloned());
    }

    /// What a job of an earlier agent has already.
    pub(super) fn again(&self, gpus: &[String]) -> Allotment<'_> {
        self.lock().extend(gpus.iter().cloned());
        Allotment { from: self, gpus: gpus.to_vec() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Allotment<'_> {
    fn drop(&mut self) {
        let mut taken = self.from.lock();
        for gpu in &self.gpus {
            taken.remove(gpu);
        }
    }
}

fn too_few(wanted: usize, all: usize) -> Decline {
    let asked = format!("the job asks for {wanted} GPUs");
    if all < wanted {
        let reason = format!("{asked}, and this machine has {all} that can be handed to one");
        return Decline { code: DeclineCode::NoGpuFits, reason };
    }
    let reason = format!("{asked}, and other jobs have them now");
    Decline { code: DeclineCode::Busy, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_gpu_is_two_jobs_at_once() {
        let all = ["a", "b", "c"].map(str::to_owned);
        let allotments = Allotments::default();
        let one = allotments.take(2, &all).unwrap();
        assert_eq!(one.gpus, ["a", "b"]);
        let code = |wanted| allotments.take(wanted, &all).unwrap_err().code;
        assert_eq!((code(2), code(4)), (DeclineCode::Busy, DeclineCode::NoGpuFits));
        let two = allotments.take(1, &all).unwrap();
        assert_eq!(two.gpus, ["c"]);
        drop(one);
        assert_eq!(allotments.take(2, &all).unwrap().gpus, ["a", "b"]);
    }

    #[test]
    fn what_a_job_of_an_earlier_agent_has_is_its_own_until_that_ends() {
        let all = ["a", "b"].map(str::to_owned);
        let allotments = Allotments::default();
        allotments.reserve(&all[..1]);
        assert_eq!(allotments.take(1, &all).unwrap().gpus, ["b"]);
        let found = allotments.again(&all[..1]);
        assert_eq!(allotments.take(1, &all).unwrap().gpus, ["b"]);
        drop(found);
        assert_eq!(allotments.take(1, &all).unwrap().gpus, ["a"]);
    }
}
