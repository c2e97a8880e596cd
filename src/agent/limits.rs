//! What a job may take of this machine: what its owner gives, or the less that it asks for.

use std::time::Duration;

use crate::config::Limits;
use crate::machine;
use crate::process::{Bound, Bounds};
use crate::work::{Job, Share, Task};

/// Processes and threads of one script, where they can only be counted together with others' of its user.
const PROCESSES: u64 = 1024;

/// The least disk that a job gets.
const DISK_MIN: u64 = 1 << 20;

/// In bytes, of all its processes.
pub(super) fn memory(task: &Task, limits: &Limits) -> u64 {
    let given = given_memory(limits);
    share(task).and_then(|share| share.memory).map_or(given, |asked| asked.min(given))
}

/// Whatever a job asks for.
pub(super) fn given_memory(limits: &Limits) -> u64 {
    limits.memory.unwrap_or(u64::MAX).min(most_of(machine::memory()))
}

/// What is left is for the agent, and for whoever else is on the machine.
fn most_of(machine: u64) -> u64 {
    match machine {
        // Not told.
        0 => u64::MAX,
        all => all / 5 * 4,
    }
}

/// In bytes, of a job that has some in its folder already: no more than is free beyond what is to stay free.
/// Of a machine that has nothing to give, a little, with which no program is lost without a word.
pub(super) fn disk(limits: &Limits, has: u64, free: u64, least: u64) -> u64 {
    let room = has.saturating_add(free.saturating_sub(least));
    limits.disk.min(room.max(DISK_MIN))
}

/// Processors, if not all.
pub(super) fn cpus(task: &Task, limits: &Limits) -> Option<f64> {
    let given = limits.cpus.map(f64::from);
    let asked = share(task).and_then(|share| share.cpus);
    [given, asked].into_iter().flatten().reduce(f64::min)
}

fn share(task: &Task) -> Option<&Share> {
    match task {
        Task::Script(script) => Some(&script.share),
        Task::Container(container) => Some(&container.share),
        Task::Training(_) | Task::FineTuning(_) | Task::Inference(_) | Task::Compute(_) => None,
    }
}

/// What holds where neither a control group does nor the watch, which looks once a second, and after
/// the agent's end. `in_groups` is whether each job's group bounds its processes.
pub(super) fn bounds(
    job: &Job,
    limits: &Limits,
    disk: u64,
    grace: Duration,
    in_groups: bool,
) -> Bounds {
    // Of each process; of all of them together the watch does it.
    let seconds = (job.time_limit + grace).as_secs().saturating_mul(machine::threads() as u64);
    let mut bounds = vec![
        // Below everything a person runs; its reads and writes too, whose priority the kernel takes
        // from this one.
        (Bound::Nice, 10),
        (Bound::OomScore, 500),
        (Bound::Cpu, seconds),
        (Bound::FileSize, disk),
        (Bound::Core, 0),
        (Bound::Files, 4096),
    ];
    // By its user only where it must be: of whom another script may have taken all that there are.
    if matches!(job.task, Task::Script(_)) && !in_groups {
        bounds.push((Bound::Processes, PROCESSES));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0")]
    if let Some(cpus) = cpus(&job.task, limits) {
        bounds.push((Bound::Cpus, cpus.ceil() as u64));
    }
    Bounds(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Code, Script};

    fn script(share: Share) -> Task {
        let (code, interpreter) = (Code::Text(String::new()), "bash".to_owned());
        Task::Script(Script { code, interpreter, args: vec![], env: vec![], share })
    }

    #[test]
    fn a_job_lowers_what_its_owner_gives_and_never_raises_it() {
        let day = Duration::from_secs(86_400);
        let limits = Limits { memory: Some(1 << 20), cpus: Some(2), disk: 1, time: day };
        for (asked, given) in [(None, 1 << 20), (Some(1 << 10), 1 << 10), (Some(1 << 40), 1 << 20)]
        {
            let task = script(Share { memory: asked, cpus: None });
            assert_eq!(memory(&task, &limits), given, "{asked:?}");
        }
        for (asked, given) in [(None, 2.0), (Some(0.5), 0.5), (Some(64.0), 2.0)] {
            let task = script(Share { memory: None, cpus: asked });
            assert_eq!(cpus(&task, &limits), Some(given), "{asked:?}");
        }
    }

    #[test]
    fn a_job_gets_no_more_disk_than_there_is_above_what_stays_free() {
        let limits = Limits { memory: None, cpus: None, disk: 20 << 20, time: Duration::ZERO };
        for (has, free, least, given) in
            [(0, 100, 10, 20), (0, 25, 10, 15), (3, 25, 10, 18), (0, 25, 0, 20), (0, 5, 10, 1)]
        {
            let [has, free, least] = [has, free, least].map(|mib| mib << 20);
            assert_eq!(disk(&limits, has, free, least), given << 20, "{has} {free} {least}");
        }
    }

    #[test]
    fn an_owner_gives_no_more_memory_than_leaves_some_to_the_machine() {
        let day = Duration::from_secs(86_400);
        let limits = Limits { memory: Some(u64::MAX), cpus: None, disk: 1, time: day };
        assert!(given_memory(&limits) < machine::memory());
        assert_eq!(cpus(&script(Share::default()), &limits), None);
    }
}
