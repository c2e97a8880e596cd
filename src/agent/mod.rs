//! The agent: the threads, the one event channel, and the loop that does what the core decides.
//!
//! ```text
//! signals ─┐                          ┌─► net      registers and beats
//! net ─────┤                          ├─► courier  progress, questions, completions
//! courier ─┼─► Event ─► core ─► Action┤
//! jobs ────┤                          ├─► a thread a job
//! speed ───┘                          └─► speed    measures the processor, when nothing runs
//! ```
//! What jobs made goes from their threads to `ipfs`, which offers it to a node where there is one.
//!
//! Every thread but the GPU driver's lives in one scope, has a name, is joined, and brings the agent
//! down if it panics.

mod assignment;
mod core;
mod courier;
mod event;
mod gpu_roll;
mod measure;
mod net;
mod recover;
mod signals;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, PipeWriter, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, Scope};
use std::time::Duration;

use self::core::Core;
use crate::backend::{Backend, Facts};
use crate::cid::Cid;
use crate::clock;
use crate::config::{Config, Identity, Problems};
use crate::exit::Exit;
use crate::ipfs;
use crate::job::Offer;
use crate::machine::{self, GpuWatch, Gpus};
use crate::process::Groups;
use crate::store::{self, Loss, Phase, ReadError, Record, Store};
use crate::work::{Attempt, Booking, Key, Kind, Order, Outcome};
use assignment::RECORD_AGAIN;
use event::{Action, Errand, Event};
use recover::{record_losses, recover};

/// The loop looks at the clock at least so often: the channel's own timer stands still while the
/// machine sleeps, the core's deadlines do not.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the threads may take to end.
const LEAVE_FOR: Duration = Duration::from_secs(2);

/// How often the GPUs are looked at.
const GPU_PERIOD: Duration = Duration::from_secs(5);

/// How long a start waits for the GPU driver.
const GPU_FIRST: Duration = Duration::from_secs(5);

/// Why the agent could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    State(#[from] store::Error),
    #[error("cannot start the thread or pipe for {what}: {cause}")]
    Start { what: &'static str, cause: io::Error },
    #[error("the {0} thread died of a bug")]
    Panicked(&'static str),
}

/// Everything the threads share; all of it is read-only, or locks for itself.
struct Shared {
    config: Config,
    store: Store,
    backend: Backend,
    gpus: GpuWatch,
    /// Where jobs get control groups, if anywhere.
    groups: Option<Groups>,
    worker_id: String,
}

impl Shared {
    /// What is to be registered of this machine now.
    fn facts(&self, gpus: &Gpus) -> Facts {
        facts(&self.config.identity, self.worker_id.clone(), self.config.rules.slots, gpus)
    }
}

/// Works for the backend until there is a reason to stop.
pub(crate) fn run(config: Config) -> Result<Exit, Error> {
    let store = Store::open(&config.identity.state_dir)?;
    // Before anything is measured: it may put this process into a group with other limits.
    let groups = Groups::find(Path::new("/"), &config.identity.state_dir);
    let worker_id = match &config.identity.worker_id {
        Some(id) => id.clone(),
        None => store.worker_id(|| make_worker_id(&config.identity))?,
    };
    let backend = Backend::new(&config.connection, worker_id.clone())?;
    let library = config.identity.nvml_library.as_deref();
    let gpus = machine::watch(library, GPU_PERIOD);
    let shared = Shared { config, store, backend, gpus, groups, worker_id };
    log::info!(
        "started version={} worker={} backend={} config={}",
        env!("CARGO_PKG_VERSION"),
        shared.worker_id,
        shared.config.connection.backend.base,
        shared
            .config
            .file
            .as_ref()
            .map_or_else(|| "none".into(), |file| file.display().to_string()),
    );
    if let Some(library) = &shared.config.identity.nvml_library {
        log::info!("GPU driver library: {}", library.display());
    }
    match &shared.groups {
        Some(groups) => {
            log::info!("jobs run in control groups below {}", groups.place().display());
        }
        None => log::info!("no control groups: a job's memory is added up once a second"),
    }
    let (left, losses) = recover(&shared)?;
    let now = clock::since_boot();
    let rules = shared.config.rules.clone();
    let core = Core::new(rules, &shared.worker_id, fastrand::u64(..), left, now);
    thread::scope(|scope| work(scope, &shared, core, losses))
}

fn work<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    mut core: Core,
    losses: Vec<Loss>,
) -> Result<Exit, Error> {
    let (events, heard) = mpsc::channel();
    let (net, net_orders) = mpsc::channel();
    let (courier, courier_orders) = mpsc::channel();
    let starting = |what| move |cause| Error::Start { what, cause };
    let signals = signals::watch().map_err(starting("signals"))?;
    let close_signals = signals.closer();
    spawn(scope, "signals", &events, move |events| signals.run(&events))?;
    spawn(scope, "net", &events, move |events| net::run(shared, &net_orders, &events))?;
    spawn(scope, "courier", &events, move |events| {
        courier::run(shared, &courier_orders, &events);
    })?;
    let (files, made) = mpsc::channel();
    spawn(scope, "ipfs", &events, move |_| publish(shared, &made))?;
    let (open, until_closed) = mpsc::channel();
    spawn(scope, "losses", &events, move |events| {
        record_losses(shared, losses, &until_closed, &events);
    })?;
    let mut hands = Hands {
        scope,
        shared,
        events,
        net,
        courier,
        files,
        _open: open,
        orders: BTreeMap::new(),
        measuring: None,
        unbooked: BTreeMap::new(),
        book_again: clock::since_boot(),
    };
    let mut event = Event::Tick;
    loop {
        if let Event::Panicked(name) = event {
            return Err(Error::Panicked(name));
        }
        if let Event::Ended { key, .. } | Event::NotTaken { key, .. } = &event {
            hands.orders.remove(key);
        }
        for action in core.handle(clock::since_boot(), event) {
            if let Some(exit) = hands.perform(action) {
                drop(hands);
                drop(close_signals);
                wait_for_threads(&heard, exit);
                return Ok(exit);
            }
        }
        hands.book_unbooked();
        event = next_event(&core, &heard);
    }
}

