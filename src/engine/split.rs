//! Deals numbered pieces of work to threads, and takes their results back in order.
//!
//! Threads take the next number when they are free, so a slow core holds up nothing but its own
//! piece. All that is kept are the results that came before their turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Progress};

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How much work, under which name, on how many threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) pieces: u64,
    pub(super) threads: usize,
}

/// Does every piece, each thread with a worker of its own, and gives the results to `take` in the
/// order of the pieces. `take` and `report` are called on this thread.
pub(super) fn in_order<T: Send, W: FnMut(u64) -> Result<T, Error>>(
    plan: Plan,
    worker: impl Fn() -> W + Sync,
    take: impl FnMut(T),
    report: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let deal = Deal { next: AtomicU64::new(0), pieces: plan.pieces };
    let threads = plan.threads.max(1);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&deal);
        let (send, results) = mpsc::sync_channel(2 * threads);
        for number in 0..threads {
            let send = send.clone();
            let (deal, worker) = (&deal, &worker);
            let name = format!("{}-{number}", plan.name);
            thread::Builder::new()
                .name(name.clone())
                .spawn_scoped(scope, move || work(deal, worker(), &send))
                .map_err(|source| Error::Thread { name, source })?;
        }
        drop(send);
        gather(plan, &results, take, report)
    })
}

/// Which piece comes next.
struct Deal {
    next: AtomicU64,
    pieces: u64,
}

impl Deal {
    fn take(&self) -> Option<u64> {
        let piece = self.next.fetch_add(1, Ordering::Relaxed);
        (piece < self.pieces).then_some(piece)
    }
}

/// Whoever leaves, by an error or a panic too, leaves no piece for the others: else they would go on
/// for days before the scope could tell.
struct StopOnDrop<'a>(&'a Deal);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.next.store(self.0.pieces, Ordering::Relaxed);
    }
}

type Sent<T> = Result<(u64, T), Error>;

fn work<T>(
    deal: &Deal,
    mut worker: impl FnMut(u64) -> Result<T, Error>,
    send: &SyncSender<Sent<T>>,
) {
    let _stop = StopOnDrop(deal);
    while let Some(piece) = deal.take() {
        let sent = worker(piece).map(|result| (piece, result));
        let failed = sent.is_err();
        if send.send(sent).is_err() || failed {
            return;
        }
    }
}

fn gather<T>(
    plan: Plan,
    results: &Receiver<Sent<T>>,
    mut take: impl FnMut(T),
    report: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let mut early = BTreeMap::new();
    let mut turn = 0;
    let mut reported = Instant::now();
    for (done, sent) in (1..=plan.pieces).zip(results) {
        let (piece, result) = sent?;
        early.insert(piece, result);
        while let Some(result) = early.remove(&turn) {
            take(result);
            turn += 1;
        }
        if done == plan.pieces || reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            report(progress(plan, done));
        }
    }
    Ok(())
}

fn progress(plan: Plan, done: u64) -> Progress {
    let percent = u128::from(done) * 100 / u128::from(plan.pieces);
    Progress {
        percent: u8::try_from(percent).unwrap_or(100),
        operation: format!("{} {done}/{}", plan.name, plan.pieces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pieces: u64, threads: usize) -> Plan {
        Plan { name: "test", pieces, threads }
    }

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for threads in [0, 1, 2, 3, 8] {
            let mut taken = vec![];
            in_order(plan(100, threads), || |n| Ok(n * n), |n| taken.push(n), &mut |_| {}).unwrap();
            assert_eq!(taken, (0..100).map(|n| n * n).collect::<Vec<_>>(), "{threads} threads");
        }
    }

    #[test]
    fn the_end_is_reported_once_as_100() {
        let mut seen = vec![];
        in_order(plan(40, 2), || |_| Ok(()), |()| {}, &mut |p| seen.push(p)).unwrap();
        let end = Progress { percent: 100, operation: "test 40/40".into() };
        assert_eq!(seen.iter().filter(|p| p.percent == 100).collect::<Vec<_>>(), [&end]);
        assert!(seen.is_sorted_by_key(|p| p.percent));
    }

    #[test]
    fn an_error_ends_the_work_of_all_threads() {
        // Endless, unless the others stop too.
        let worker = || |n| if n == 3 { Err(Error::WrongProduct(n)) } else { Ok(()) };
        let ended = in_order(plan(u64::MAX, 2), worker, |()| {}, &mut |_| {});
        assert!(matches!(ended, Err(Error::WrongProduct(3))), "{ended:?}");
    }

    #[test]
    fn a_panic_ends_the_work_of_all_threads() {
        let worker = || |n| if n == 3 { panic!("on purpose") } else { Ok(()) };
        let work = || in_order(plan(u64::MAX, 2), worker, |()| {}, &mut |_| {});
        let panicked = std::panic::catch_unwind(work).unwrap_err();
        assert_eq!(panicked.downcast_ref(), Some(&"a scoped thread panicked"));
    }
}
