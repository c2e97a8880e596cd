//! The agent: the threads, the one event channel, and the loop that does what the core decides.
//!
//! ```text
//! signals ─┐                          ┌─► net      registers and beats
//! net ─────┤                          ├─► courier  progress, questions, completions
//! courier ─┼─► Event ─► core ─► Action┤
//! jobs ────┤                          ├─► a thread a job
//! owner ───┤                          ├─► speed    measures the processor, when nothing runs
//! speed ───┘                          └─► owner    looks for a pause, reads settings again
//! ```
//! At each turn of the loop its view goes to the `board`, from which `status` keeps the file, and to the
//! `herald`, who tells the service manager. On a terminal `bars` draws the running jobs.
//!
//! What jobs made goes from their threads to `ipfs`, which offers it to a node where there is one.
//!
//! Every thread but the GPU driver's lives in one scope, has a name, is joined, and brings the agent
//! down if it panics.

mod allot;
mod assignment;
mod bars;
mod board;
mod core;
mod courier;
mod event;
mod facts;
mod gpu_roll;
mod hands;
mod herald;
mod limits;
mod measure;
mod net;
mod outward;
mod owner;
mod page;
mod recover;
mod signals;

pub(crate) use facts::facts_without_agent;
pub(crate) use owner::Reread;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use indicatif::MultiProgress;

use self::core::Core;
use crate::backend::{Backend, Facts};
use crate::cid::Cid;
use crate::clock;
use crate::config::{Config, Problems};
use crate::exit::Exit;
use crate::ipfs;
use crate::job::{Room, Terms};
use crate::machine::{self, GpuWatch, Gpus};
use crate::notify::Notify;
use crate::process::{Groups, Sandbox};
use crate::runner::{self, Engine};
use crate::serve::Server;
use crate::store::{self, Loss, Store, Trash};
use allot::Allotments;
use board::{Board, Poster};
use event::Event;
use hands::Hands;
use outward::Outward;
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
    #[error("cannot start the thread or pipe for {what}: {cause}{}", fix(cause))]
    Start { what: &'static str, cause: io::Error },
    #[error("the {0} thread died of a bug")]
    Panicked(&'static str),
}

/// What helps where the system gives no more.
fn fix(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::WouldBlock => {
            "; this user may have no more processes: raise ulimit -u, or LimitNPROC= and TasksMax= of the unit"
        }
        _ => "",
    }
}

/// Everything the threads share; all of it is read-only, or locks for itself.
struct Shared {
    /// Replaced as a whole when it is read again; a job keeps what held when it began.
    config: Mutex<Arc<Config>>,
    board: Board,
    notify: Notify,
    store: Store,
    backend: Backend,
    gpus: GpuWatch,
    /// Where the status page is served, if it is.
    page: Option<Server>,
    /// Where jobs get control groups, if anywhere.
    groups: Option<Groups>,
    worker_id: String,
    /// What is asked of an offer.
    terms: Terms,
    /// What scripts run in, if any.
    sandbox: Option<Sandbox>,
    /// What runs containers, if any.
    engine: Option<Engine>,
    allotments: Allotments,
    outward: Outward,
    /// The disk that jobs write to.
    room: Arc<Room>,
}

impl Shared {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is to be registered of this machine now.
    fn facts(&self, gpus: &Gpus) -> Facts {
        let (config, worker_id) = (self.config(), self.worker_id.clone());
        facts::facts(&config.identity, worker_id, config.rules.slots, &self.terms.kinds, gpus)
    }
}

/// Works for the backend until there is a reason to stop. `reread` settles the configuration anew; the
/// running jobs are shown as `bars` if there are any.
pub(crate) fn run(
    config: Config,
    reread: &Reread<'_>,
    bars: Option<&MultiProgress>,
) -> Result<Exit, Error> {
    let store = Store::open(&config.identity.state_dir)?;
    // Before anything is measured: it may put this process into a group with other limits.
    let groups = Groups::find(Path::new("/"), &config.identity.state_dir);
    match &groups {
        Ok(groups) => {
            log::info!("jobs run in control groups below {}", groups.place().display());
            if !groups.bound_processes() {
                log::warn!(
                    "control groups do not limit processes here: one script may take those of another"
                );
            }
        }
        Err(why) => {
            log::info!(
                "no control groups ({why}): a job's memory is added up once a second, and one \
                 script may take the processes of another"
            );
        }
    }
    let worker_id = match &config.identity.worker_id {
        Some(id) => id.clone(),
        None => store.worker_id(|| facts::make_worker_id(&config.identity))?,
    };
    let backend = Backend::new(&config.connection, worker_id.clone())?;
    let library = config.identity.nvml_library.as_deref();
    let gpus = machine::watch(library, GPU_PERIOD);
    let offered = facts::offered(
        &config.jobs,
        &config.identity.state_dir,
        groups.as_ref().map(|_| ()).map_err(Clone::clone),
    );
    let terms = Terms {
        origin: config.connection.backend.origin.clone(),
        kinds: offered.kinds,
        images: config.jobs.containers.images.clone(),
        interpreters: runner::interpreters(&config.jobs.interpreters),
        time: config.jobs.limits.time,
    };
    let page = config.listen.map(page::open).transpose()?;
    let board = Board::new(&config, &worker_id);
    let notify = Notify::new(config.service.notify_socket.as_deref());
    let config = Arc::new(config);
    let settings = Mutex::new(Arc::clone(&config));
    let shared = Shared {
        config: settings,
        board,
        notify,
        store,
        backend,
        gpus,
        page,
        groups: groups.ok(),
        worker_id,
        terms,
        sandbox: offered.sandbox,
        engine: offered.engine,
        allotments: Allotments::default(),
        outward: Outward::new(&config.identity.state_dir),
        room: Arc::default(),
    };
    log::info!(
        "started version={} worker={} backend={} config={}",
        env!("CARGO_PKG_VERSION"),
        shared.worker_id,
        config.connection.backend.base,
        config.file.as_ref().map_or_else(|| "none".into(), |file| file.display().to_string()),
    );
    if let Some(library) = &config.identity.nvml_library {
        log::info!("GPU driver library: {}", library.display());
    }
    let (left, losses) = recover(&shared)?;
    let now = clock::since_boot();
    let rules = config.rules.clone();
    let core = Core::new(rules, &shared.worker_id, fastrand::u64(..), left, now);
    thread::scope(|scope| work(scope, &shared, reread, bars, core, losses))
}