/// Offers files to the IPFS node, one after the other: a node that does not answer holds up neither a
/// delivery nor a job.
fn publish(shared: &Shared, files: &Receiver<Cid>) {
    let Some(api) = &shared.config.artefacts.ipfs_api else { return };
    for cid in files {
        if let Some(path) = shared.store.artefact(&cid, clock::wall()) {
            ipfs::publish(api, &path, &cid);
        }
    }
}

/// Waits for the threads, each of which holds a sender until it ends; not for ever, since one may be
/// in the middle of a request that nobody answers. Nothing is lost then: all there is to know is on
/// disk.
fn wait_for_threads(heard: &Receiver<Event>, exit: Exit) {
    let until = clock::since_boot() + LEAVE_FOR;
    loop {
        let left = until.saturating_sub(clock::since_boot());
        match heard.recv_timeout(left) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return log::info!("stopped"),
            Err(RecvTimeoutError::Timeout) => {
                log::info!("stopped, with a request still unanswered");
                leave_now(exit);
            }
        }
    }
}

fn next_event(core: &Core, heard: &Receiver<Event>) -> Event {
    let now = clock::since_boot();
    let due = core.next_deadline().map_or(LOOK_EVERY, |deadline| deadline.saturating_sub(now));
    match heard.recv_timeout(due.min(LOOK_EVERY)) {
        Ok(event) => event,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Event::Tick,
    }
}

/// Starts a named thread of the scope. If it panics, the loop hears of it.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    events: &Sender<Event>,
    run: impl FnOnce(Sender<Event>) + Send + 'scope,
) -> Result<(), Error> {
    let events = events.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, move || {
            let theirs = events.clone();
            // Not to go on after a panic, but to end in good order: the loop brings the agent down.
            if catch_unwind(AssertUnwindSafe(|| run(theirs))).is_err() {
                // Without a loop to hear it the agent is ending already.
                events.send(Event::Panicked(name)).ok();
            }
        })
        .map(|_| ())
        .map_err(|cause| Error::Start { what: name, cause })
}

/// What the core's actions are done with. Dropping it closes every mailbox, which ends the threads.
struct Hands<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'scope Shared,
    events: Sender<Event>,
    net: Sender<net::Order>,
    courier: Sender<Errand>,
    files: Sender<Cid>,
    /// What has nobody to tell anything, but ends when we do.
    _open: Sender<Infallible>,
    /// The pipe to each running job.
    orders: BTreeMap<Key, PipeWriter>,
    /// The measuring of the machine's speed ends with this.
    measuring: Option<PipeWriter>,
    /// Deliveries that the disk has not taken, and when that is tried again.
    unbooked: BTreeMap<Key, Booking>,
    book_again: Duration,
}

