//! Where everybody can see what the agent is doing: the newest [`Snapshot`], which the loop posts, and
//! its copies on disk, which a thread of their own keeps: a disk that hangs holds up only that.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::Shared;
use super::core::{JobView, View};
use super::herald::Herald;
use crate::backend::Facts;
use crate::config::Config;
use crate::reading::{GpuSpecs, GpuUsage, Reading, Vitals};
use crate::snapshot::{Counts, FORMAT, Gpu, GpuUse, Machine, RunningJob, Snapshot, State, Usage};
use crate::store::{self, STATUS};
use crate::{clock, text};

pub(super) struct Board {
    newest: Mutex<Newest>,
    changed: Condvar,
    /// When the loop last turned, in milliseconds after boot.
    turned: AtomicU64,
}

struct Newest {
    snapshot: Arc<Snapshot>,
    /// Counts what was posted.
    posted: u64,
    /// Nothing will be posted any more.
    over: bool,
}

/// The loop's end of it. Dropping it posts that the agent has stopped.
pub(super) struct Poster<'a> {
    shared: &'a Shared,
    herald: Herald<'a>,
    seen: Option<View>,
    posted: Duration,
}

impl Board {
    pub(super) fn new(config: &Config, worker_id: &str) -> Self {
        let now = clock::rfc3339(clock::wall());
        let snapshot = Snapshot {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            worker_id: worker_id.to_owned(),
            name: super::facts::name(&config.identity, worker_id),
            backend: config.connection.backend.base.clone(),
            price_per_hour: config.identity.price,
            started: now.clone(),
            at: now,
            state: State::Starting,
            why: None,
            paused_until: None,
            registered: false,
            last_heartbeat: None,
            heartbeat_interval_seconds: config.rules.heartbeat_interval.as_secs_f64(),
            slots: config.rules.slots,
            jobs: vec![],
            waiting_results: 0,
            too_large_results: 0,
            since_start: Counts::default(),
            machine: Machine::default(),
            usage: None,
        };
        let turned = AtomicU64::new(millis(clock::since_boot()));
        let newest = Newest { snapshot: Arc::new(snapshot), posted: 1, over: false };
        Self { newest: Mutex::new(newest), changed: Condvar::new(), turned }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest().snapshot)
    }

    /// How long ago the loop last turned.
    pub(super) fn idle(&self) -> Duration {
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        clock::since_boot().saturating_sub(turned)
    }

    /// What the machine is, as it was last registered.
    pub(super) fn note_machine(&self, facts: &Facts, gpu_absence: Option<String>) {
        let mut newest = self.newest();
        let snapshot = Arc::make_mut(&mut newest.snapshot);
        snapshot.name.clone_from(&facts.name);
        snapshot.machine = machine(facts, gpu_absence);
    }

    /// What a heartbeat tells. It is posted with what the loop makes of the answer.
    pub(super) fn note_usage(&self, reading: &Reading, vitals: &Vitals) {
        Arc::make_mut(&mut self.newest().snapshot).usage = Some(usage(reading, vitals));
    }

    fn post(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut newest = self.newest();
        change(Arc::make_mut(&mut newest.snapshot));
        newest.posted += 1;
        self.changed.notify_all();
    }

    /// The next one after `seen`, or the same one again if none has come by then; none when there will
    /// be none.
    pub(super) fn wait_newer(&self, seen: u64, within: Duration) -> Option<(u64, Arc<Snapshot>)> {
        let same = |newest: &mut Newest| newest.posted == seen && !newest.over;
        let waited = self.changed.wait_timeout_while(self.newest(), within, same);
        let (newest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_last = newest.posted == seen && newest.over;
        (!is_last).then(|| (newest.posted, Arc::clone(&newest.snapshot)))
    }

    /// Keeps the copies on disk up to date, to the end.
    pub(super) fn keep_copies(&self, state_dir: &Path, public_dir: Option<&Path>) {
        let (mut seen, mut trouble) = (0, false);
        while let Some((posted, snapshot)) = self.wait_newer(seen, Duration::MAX) {
            seen = posted;
            let own = store::write_status(&state_dir.join(STATUS), &snapshot, 0o600);
            // They are on different disks: one of which may be full.
            let shown = public_dir.map_or(Ok(()), |dir| {
                store::write_status(&dir.join(STATUS), &public(&snapshot), 0o644)
            });
            let kept = own.and(shown);
            if let Err(error) = &kept
                && !trouble
            {
                log::warn!("{error}: `worker status` shows what was before");
            }
            trouble = kept.is_err();
        }
    }
}

impl<'a> Poster<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let watchdog = shared.config().service.watchdog;
        let herald = Herald::new(&shared.notify, watchdog);
        Self { shared, herald, seen: None, posted: Duration::ZERO }
    }

    pub(super) fn turn_within(&self, most: Duration) -> Duration {
        self.herald.turn_within(most)
    }

    /// The loop has turned.
    pub(super) fn show(&mut self, view: View) {
        let board = &self.shared.board;
        let now = clock::since_boot();
        board.turned.store(millis(now), Ordering::Relaxed);
        // Also when nothing happens, as between tries in an outage: what is old looks as if nobody ran.
        let is_old = now.saturating_sub(self.posted) >= view.interval;
        if is_old || self.seen.as_ref() != Some(&view) {
            self.posted = now;
            let config = self.shared.config();
            board.post(|snapshot| apply(snapshot, &view, &config, &Now::read()));
            self.seen = Some(view);
        }
        let snapshot = Arc::clone(&board.newest().snapshot);
        self.herald.turn(&snapshot);
    }
}

