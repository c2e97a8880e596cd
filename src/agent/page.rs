//! What the status page shows: the board, the ledger and the logs of running jobs, brought together.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Shared;
use crate::clock;
use crate::config::Problems;
use crate::serve::Server;
use crate::snapshot::Snapshot;
use crate::status::{self, Books, Day, Ended, Sources, Tally};
use crate::store::{self, Entry};
use crate::work::Kind;

/// So many ended jobs are listed, and so many days are drawn.
const RECENT: usize = 20;
const DAYS: u32 = 30;

const DAY: Duration = Duration::from_secs(86_400);

/// Takes the port, before anything is begun that would have to be ended again.
pub(super) fn open(addr: SocketAddr) -> Result<Server, Problems> {
    let told = |error: io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: give another port, or 0 for a free one"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's: give a higher one",
            _ => "give another address",
        };
        Problems::of_one(format!("--listen: cannot listen on {addr}: {error}; {fix}"))
    };
    let server = Server::bind(addr).map_err(told)?;
    log::info!("status page at http://{}", server.addr());
    if !addr.ip().is_loopback() {
        log::warn!(
            "the status page is open to whoever reaches {}, without a password or encryption",
            server.addr()
        );
    }
    Ok(server)
}

/// Stops the page when it is dropped, so that its thread can be joined.
pub(super) struct Closer<'a>(pub(super) &'a Server);

impl Drop for Closer<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Serves the page until the server is stopped.
pub(super) fn serve(server: &Server, shared: &Shared) {
    let state_dir = shared.config().identity.state_dir.clone();
    let started = shared.board.snapshot().started.clone();
    let kept = Mutex::new(None);
    let served = status::serve(
        server,
        &Sources {
            snapshot: &|| now(shared),
            log_tail: &|key| shared.store.log_end(key),
            books: &|| books_of(&state_dir, &started, &kept),
            idle: &|| shared.board.idle(),
        },
    );
    super::log_error(served.map_err(|error| format!("the status page cannot be served: {error}")));
}

/// The newest on the board, with the GPUs as they are now: they are looked at more often than told of.
fn now(shared: &Shared) -> Snapshot {
    let mut snapshot = Snapshot::clone(&shared.board.snapshot());
    snapshot.at = clock::rfc3339(clock::wall());
    let gpus = shared.gpus.latest();
    if let Some(usage) = &mut snapshot.usage {
        usage.gpus = gpus.usage.iter().map(super::board::gpu_use).collect();
    }
    snapshot
}

/// What was read last, and of which ledger on which day. Shared by the threads that answer requests.
type Kept = Mutex<Option<(Stamp, Arc<Books>)>>;

type Stamp = (Option<(u64, SystemTime)>, String);

/// The ledger may be long, and a page that is open asks every second: it is read when it has changed.
fn books_of(state_dir: &Path, started: &str, kept: &Kept) -> Arc<Books> {
    let now = clock::wall();
    let stamp = (store::ledger_stamp(state_dir), date(now));
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, books)) = &*kept
        && *known == stamp
    {
        return Arc::clone(books);
    }
    let mut made = BooksMade::new(started, now);
    match store::each_entry(state_dir, |entry| made.add(&entry)) {
        Ok(()) => {
            let books = Arc::new(made.books());
            *kept = Some((stamp, Arc::clone(&books)));
            books
        }
        Err(error) => {
            log::debug!("the status page lacks the ledger: {error}");
            Arc::default()
        }
    }
}

/// The books as far as they are made, line by line: a ledger is longer than what is shown of it.
struct BooksMade<'a> {
    /// Counters begin here.
    started: &'a str,
    /// Newest first.
    recent: VecDeque<Ended>,
    days: BTreeMap<String, Day>,
    tallies: BTreeMap<(String, String), Tally>,
}

impl<'a> BooksMade<'a> {
    /// The last days are there from the beginning, those without a job among them.
    fn new(started: &'a str, now: SystemTime) -> Self {
        let dates = (0..DAYS).filter_map(|ago| Some(date(now.checked_sub(DAY * ago)?)));
        let days = dates.map(|date| (date.clone(), Day { date, ..Day::default() })).collect();
        Self { started, recent: VecDeque::new(), days, tallies: BTreeMap::new() }
    }

    fn add(&mut self, entry: &Entry) {
        self.recent.push_front(ended(entry));
        self.recent.truncate(RECENT);
        if let Some(day) = self.days.get_mut(entry.ended.get(..10).unwrap_or_default()) {
            day.jobs += 1;
            day.amount += entry.amount.unwrap_or_default();
            day.kwh += entry.kwh.unwrap_or_default();
        }
        if entry.ended.as_str() >= self.started {
            // A backend may make up any number of names for kinds, and each would be a series of its own.
            let kind = Kind::by_name(&entry.kind).map_or("unknown", Kind::name).to_owned();
            let status = entry.status.clone();
            let tally = self.tallies.entry((kind.clone(), status.clone()));
            let tally = tally.or_insert_with(|| Tally { kind, status, ..Tally::default() });
            tally.count += 1;
            tally.seconds.extend(entry.seconds);
        }
    }

