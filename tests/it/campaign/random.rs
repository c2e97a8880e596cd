//! Kills at random moments, with a backend that fails at random too.
//!
//! `KILLS=200 SEED=7 cargo test --release --test it campaign -- --nocapture` is the longer form.

use std::time::Duration;

use serde_json::Value;

use super::{Campaign, Summary, assert_all_end};
use crate::support::{Fault, Request, job, number};

/// Longer than the agent waits for an answer.
const TOO_LATE: Duration = Duration::from_millis(1500);

fn jobs(count: usize, rng: &mut fastrand::Rng) -> Vec<Value> {
    // From ten milliseconds to half a second.
    let amounts = [0.0001, 0.05, 0.2, 0.5];
    let amount = |n: usize| job(&format!("job-{n}"), "primes", *rng.choice(&amounts).unwrap());
    (0..count).map(amount).collect()
}

/// Of the requests about jobs every seventh, of the heartbeats fewer: without one there is no job.
fn faults(mut rng: fastrand::Rng) -> impl FnMut(&Request) -> Option<Fault> + Send {
    move |request| {
        let one_in = if request.call.ends_with("/heartbeat") { 30 } else { 7 };
        let faults = [Fault::Refused, Fault::Lost, Fault::Failed, Fault::Late(TOO_LATE)];
        (rng.usize(..one_in) == 0).then(|| *rng.choice(&faults).unwrap())
    }
}

#[test]
fn killed_at_any_moment_it_tells_each_outcome_once() {
    let (kills, seed) = (number("KILLS", 25), number("SEED", fastrand::u64(..)));
    let kills = usize::try_from(kills).unwrap();
    eprintln!("campaign: SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = 2 * kills;
    let mut campaign = Campaign::new(jobs(count, &mut rng));
    campaign.market.disturb(faults(rng.fork()));
    let mut orphans = vec![];
    for _ in 0..kills {
        let mut worker = campaign.start(&[]);
        let ended = worker.ends_within(Duration::from_millis(rng.u64(..900)));
        assert!(!ended, "it works until it is killed");
        worker.kill();
        assert_all_end(&orphans);
        orphans = campaign.killed();
    }
    campaign.market.disturb(|_| None);
    let Summary { kills, attempts, duplicates } = campaign.end();
    eprintln!(
        "campaign: kills {kills}, jobs {count}, attempts {attempts}, \
         duplicates sent {duplicates}, duplicates differing 0, lost 0"
    );
}
