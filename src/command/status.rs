//! `worker status`: what the agent is doing, from the file it keeps; also when it is down.

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use serde::Serialize;

use crate::config::{Place, place_from_args};
use crate::exit::Exit;
use crate::snapshot::{GpuUse, Machine, RunningJob, Snapshot, State, Usage};
use crate::store::{self, FileError, STATUS};
use crate::{clock, logging, text};

/// After so many intervals without a word, and as many seconds at least, a service that shows its state to
/// everybody is not there.
const SILENT_INTERVALS: f64 = 4.0;
const SILENT_SECONDS: f64 = 30.0;

/// What is known of the agent.
#[derive(Serialize)]
struct Found {
    running: bool,
    #[serde(flatten)]
    snapshot: Option<Snapshot>,
}

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let place = place_from_args(args)?;
    logging::start(place.log);
    let now = clock::wall();
    let found = find(&place, now).map_err(|error| super::with_sudo(error, "status", &place))?;
    let mut out = io::stdout();
    if args.get_flag("json") {
        writeln!(out, "{}", text::visible_json(&serde_json::to_string_pretty(&found)?))?;
    } else {
        write!(out, "{}", Card { found: &found, place: &place, now })?;
    }
    Ok(if found.running { Exit::Stopped } else { Exit::NotRunning })
}

/// One's own agent; where none runs, the one that shows itself to everybody.
fn find(place: &Place, now: SystemTime) -> Result<Found, FileError> {
    let snapshot = store::read_status(&place.state_dir.join(STATUS))?;
    let running = store::is_held(&place.state_dir)?;
    let own = Found { running, snapshot: snapshot.map(|snapshot| settle(snapshot, running)) };
    if own.running || place.is_given {
        return Ok(own);
    }
    match store::read_status(&place.public_dir.join(STATUS))? {
        Some(snapshot) => {
            let running = snapshot.state != State::Stopped && is_fresh(&snapshot, now);
            Ok(Found { running, snapshot: Some(settle(snapshot, running)) })
        }
        None => Ok(own),
    }
}

/// An agent that was killed could not say that it ended.
fn settle(snapshot: Snapshot, running: bool) -> Snapshot {
    if running || snapshot.state == State::Stopped {
        return snapshot;
    }
    let why = format!("it ended without a word, and was {} last", snapshot.line());
    Snapshot { state: State::Stopped, why: Some(why), jobs: vec![], ..snapshot }
}

fn is_fresh(snapshot: &Snapshot, now: SystemTime) -> bool {
    let silent = since(&snapshot.at, now).unwrap_or(Duration::MAX);
    let patience = SILENT_INTERVALS * snapshot.heartbeat_interval_seconds;
    silent.as_secs_f64() <= patience.max(SILENT_SECONDS)
}

fn since(time: &str, now: SystemTime) -> Option<Duration> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(now.duration_since(time).unwrap_or_default())
}

/// For people to read.
struct Card<'a> {
    found: &'a Found,
    place: &'a Place,
    now: SystemTime,
}

