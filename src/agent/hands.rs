//! What the core's actions are done with.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, PipeWriter, Write as _};
use std::sync::mpsc::Sender;
use std::thread::Scope;
use std::time::Duration;

use super::assignment::{self, RECORD_AGAIN};
use super::board::Poster;
use super::event::{Action, Errand, Event};
use super::owner::Ask;
use super::{Error, Shared, leave_now, log_error, measure, net, spawn};
use crate::cid::Cid;
use crate::clock;
use crate::exit::Exit;
use crate::job::Offer;
use crate::store::{Phase, ReadError, Record};
use crate::work::{Attempt, Booking, Key, Order, Outcome};

/// Where a job's thread begins.
#[derive(Debug, Clone, Copy)]
enum Begin {
    Anew,
    /// Its program goes on since an earlier run of the agent.
    Adopted,
}

/// What the core's actions are done with. Dropping it closes every mailbox, which ends the threads.
pub(super) struct Hands<'scope, 'env> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) shared: &'scope Shared,
    pub(super) events: Sender<Event>,
    pub(super) net: Sender<net::Order>,
    pub(super) courier: Sender<Errand>,
    pub(super) files: Sender<Cid>,
    /// Told when there is something to remove.
    pub(super) trash: Sender<()>,
    /// What has nobody to tell anything, but ends when we do.
    pub(super) _open: Sender<Infallible>,
    /// The pipe to each running job.
    pub(super) orders: BTreeMap<Key, PipeWriter>,
    /// The measuring of the machine's speed ends with this.
    pub(super) measuring: Option<PipeWriter>,
    /// Deliveries that the disk has not taken, and when that is tried again.
    pub(super) unbooked: BTreeMap<Key, Booking>,
    pub(super) book_again: Duration,
    pub(super) poster: Poster<'scope>,
    pub(super) owner: Ask,
}

impl Hands<'_, '_> {
    pub(super) fn perform(&mut self, action: Action) -> Option<Exit> {
        if let Action::Start { key, .. }
        | Action::Decline { key, .. }
        | Action::Repeat { key, .. }
        | Action::Forget { key } = &action
        {
            // The record is another attempt's from now on.
            if self.unbooked.remove(key).is_some() {
                log::error!("a delivery has no line in the ledger: its job came again first");
            }
        }
        match action {
            Action::Register => self.tell_net(net::Order::Register),
            Action::Beat { status, jobs, paused } => {
                self.owner.look();
                self.tell_net(net::Order::Beat { status, jobs, paused });
            }
            Action::Start { key, attempt, offer } => self.begin(key, attempt, offer, Begin::Anew),
            Action::Adopt { key, attempt, offer } => {
                self.begin(key, attempt, offer, Begin::Adopted);
            }
            Action::Decline { key, attempt, kind, decline } => {
                let record = self.record(attempt, kind, assignment::declined(decline));
                self.record_outcome(key, &record);
            }
            Action::Repeat { key, attempt } => self.repeat(key, attempt),
            Action::Abandon { key } => self.abandon(key),
            Action::Order { key, order } => self.order(&key, order),
            Action::Errand(errand) => {
                // A thread that is gone has panicked, which the loop hears of.
                self.courier.send(errand).ok();
            }
            Action::Book { key, booking } => self.book(key, booking),
            Action::NoteProgress { key } => log_error(self.shared.store.note_progress(&key)),
            Action::NoteWait { key, waited } => {
                log_error(self.shared.store.note_wait(&key, waited));
            }
            Action::Forget { key } => {
                self.shared.store.forget(&key);
                self.clean_up();
            }
            Action::Measure => self.measure(),
            Action::StopMeasuring => self.measuring = None,
            Action::Log(level, line) => log::log!(level, "{line}"),
            Action::Exit(exit) => return Some(exit),
            Action::ExitNow(exit) => leave_now(exit),
        }
        None
    }

    fn book(&mut self, key: Key, booking: Booking) {
        let shared = self.shared;
        let price = shared.config().identity.price;
        if let Err(error) = shared.store.book(&key, &booking, price, clock::wall()) {
            log::error!("{error}; the delivery is booked later");
            self.unbooked.insert(key, booking);
        }
        self.clean_up();
    }

    /// Has removed what a job has left.
    fn clean_up(&self) {
        // Without its thread the next start does it.
        self.trash.send(()).ok();
    }

