//! `worker demo`: an embedded backend, this worker, real jobs, and a table of what came of them.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use log::LevelFilter;
use serde_json::{Value, json};

use crate::config::{BackendUrl, Config, Connection, Identity, Log, Rules, log_from_args};
use crate::exit::Exit;
use crate::mock::{Backend, JobView, Options, Status};
use crate::{agent, logging};

/// Ids and what they ask for: a second or so of work each on a small machine.
const JOBS: [(&str, &str, f64); 3] = [
    ("demo-matmul", "matmul", 0.1),
    ("demo-sha256", "sha256", 0.25),
    ("demo-primes", "primes", 0.5),
];

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    // The table is what a person came for; the log only speaks up when something is wrong.
    let log = log_from_args(args)?;
    let level = if log.level == LevelFilter::Info { LevelFilter::Warn } else { log.level };
    let log = Log { level, ..log };
    logging::start(log);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let backend = Backend::start(listen, Options::default()).context("cannot start the backend")?;
    for (id, kernel, amount) in JOBS {
        let input = json!({"kernel": kernel, "seed": 1});
        let job =
            json!({"id": id, "modelType": "compute", "computeNeeded": amount, "inputData": input});
        backend.submit(job).map_err(|problem| anyhow!("{problem}"))?;
    }
    let state = tempfile::tempdir().context("cannot make a folder for the state")?;
    let config = config(&backend, state.path().to_owned(), log);
    let mut out = io::stdout();
    writeln!(out, "embedded backend at {}, {} jobs wait", backend.url(), JOBS.len())?;
    let exit = thread::scope(|scope| -> anyhow::Result<Exit> {
        let agent = thread::Builder::new()
            .name("agent".into())
            .spawn_scoped(scope, || agent::run(config))
            .context("cannot start the agent")?;
        show_until(&backend, || agent.is_finished())?;
        match agent.join() {
            Ok(ended) => ended.context("the agent failed"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let jobs = backend.jobs();
    write!(out, "\n{}", table(&jobs))?;
    writeln!(out, "\nto sell this machine's time: worker --backend URL")?;
    let all = jobs.iter().all(|job| job.status == Status::Completed);
    Ok(if all { exit } else { Exit::JobFailed })
}

fn config(backend: &Backend, state_dir: PathBuf, log: Log) -> Config {
    let url = backend.url();
    Config {
        identity: Identity {
            name: Some("Demo".into()),
            price: 5.0,
            location: "Local Network".into(),
            address: None,
            worker_id: None,
            state_dir,
            nvml_library: None,
        },
        connection: Connection {
            backend: BackendUrl { base: url.clone(), origin: url, is_loopback: true },
            token_file: None,
            ca_cert: None,
            request_timeout: Duration::from_secs(10),
        },
        rules: Rules {
            heartbeat_interval: Duration::from_secs(1),
            progress_interval: Duration::from_millis(100),
            max_failures: 5,
            drain_timeout: Duration::from_secs(10),
            slots: 1,
            max_jobs: u32::try_from(JOBS.len()).ok(),
            exit_when_idle: None,
            min_free: 0,
        },
        log,
        file: None,
    }
}

/// Shows the jobs as the backend sees them: bars on a terminal, a line a change elsewhere.
fn show_until(backend: &Backend, done: impl Fn() -> bool) -> io::Result<()> {
    let mut shown = Shown::new(backend);
    let mut seen = 0;
    loop {
        let last = done();
        for job in &backend.jobs() {
            shown.show(job)?;
        }
        if last {
            return Ok(());
        }
        seen = backend.wait_change(seen, Duration::from_millis(100));
    }
}

struct Shown {
    jobs: Vec<(String, Status, Option<ProgressBar>)>,
}

impl Shown {
    fn new(backend: &Backend) -> Self {
        let bars = io::stdout().is_terminal().then(MultiProgress::new);
        let jobs = backend.jobs().into_iter().map(|job| {
            let bar = bars.as_ref().map(|bars| bars.add(bar(&job.id)));
            // What no job comes back to, so that its first look counts as a change.
            (job.id, Status::Cancelled, bar)
        });
        Self { jobs: jobs.collect() }
    }

    fn show(&mut self, job: &JobView) -> io::Result<()> {
        let Some((_, status, bar)) = self.jobs.iter_mut().find(|(id, ..)| *id == job.id) else {
            return Ok(());
        };
        let changed = *status != job.status;
        *status = job.status;
        let status = job.status.to_string().to_lowercase();
        match bar {
            Some(bar) => {
                bar.set_position(if job.status.is_over() { 100 } else { job.progress });
                let running = job.operation.as_ref().filter(|_| job.status == Status::Running);
                bar.set_message(running.map_or(status, String::clone));
                if job.status.is_over() {
                    bar.finish();
                }
            }
            None if changed => writeln!(io::stdout(), "{}: {status}", job.id)?,
            None => {}
        }
        Ok(())
    }
}

pub(super) fn bar(id: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:12} {bar:30} {percent:>3} % {msg}");
    let bar = ProgressBar::new(100).with_prefix(id.to_owned());
    // The template above is right; should a newer indicatif think otherwise, its default will do.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn table(jobs: &[JobView]) -> String {
    let head = format!("{:12} {:8} {:>7}  {}\n", "JOB", "KIND", "SECONDS", "RESULT");
    let row = |job: &JobView| {
        let seconds = job.seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.2}"));
        format!("{:12} {:8} {seconds:>7}  {}\n", job.id, job.kind, result(job))
    };
    head + &jobs.iter().map(row).collect::<String>()
}

fn result(job: &JobView) -> String {
    let status = job.status.to_string().to_lowercase();
    if let Some(error) = &job.error {
        return format!("{status}: {error}");
    }
    let data = job.result.as_ref().and_then(|result| result.get("computationData"));
    let Some(data) = data else { return status };
    let value = match &data["result"] {
        Value::String(hash) => format!("{}…", hash.get(..16).unwrap_or(hash)),
        other => other.to_string(),
    };
    match data.get("gflops").and_then(Value::as_f64) {
        Some(gflops) => format!("{status}, {value}, {gflops:.1} GFLOP/s"),
        None => format!("{status}, {value}"),
    }
}