fn work<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    reread: &'scope Reread<'_>,
    bars: Option<&'scope MultiProgress>,
    mut core: Core,
    losses: Vec<Loss>,
) -> Result<Exit, Error> {
    let poster = Poster::new(shared);
    let config = shared.config();
    let (events, heard) = mpsc::channel();
    let (net, net_orders) = mpsc::channel();
    let (courier, courier_orders) = mpsc::channel();
    let starting = |what| move |cause| Error::Start { what, cause };
    let signals = signals::watch().map_err(starting("signals"))?;
    let close_signals = signals.closer();
    let (asked, owner) = owner::pipe().map_err(starting("the owner"))?;
    let ask = owner.try_clone().map_err(starting("the owner"))?;
    // Before anything that may bring a job.
    if let Some(pause) = owner::look(&config.identity.state_dir, &mut None) {
        events.send(pause).ok();
    }
    spawn(scope, "owner", &events, move |events| owner::run(shared, reread, &asked, &events))?;
    spawn(scope, "signals", &events, move |events| signals.run(&ask, &events))?;
    spawn(scope, "net", &events, move |events| net::run(shared, &net_orders, &events))?;
    spawn(scope, "courier", &events, move |events| {
        courier::run(shared, &courier_orders, &events);
    })?;
    let (files, made) = mpsc::channel();
    spawn(scope, "ipfs", &events, move |_| publish(shared, &made))?;
    let trash = clean_up(shared.store.trash()).map_err(starting("the trash"))?;
    spawn(scope, "status", &events, move |_| {
        let public_dir = config.service.runtime_dir.as_deref();
        shared.board.keep_copies(&config.identity.state_dir, public_dir);
    })?;
    if let Some(bars) = bars {
        spawn(scope, "bars", &events, move |_| bars::draw(&shared.board, bars))?;
    }
    let close_page = shared.page.as_ref().map(page::Closer);
    if let Some(server) = &shared.page {
        spawn(scope, "page", &events, move |_| page::serve(server, shared))?;
    }
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
        trash,
        _open: open,
        orders: BTreeMap::new(),
        measuring: None,
        unbooked: BTreeMap::new(),
        book_again: clock::since_boot(),
        poster,
        owner,
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
                drop(close_page);
                wait_for_threads(&heard, exit);
                return Ok(exit);
            }
        }
        hands.book_unbooked();
        hands.poster.show(core.view());
        event = next_event(&core, &heard, hands.poster.turn_within(LOOK_EVERY));
    }
}

/// Offers files to the IPFS node, one after the other: a node that does not answer holds up neither a
/// delivery nor a job.
fn publish(shared: &Shared, files: &Receiver<Cid>) {
    for cid in files {
        let Some(api) = &shared.config().artefacts.ipfs_api else { continue };
        if let Some(path) = shared.store.artefact(&cid, clock::wall()) {
            ipfs::publish(api, &path, &cid);
        }
    }
}

/// Empties the trash, now and whenever it is told. Nobody waits for the end of it, as a job may have left
/// more than can be removed before the agent is to be gone: the next start goes on.
fn clean_up(trash: Trash) -> io::Result<Sender<()>> {
    let (sender, told) = mpsc::channel();
    thread::Builder::new().name("trash".to_owned()).spawn(move || {
        trash.empty();
        while told.recv().is_ok() {
            // Once for all that was told meanwhile.
            told.try_iter().for_each(drop);
            trash.empty();
        }
    })?;
    Ok(sender)
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

fn next_event(core: &Core, heard: &Receiver<Event>, within: Duration) -> Event {
    let now = clock::since_boot();
    let due = core.next_deadline().map_or(within, |deadline| deadline.saturating_sub(now));
    match heard.recv_timeout(due.min(within)) {
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

#[cfg(test)]
mod flood;