    pub(super) fn book_unbooked(&mut self) {
        let now = clock::since_boot();
        if self.unbooked.is_empty() || now < self.book_again {
            return;
        }
        let shared = self.shared;
        let price = shared.config().identity.price;
        shared.store.book_again(&mut self.unbooked, price, clock::wall());
        self.clean_up();
        self.book_again = now + RECORD_AGAIN;
    }

    fn begin(&mut self, key: Key, attempt: Attempt, offer: Box<Offer>, begin: Begin) {
        // A machine out of threads or files now may have some at the next beat.
        if let Err(error) = self.start(key.clone(), attempt, offer, begin) {
            self.orders.remove(&key);
            self.tell(Event::NotTaken { key, error: error.to_string() });
        }
    }

    fn start(
        &mut self,
        key: Key,
        attempt: Attempt,
        offer: Box<Offer>,
        begin: Begin,
    ) -> Result<(), Error> {
        let (orders, giver) =
            io::pipe().map_err(|cause| Error::Start { what: "a job's orders", cause })?;
        self.orders.insert(key.clone(), giver);
        let (shared, files) = (self.shared, self.files.clone());
        spawn(self.scope, "job", &self.events, move |events| {
            let assignment = assignment::Assignment {
                price: assignment::price(shared, &key, &attempt),
                shared,
                key,
                attempt,
                offer: *offer,
                orders,
                events,
                files,
            };
            match begin {
                Begin::Anew => assignment::run(assignment),
                Begin::Adopted => assignment::adopt(assignment),
            }
        })
    }

    fn measure(&mut self) {
        let begun = io::pipe().map_err(|cause| Error::Start { what: "measuring", cause });
        let begun = begun.and_then(|(orders, giver)| {
            self.measuring = Some(giver);
            let state_dir = self.shared.config().identity.state_dir.clone();
            spawn(self.scope, "speed", &self.events, move |events| {
                if let Some(answer) = measure::run(&orders, &state_dir) {
                    // Without a loop the agent is ending; it will be measured again.
                    events.send(Event::Measured(answer)).ok();
                }
            })
        });
        if let Err(error) = begun {
            self.tell(Event::Measured(Err(error.to_string())));
        }
    }

    fn order(&self, key: &Key, order: Order) {
        if let Some(mut giver) = self.orders.get(key) {
            // A job that has just ended reads no more orders.
            giver.write_all(&[order.byte()]).ok();
        }
    }

    /// Records the last attempt's failure as this one's outcome, marked as the last word.
    fn repeat(&self, key: Key, attempt: Attempt) {
        match self.shared.store.outcome(&key) {
            Ok((last, outcome)) => {
                let record = self.record(attempt, last.kind, assignment::final_failure(outcome));
                self.record_outcome(key, &record);
            }
            Err(error) => self.cannot_read(key, &error),
        }
    }

    fn abandon(&self, key: Key) {
        match self.shared.store.read(&key) {
            Ok(last) => {
                let record = self.record(last.attempt, last.kind, assignment::cancelled());
                self.record_outcome(key, &Record { price: last.price, ..record });
            }
            Err(error) => self.cannot_read(key, &error),
        }
    }

    /// Nothing new is recorded then, and what is on disk stays for another try.
    fn cannot_read(&self, key: Key, error: &ReadError) {
        let error = self.shared.store.unreadable(&key, error);
        self.tell(Event::NotTaken { key, error });
    }

    fn record(&self, attempt: Attempt, kind: String, outcome: Outcome) -> Record {
        let config = self.shared.config();
        let (origin, price) =
            (config.connection.backend.origin.clone(), Some(config.identity.price));
        let phase = Phase::Finished { outcome, waited: Duration::ZERO };
        let worker = Some(self.shared.worker_id.clone());
        Record { attempt, origin, worker, kind, price, offer: None, progressed: false, phase }
    }

    fn record_outcome(&self, key: Key, record: &Record) {
        let Phase::Finished { outcome, .. } = &record.phase else { return };
        let verdict = outcome.verdict();
        match self.shared.store.write(&key, record) {
            Ok(()) => self.tell(Event::Ended { key, verdict }),
            Err(error) => self.tell(Event::NotTaken { key, error: error.to_string() }),
        }
    }

    fn tell(&self, event: Event) {
        // The loop, which is us, holds the other end.
        self.events.send(event).ok();
    }

    fn tell_net(&self, order: net::Order) {
        // A thread that is gone has panicked, which the loop hears of.
        self.net.send(order).ok();
    }
}
