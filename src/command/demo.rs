//! `worker demo`: an embedded backend, this worker, real jobs, and a table of what came of them.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use log::LevelFilter;
use serde_json::{Value, json};

use crate::config::{
    Artefacts, BackendUrl, Config, Connection, Identity, Jobs, Log, Rules, Service, log_from_args,
};
use crate::exit::Exit;
use crate::mock::{Backend, JobView, Options, Status};
use crate::{agent, logging};

/// One of each kind, a second or so of work at most on a small machine.
const JOBS: u32 = 4;
const TRAINING: &str = "demo-training";
/// Two handwritten digits of 8 by 8 pixels, which are a 3 and an 8.
const DIGITS: &str = "[\
    [0,0,7,15,13,1,0,0,0,8,13,6,15,4,0,0,0,2,1,13,13,0,0,0,0,0,2,15,11,1,0,0,\
     0,0,0,1,12,12,1,0,0,0,0,0,1,10,8,0,0,0,8,4,5,14,9,0,0,0,7,13,13,9,0,0],\
    [0,0,9,14,8,1,0,0,0,0,12,14,14,12,0,0,0,0,9,10,0,15,4,0,0,0,3,16,12,14,2,0,\
     0,0,4,16,16,2,0,0,0,3,16,8,10,13,2,0,0,1,15,1,3,16,8,0,0,0,11,16,15,11,1,0]]";

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    // The table is what a person came for; the log only speaks up when something is wrong.
    let log = log_from_args(args)?;
    let level = if log.level == LevelFilter::Info { LevelFilter::Warn } else { log.level };
    let log = Log { level, ..log };
    logging::start(log);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let backend = Backend::start(listen, Options::default()).context("cannot start the backend")?;
    submit(&backend, first_jobs())?;
    let state = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir();
    let state = state.context("cannot make a folder for the state")?;
    let config = config(&backend, state.path().to_owned(), log);
    let reread = || Ok(config.clone());
    let mut out = io::stdout();
    writeln!(out, "embedded backend at {}, {JOBS} jobs, one of each kind", backend.url())?;
    let exit = thread::scope(|scope| -> anyhow::Result<Exit> {
        let agent = thread::Builder::new()
            .name("agent".into())
            .spawn_scoped(scope, || agent::run(config.clone(), &reread, None))
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

fn submit(backend: &Backend, jobs: [Value; 2]) -> anyhow::Result<()> {
    for job in jobs {
        backend.submit(job).map_err(|problem| anyhow!("{problem}"))?;
    }
    Ok(())
}

fn first_jobs() -> [Value; 2] {
    let training = json!({"dataset": "digits", "epochs": 30, "seed": 1});
    let compute = json!({"kernel": "matmul", "seed": 1});
    [
        json!({"id": TRAINING, "jobType": "training", "inputData": training}),
        json!({
            "id": "demo-compute", "jobType": "compute", "computeNeeded": 0.1, "inputData": compute,
        }),
    ]
}

/// What can only be asked for when there is a model: to use it, and to teach it more. With the same seed the
/// same rows are kept for the test.
fn next_jobs(model: &Value) -> [Value; 2] {
    let input = serde_json::from_str(DIGITS).unwrap_or(Value::Null);
    let inference = json!({"model": model, "input": input});
    let tuning =
        json!({"baseModel": model, "dataset": "digits", "epochs": 5, "freeze": 1, "seed": 1});
    [
        json!({"id": "demo-inference", "jobType": "inference", "inputData": inference}),
        json!({"id": "demo-fine-tuning", "jobType": "fine-tuning", "inputData": tuning}),
    ]
}

fn config(backend: &Backend, state_dir: PathBuf, log: Log) -> Config {
    let url = backend.url();
    Config {
        listen: None,
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
            max_jobs: Some(JOBS),
            exit_when_idle: None,
            min_free: 0,
            private_downloads: false,
        },
        artefacts: Artefacts { space: 1 << 30, reuse: false, ipfs_api: None },
        jobs: Jobs::default(),
        log,
        service: Service::default(),
        file: None,
    }
}

/// Shows the jobs as the backend sees them, bars on a terminal and a line a change elsewhere, and submits
/// what waits for the first model.
fn show_until(backend: &Backend, done: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut shown =
        Shown { bars: io::stdout().is_terminal().then(MultiProgress::new), jobs: BTreeMap::new() };
    let mut seen = 0;
    let mut has_model = false;
    loop {
        let last = done();
        for job in &backend.jobs() {
            shown.show(job)?;
            if job.id == TRAINING && job.status.is_over() && !has_model {
                has_model = true;
                let model = job.result.as_ref().map(|result| result["modelUrl"].clone());
                submit(backend, next_jobs(&model.unwrap_or_default()))?;
            }
        }
        if last {
            return Ok(());
        }
        seen = backend.wait_change(seen, Duration::from_millis(100));
    }
}

struct Shown {
    bars: Option<MultiProgress>,
    jobs: BTreeMap<String, (Option<Status>, Option<ProgressBar>)>,
}

impl Shown {
    fn show(&mut self, job: &JobView) -> io::Result<()> {
        let (before, bar) = self
            .jobs
            .entry(job.id.clone())
            .or_insert_with(|| (None, self.bars.as_ref().map(|bars| bars.add(bar(&job.id)))));
        let changed = before.replace(job.status) != Some(job.status);
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
    let style = ProgressStyle::with_template("{prefix:16} {bar:30} {percent:>3} % {msg}");
    let bar = ProgressBar::new(100).with_prefix(id.to_owned());
    // The template above is right; should a newer indicatif think otherwise, its default will do.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn table(jobs: &[JobView]) -> String {
    let head = format!("{:16} {:11} {:>7}  {}\n", "JOB", "KIND", "SECONDS", "RESULT");
    let row = |job: &JobView| {
        let seconds = job.seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.2}"));
        format!("{:16} {:11} {seconds:>7}  {}\n", job.id, job.kind, result(job))
    };
    head + &jobs.iter().map(row).collect::<String>()
}

fn result(job: &JobView) -> String {
    let status = job.status.to_string().to_lowercase();
    if let Some(error) = &job.error {
        return format!("{status}: {error}");
    }
    let told = job.result.as_ref().and_then(told);
    match told {
        Some(told) => format!("{status}, {told}"),
        None => status,
    }
}

/// What a result says for a person.
fn told(result: &Value) -> Option<String> {
    let short = |text: &str| format!("{}…", text.get(..16).unwrap_or(text));
    if let Some(accuracy) = result["finalMetrics"]["finalAccuracy"].as_f64() {
        let model = result["modelUrl"].as_str()?;
        return Some(format!("{:.1} % right on new rows, {model}", 100.0 * accuracy));
    }
    if let Some(answers) = result["predictions"].as_array() {
        let answers = answers.iter().filter_map(|answer| {
            let sure = 100.0 * answer["confidence"].as_f64()?;
            Some(format!("{} ({sure:.0} % sure)", answer["prediction"].as_str()?))
        });
        return Some(format!("the digits are {}", answers.collect::<Vec<_>>().join(" and ")));
    }
    let data = &result["computationData"];
    let value = data["result"].as_str().map_or_else(|| data["result"].to_string(), short);
    let speed = data["gflops"].as_f64().map(|gflops| format!(", {gflops:.1} GFLOP/s"));
    Some(value + &speed.unwrap_or_default())
}