impl Hands<'_, '_> {
    fn perform(&mut self, action: Action) -> Option<Exit> {
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
                self.tell_net(net::Order::Beat { status, jobs, paused });
            }
            Action::Start { key, attempt, offer } => {
                // A machine out of threads or files now may have some at the next beat.
                if let Err(error) = self.start(key.clone(), attempt, offer) {
                    self.orders.remove(&key);
                    self.tell(Event::NotTaken { key, error: error.to_string() });
                }
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
            Action::Forget { key } => self.shared.store.forget(&key),
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
        let price = shared.config.identity.price;
        if let Err(error) = shared.store.book(&key, &booking, price, clock::wall()) {
            log::error!("{error}; the delivery is booked later");
            self.unbooked.insert(key, booking);
        }
    }

    fn book_unbooked(&mut self) {
        let now = clock::since_boot();
        if self.unbooked.is_empty() || now < self.book_again {
            return;
        }
        let shared = self.shared;
        let price = shared.config.identity.price;
        shared.store.book_again(&mut self.unbooked, price, clock::wall());
        self.book_again = now + RECORD_AGAIN;
    }

    fn start(&mut self, key: Key, attempt: Attempt, offer: Box<Offer>) -> Result<(), Error> {
        let (orders, giver) =
            io::pipe().map_err(|cause| Error::Start { what: "a job's orders", cause })?;
        self.orders.insert(key.clone(), giver);
        let (shared, files) = (self.shared, self.files.clone());
        spawn(self.scope, "job", &self.events, move |events| {
            assignment::run(assignment::Assignment {
                shared,
                key,
                attempt,
                offer: *offer,
                orders,
                events,
                files,
            });
        })
    }

    fn measure(&mut self) {
        let begun = io::pipe().map_err(|cause| Error::Start { what: "measuring", cause });
        let begun = begun.and_then(|(orders, giver)| {
            self.measuring = Some(giver);
            let state_dir = &self.shared.config.identity.state_dir;
            spawn(self.scope, "speed", &self.events, move |events| {
                if let Some(answer) = measure::run(&orders, state_dir) {
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
                self.record_outcome(key, &record);
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
        let origin = self.shared.config.connection.backend.origin.clone();
        let phase = Phase::Finished { outcome, waited: Duration::ZERO };
        let worker = Some(self.shared.worker_id.clone());
        Record { attempt, origin, worker, kind, offer: None, progressed: false, phase }
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

fn log_error(result: Result<(), impl Display>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "asked to leave without waiting for anyone; jobs end with our end of their stdin"
)]
fn leave_now(exit: Exit) -> ! {
    std::process::exit(exit as i32)
}

fn make_worker_id(identity: &Identity) -> String {
    let dir = &identity.state_dir;
    // The folder was just opened; should it not resolve, its own spelling is as good a name.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    machine::worker_id(machine::read_machine_id().as_deref(), &dir, fastrand::u128(..))
}

/// What would be registered of this machine.
///
/// With the reason why there is no GPU, or not every one.
pub(crate) fn facts_without_agent(identity: &Identity, slots: usize) -> (Facts, Option<String>) {
    let kept = store::read_worker_id(&identity.state_dir).ok().flatten();
    let worker_id = identity.worker_id.clone().or(kept);
    let worker_id = worker_id.unwrap_or_else(|| make_worker_id(identity));
    let watch = machine::watch(identity.nvml_library.as_deref(), GPU_PERIOD);
    let gpus = watch.wait_first(GPU_FIRST);
    let facts = facts(identity, worker_id, slots, &gpus);
    (facts, gpus.absence.map(|absence| absence.reason().to_owned()))
}

fn facts(identity: &Identity, worker_id: String, slots: usize, gpus: &Gpus) -> Facts {
    let specs = machine::specs(&identity.state_dir, gpus.specs.to_vec());
    let short = worker_id.get(..8).unwrap_or(&worker_id);
    Facts {
        name: identity.name.clone().unwrap_or_else(|| format!("Provider-{short}")),
        address: identity
            .address
            .clone()
            .unwrap_or_else(|| format!("QUBIC_{}", worker_id.to_uppercase())),
        location: identity.location.clone(),
        price: identity.price,
        slots,
        kinds: Kind::ALL.map(Kind::name).to_vec(),
        // Of this machine as it is now, or it has to be measured anew.
        gflops: store::read_speed(&identity.state_dir)
            .filter(|speed| speed.fits(&specs))
            .map(|speed| speed.measured.gflops),
        specs,
        worker_id,
    }
}

#[cfg(test)]
mod flood;