impl Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(snapshot) = &self.found.snapshot else {
            let dir = self.place.state_dir.display();
            let told = if self.found.running { "an agent starts" } else { "no agent has run" };
            return writeln!(f, "{told} with the state directory {dir}");
        };
        // A file's words, which a terminal is not to obey.
        let mut line = |what: &str, told: String| writeln!(f, "{what:10} {}", text::shown(&told));
        let ago = |time: &str| self.ago(time);
        if self.found.running {
            line("state", snapshot.line())?;
        } else {
            line("state", format!("not running; last seen {}", ago(&snapshot.at)))?;
            snapshot.why.iter().try_for_each(|why| line("", why.clone()))?;
        }
        let (name, id, version) = (&snapshot.name, &snapshot.worker_id, &snapshot.version);
        line("worker", format!("{name}, id {id}, version {version}"))?;
        let price = snapshot.price_per_hour;
        line("backend", format!("{}, {price:.2} an hour", snapshot.backend))?;
        if self.found.running {
            line("process", format!("{}, started {}", snapshot.pid, ago(&snapshot.started)))?;
            let heard = snapshot.last_heartbeat.as_deref().map_or_else(|| "never".to_owned(), ago);
            line("heartbeat", format!("last answered {heard}"))?;
        }
        snapshot.jobs.iter().try_for_each(|job| line("job", self.job(job)))?;
        let counts = snapshot.since_start;
        let (done, failed) = (counts.completed, counts.failed);
        let (declined, cancelled) = (counts.declined, counts.cancelled);
        line(
            "jobs",
            format!(
                "{done} completed, {failed} failed, {declined} declined, {cancelled} cancelled since the start"
            ),
        )?;
        if snapshot.waiting_results > 0 {
            let refused = match snapshot.too_large_results {
                0 => String::new(),
                some => format!("; the backend refuses {some} as too large (413)"),
            };
            line("results", format!("{} wait to be delivered{refused}", snapshot.waiting_results))?;
        }
        machine_lines(&snapshot.machine, snapshot.usage.as_ref())
            .try_for_each(|(what, told)| line(&what, told))
    }
}

impl Card<'_> {
    fn ago(&self, time: &str) -> String {
        match since(time, self.now) {
            Some(ago) => {
                let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
                format!("{ago} ago")
            }
            None => format!("at {time}"),
        }
    }

    fn job(&self, job: &RunningJob) -> String {
        let RunningJob { id, kind, attempt, percent, operation, .. } = job;
        let operation = if operation.is_empty() { "" } else { &format!(", {operation}") };
        let attempt = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        let begun = self.ago(&job.since);
        format!("{id} {kind}, {percent} %{operation}{attempt}, begun {begun}")
    }
}

fn machine_lines(
    machine: &Machine,
    usage: Option<&Usage>,
) -> impl Iterator<Item = (String, String)> {
    let mut lines = vec![];
    // Before the first registration nothing is known of it.
    if machine.cpu_cores > 0 {
        let Machine { hostname, cpu_model, cpu_cores, ram_total_gb, .. } = machine;
        let told = format!("{hostname}, {cpu_model}, {cpu_cores} cores, {ram_total_gb:.1} GB");
        lines.push(("machine".to_owned(), told));
    }
    if let Some(usage) = usage {
        let cpu = usage.cpu_percent.map(|percent| format!("CPU {percent:.0} %"));
        let temperature = usage.cpu_temp_celsius.map(|celsius| format!("{celsius:.0} °C"));
        let memory = Some(format!("memory {:.0} %", usage.ram_percent));
        let disk = usage.disk_free_gb.map(|free| format!("disk {free:.1} GB free"));
        lines.push(("usage".to_owned(), list(&[cpu, temperature, memory, disk])));
    }
    for gpu in &machine.gpus {
        let name = gpu.name.clone().unwrap_or_else(|| "of no name".to_owned());
        let used = usage.and_then(|usage| usage.gpus.iter().find(|used| used.index == gpu.index));
        let told = list(&[Some(name), used.map(gpu_use)]);
        lines.push((format!("GPU {}", gpu.index), told));
    }
    if let Some(absence) = &machine.gpu_absence {
        lines.push(("GPU".to_owned(), absence.clone()));
    }
    lines.into_iter()
}

fn gpu_use(used: &GpuUse) -> String {
    let memory = used.memory_used_mb.zip(used.memory_total_mb);
    list(&[
        used.percent.map(|percent| format!("{percent:.0} %")),
        used.temp_celsius.map(|celsius| format!("{celsius:.0} °C")),
        used.power_watts.map(|watts| format!("{watts:.0} W")),
        memory.map(|(used, total)| format!("{used} of {total} MB")),
    ])
}

fn list(parts: &[Option<String>]) -> String {
    let told: Vec<&str> =
        parts.iter().flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
    told.join(", ")
}