impl Drop for Poster<'_> {
    fn drop(&mut self) {
        let board = &self.shared.board;
        board.post(|snapshot| {
            snapshot.state = State::Stopped;
            snapshot.why = None;
            snapshot.at = clock::rfc3339(clock::wall());
            snapshot.jobs.clear();
        });
        let mut newest = board.newest();
        newest.over = true;
        let snapshot = Arc::clone(&newest.snapshot);
        drop(newest);
        board.changed.notify_all();
        // Of an end that came within one turn, this is the first that is heard.
        self.herald.turn(&snapshot);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Both clocks at one moment.
struct Now {
    boot: Duration,
    wall: SystemTime,
}

impl Now {
    fn read() -> Self {
        Self { boot: clock::since_boot(), wall: clock::wall() }
    }

    /// A time of the loop's on the wall clock, to the second.
    fn rfc3339(&self, time: Duration) -> String {
        let ago = self.boot.saturating_sub(time);
        let ahead = time.saturating_sub(self.boot);
        let at = self.wall.checked_sub(ago).and_then(|at| at.checked_add(ahead));
        // A clock that was just set back to its beginning has nothing before that.
        let at = at.filter(|at| *at >= SystemTime::UNIX_EPOCH).unwrap_or(self.wall);
        humantime::format_rfc3339_seconds(at).to_string()
    }
}

fn apply(snapshot: &mut Snapshot, view: &View, config: &Config, now: &Now) {
    snapshot.at = clock::rfc3339(now.wall);
    snapshot.price_per_hour = config.identity.price;
    snapshot.state = view.state;
    snapshot.why = why(view, now);
    snapshot.paused_until = view.paused_until.map(|until| now.rfc3339(until));
    snapshot.registered = view.registered;
    snapshot.last_heartbeat = view.last_good.map(|good| now.rfc3339(good));
    snapshot.heartbeat_interval_seconds = view.interval.as_secs_f64();
    snapshot.slots = view.slots;
    snapshot.jobs = view.jobs.iter().map(|job| running(job, now)).collect();
    snapshot.waiting_results = view.waiting_results;
    snapshot.too_large_results = view.too_large_results;
    snapshot.since_start = view.counts;
}

/// What is wrong with the backend, and what keeps jobs away: both may be.
fn why(view: &View, now: &Now) -> Option<String> {
    let ailment = view.ailment.as_ref().map(|ailment| {
        let since = now.rfc3339(ailment.since);
        text::one_line(&format!("{} since {since}: {}", ailment.what, ailment.said), 300)
    });
    // That it stops is its state already.
    let paused = view.paused.clone().filter(|_| view.state != State::Stopping);
    let reasons: Vec<String> = [ailment, paused].into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn running(job: &JobView, now: &Now) -> RunningJob {
    RunningJob {
        key: job.key.as_str().to_owned(),
        id: text::clean(&job.id),
        kind: text::clean(&job.seen.kind),
        attempt: job.attempt,
        since: now.rfc3339(job.since),
        percent: job.seen.percent,
        operation: text::clean(&job.seen.operation),
        energy_kwh: job.seen.energy_kwh,
    }
}

/// For everybody on the machine: without the words of jobs, which may be anything.
fn public(snapshot: &Snapshot) -> Snapshot {
    let mut public = snapshot.clone();
    for job in &mut public.jobs {
        job.operation.clear();
    }
    public
}

fn machine(facts: &Facts, gpu_absence: Option<String>) -> Machine {
    let specs = &facts.specs;
    Machine {
        hostname: specs.hostname.clone(),
        os: specs.os.clone(),
        cpu_model: specs.cpu_model.clone(),
        cpu_cores: specs.cpu_cores,
        ram_total_gb: specs.ram_total_gb,
        gflops: facts.gflops,
        gpus: specs.gpus.iter().map(gpu).collect(),
        gpu_absence,
    }
}

fn gpu(specs: &GpuSpecs) -> Gpu {
    Gpu {
        index: specs.index,
        uuid: specs.uuid.clone(),
        name: specs.name.clone(),
        vram_gb: specs.vram_gb,
        driver: specs.driver.clone(),
    }
}

fn usage(reading: &Reading, vitals: &Vitals) -> Usage {
    Usage {
        cpu_percent: reading.host.cpu_percent,
        ram_percent: reading.host.ram_percent,
        ram_used_gb: reading.host.ram_used_gb,
        cpu_temp_celsius: vitals.cpu_temp_c,
        disk_free_gb: vitals.disk_free_gb,
        disk_total_gb: vitals.disk_total_gb,
        on_battery: vitals.power.as_ref().map(|power| power.on_battery),
        gpus: reading.gpus.iter().map(gpu_use).collect(),
    }
}

pub(super) fn gpu_use(usage: &GpuUsage) -> GpuUse {
    GpuUse {
        index: usage.index,
        percent: usage.percent,
        temp_celsius: usage.temp_c,
        power_watts: usage.power_w,
        power_limit_watts: usage.power_limit_w,
        memory_used_mb: usage.mem_used_mb,
        memory_total_mb: usage.mem_total_mb,
        energy_joules: usage.energy_j,
    }
}