    fn books(self) -> Books {
        Books {
            recent: self.recent.into(),
            days: self.days.into_values().collect(),
            tallies: self.tallies.into_values().collect(),
        }
    }
}

fn ended(entry: &Entry) -> Ended {
    Ended {
        id: entry.id.clone(),
        attempt: entry.attempt,
        kind: entry.kind.clone(),
        status: entry.status.clone(),
        at: entry.ended.clone(),
        seconds: entry.seconds,
        amount: entry.amount,
        kwh: entry.kwh,
    }
}

fn date(time: SystemTime) -> String {
    clock::rfc3339(time).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-15T10:30:00Z";

    fn entry(kind: &str, status: &str, ended: &str) -> Entry {
        serde_json::from_value(serde_json::json!({
            "id": "job-1", "attempt": 1, "kind": kind, "status": status, "seconds": 2.0, "kwh": 0.5,
            "price": 5.0, "amount": 1.25, "origin": "http://a:80", "ended": ended,
        }))
        .unwrap()
    }

    fn of(entries: &[Entry]) -> Books {
        let now = humantime::parse_rfc3339(NOW).unwrap();
        let mut made = BooksMade::new("2026-01-15T00:00:00.000Z", now);
        entries.iter().for_each(|entry| made.add(entry));
        made.books()
    }

    #[test]
    fn the_last_thirty_days_are_drawn_and_the_last_of_them_is_today() {
        let books = of(&[
            entry("compute", "completed", "2025-12-16T23:59:59.999Z"),
            entry("compute", "completed", "2025-12-17T00:00:00.000Z"),
            entry("compute", "completed", "2026-01-15T09:00:00.000Z"),
            entry("compute", "completed", "2026-01-15T10:00:00.000Z"),
        ]);
        let day = |date: &str, jobs, amount, kwh| Day { date: date.into(), jobs, amount, kwh };
        assert_eq!(books.days.len(), 30);
        assert_eq!(books.days[0], day("2025-12-17", 1, 1.25, 0.5));
        assert_eq!(books.days[1], day("2025-12-18", 0, 0.0, 0.0));
        assert_eq!(books.days[29], day("2026-01-15", 2, 2.5, 1.0));
    }

    #[test]
    fn counters_are_of_this_run_and_the_list_of_all() {
        let books = of(&[
            entry("compute", "completed", "2026-01-14T09:00:00.000Z"),
            entry("compute", "failed", "2026-01-15T09:00:00.000Z"),
            entry("compute", "failed", "2026-01-15T10:00:00.000Z"),
        ]);
        let (kind, status, seconds) = ("compute".into(), "failed".into(), vec![2.0, 2.0]);
        assert_eq!(books.tallies, [Tally { kind, status, count: 2, seconds }]);
        let listed: Vec<_> = books.recent.iter().map(|ended| ended.at.as_str()).collect();
        assert_eq!(listed[0], "2026-01-15T10:00:00.000Z");
        assert_eq!(listed.len(), 3);
    }

    #[test]
    fn of_a_long_ledger_only_the_last_jobs_are_kept() {
        let entries = [0, 1].map(|day| {
            vec![entry("compute", "failed", &format!("2026-01-1{day}T09:00:00.000Z")); RECENT]
        });
        let books = of(&entries.concat());
        assert_eq!(books.recent.len(), RECENT);
        assert!(books.recent.iter().all(|ended| ended.at.starts_with("2026-01-11")));
    }

    #[test]
    fn the_ledger_is_read_again_only_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, ledger) = (Mutex::new(None), dir.path().join("ledger.jsonl"));
        let books = || books_of(dir.path(), "", &kept);
        let line = serde_json::to_string(&entry("compute", "failed", "2026-01-15T09:00:00.000Z"));
        store::replace(&ledger, line.unwrap().as_bytes()).unwrap();
        let first = books();
        assert_eq!(first.recent.len(), 1);
        assert!(Arc::ptr_eq(&first, &books()), "it has not");
        store::replace(&ledger, b"").unwrap();
        assert_eq!(books().recent.len(), 0);
    }

    #[test]
    fn counters_go_by_the_kinds_that_there_are_whatever_a_backend_calls_them() {
        let kinds = ["generic", "Compute", "dance-1", "dance-2"];
        let entries = kinds.map(|kind| entry(kind, "declined", NOW));
        let counted = of(&entries).tallies.into_iter().map(|tally| (tally.kind, tally.count));
        assert_eq!(counted.collect::<Vec<_>>(), [("compute".into(), 2), ("unknown".into(), 2)]);
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_what_to_do() {
        let taken = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let Err(refused) = open(taken.addr()) else { panic!("it is taken") };
        let (refused, addr) = (refused.to_string(), taken.addr());
        assert!(refused.starts_with(&format!("--listen: cannot listen on {addr}: ")), "{refused}");
        assert!(refused.ends_with("give another port, or 0 for a free one"), "{refused}");
    }
}
