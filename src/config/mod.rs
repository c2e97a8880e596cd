//! The settled configuration: defaults ← file ← environment ← flags, checked as a whole.
//!
//! Every problem is reported at once, each with the place it came from and what to write instead.

mod layers;
mod reload;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use log::LevelFilter;

use crate::secret::{self, Secret};
use crate::work::Kind;
use layers::Layers;
pub(crate) use value::BackendUrl;

/// No server takes a longer header.
const TOKEN_MAX: u64 = 64 << 10;

/// In seconds.
const DAY: u64 = 24 * 3600;

/// The machine's own facts that a provider can state.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: Option<String>,
    pub(crate) price: f64,
    pub(crate) location: String,
    pub(crate) address: Option<String>,
    pub(crate) worker_id: Option<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) nvml_library: Option<PathBuf>,
}

/// Which jobs may run here, and what each of them may take.
#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    /// What the engine runs, and what the owner allows besides.
    pub(crate) kinds: Vec<Kind>,
    /// By name, such as `python3`; the first is taken where a script does not say.
    pub(crate) interpreters: Vec<String>,
    pub(crate) limits: Limits,
    /// Whether scripts may run where no control group limits them.
    pub(crate) limits_by_polling: bool,
    pub(crate) containers: Containers,
}

/// How containers are run, and which.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    /// The engine's program; what is found if not given.
    pub(crate) engine: Option<PathBuf>,
    /// Patterns of the images that may run.
    pub(crate) images: Vec<String>,
    pub(crate) pull: Pull,
    /// What an engine's client needs of our environment.
    pub(crate) env: Vec<(&'static str, OsString)>,
}

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// When it is not on this machine.
    Missing,
    /// What is on this machine is all there is.
    Never,
    /// Before each job.
    Always,
}

/// What the clients of container engines read of the environment: where the engine is, where it keeps
/// what, how it gets at registries.
const ENGINE_ENV: [&str; 21] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRY_AUTH_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "https_proxy",
    "no_proxy",
];

/// The most that one job may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In bytes; most of the machine's if not given.
    pub(crate) memory: Option<u64>,
    /// Processors; all of them if not given.
    pub(crate) cpus: Option<u32>,
    /// In bytes, in its work folder.
    pub(crate) disk: u64,
    pub(crate) time: Duration,
}

impl Default for Jobs {
    fn default() -> Self {
        let day = Duration::from_secs(DAY);
        Self {
            kinds: Kind::ENGINE.to_vec(),
            interpreters: ["python3", "bash"].map(str::to_owned).to_vec(),
            limits: Limits { memory: None, cpus: None, disk: 20 << 30, time: day },
            limits_by_polling: false,
            containers: Containers {
                engine: None,
                images: vec!["*".into()],
                pull: Pull::Missing,
                env: vec![],
            },
        }
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// How the log is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) level: LevelFilter,
    pub(crate) format: Format,
    /// Whether stderr is the journal's, which puts its own time on each line.
    pub(crate) under_journal: bool,
}

/// How to speak to the backend.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) backend: BackendUrl,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca_cert: Option<PathBuf>,
    pub(crate) request_timeout: Duration,
}

/// The rules of the loop.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) heartbeat_interval: Duration,
    pub(crate) progress_interval: Duration,
    pub(crate) max_failures: u32,
    pub(crate) drain_timeout: Duration,
    pub(crate) slots: usize,
    pub(crate) max_jobs: Option<u32>,
    pub(crate) exit_when_idle: Option<Duration>,
    /// No job is taken while fewer bytes are free where the state is kept.
    pub(crate) min_free: u64,
    /// Whether jobs may download from the networks that this machine is in.
    pub(crate) private_downloads: bool,
}

/// What becomes of the results of jobs.
#[derive(Debug, Clone)]
pub(crate) struct Artefacts {
    /// So many bytes of them are kept.
    pub(crate) space: u64,
    /// Whether a job like one before is answered from them.
    pub(crate) reuse: bool,
    /// The node that they are added to.
    pub(crate) ipfs_api: Option<BackendUrl>,
}

/// What the service manager gave us, if one started us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    pub(crate) notify_socket: Option<OsString>,
    /// We are taken for hung after so long without a sign of life.
    pub(crate) watchdog: Option<Duration>,
    /// A folder that other users can look into.
    pub(crate) runtime_dir: Option<PathBuf>,
}

/// Everything `worker run` needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) identity: Identity,
    pub(crate) connection: Connection,
    pub(crate) rules: Rules,
    pub(crate) artefacts: Artefacts,
    pub(crate) jobs: Jobs,
    /// Where the status page is served, if it is.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) log: Log,
    pub(crate) service: Service,
    /// The `worker.toml` that was read, if any.
    pub(crate) file: Option<PathBuf>,
}

/// What is wrong with the settings, all of it.
#[derive(Debug)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    pub(crate) fn of_one(problem: String) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    pub(crate) fn from_args(args: &ArgMatches) -> Result<Self, Problems> {
        hide_proxies();
        let mut layers = Layers::read(args);
        let config = Self {
            identity: identity(&mut layers),
            connection: connection(&mut layers),
            rules: rules(&mut layers),
            artefacts: artefacts(&mut layers),
            jobs: jobs(&mut layers),
            listen: layers.parse("listen", value::listen),
            log: log(&mut layers),
            service: service(),
            file: layers.file.clone(),
        };
        layers.verdict(config)
    }
}

/// A proxy may tell us its own URL in an error, or a program in its output.
fn hide_proxies() {
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
        for url in
            [name.to_owned(), name.to_lowercase()].iter().filter_map(|name| layers::env(name))
        {
            secret::hide_proxy(&url.to_string_lossy());
        }
    }
}

/// What is registered, for `worker specs`, which needs no backend.
pub(crate) fn facts_from_args(args: &ArgMatches) -> Result<(Identity, Rules, Jobs, Log), Problems> {
    let mut layers = Layers::read(args);
    let settled = (identity(&mut layers), rules(&mut layers), jobs(&mut layers), log(&mut layers));
    layers.verdict(settled)
}

/// The log's settings alone, for commands that take no others.
pub(crate) fn log_from_args(args: &ArgMatches) -> Result<Log, Problems> {
    let mut layers = Layers::read(args);
    let log = log(&mut layers);
    layers.verdict(log)
}

/// Where the state is, for commands that need nothing else.
pub(crate) fn state_dir_from_args(args: &ArgMatches) -> Result<(PathBuf, Log), Problems> {
    let mut layers = Layers::read(args);
    let settled = (state_dir(&mut layers), log(&mut layers));
    layers.verdict(settled)
}

/// Where an agent keeps its state, for commands that look at it from outside.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) state_dir: PathBuf,
    /// Whether it was said which one is meant.
    pub(crate) is_given: bool,
    /// Where a service shows its state to everybody on the machine.
    pub(crate) public_dir: PathBuf,
    pub(crate) log: Log,
}

pub(crate) fn place_from_args(args: &ArgMatches) -> Result<Place, Problems> {
    let mut layers = Layers::read(args);
    let place = Place {
        state_dir: state_dir(&mut layers),
        is_given: layers.has("state-dir") || layers::env("STATE_DIRECTORY").is_some(),
        public_dir: runtime_dir().unwrap_or_else(|| "/run/qubix-worker".into()),
        log: log(&mut layers),
    };
    layers.verdict(place)
}

/// Where the state is, and what a kilowatt-hour costs, if that was said.
pub(crate) fn earnings_from_args(
    args: &ArgMatches,
) -> Result<(PathBuf, Option<f64>, Log), Problems> {
    let mut layers = Layers::read(args);
    let electricity = layers.parse("electricity-price", value::electricity);
    let settled = (state_dir(&mut layers), electricity, log(&mut layers));
    layers.verdict(settled)
}

fn log(layers: &mut Layers) -> Log {
    let mut on = |key| layers.parse(key, value::switch).unwrap_or(false);
    let level = match (on("verbose"), on("quiet")) {
        (true, _) => LevelFilter::Debug,
        (false, true) => LevelFilter::Warn,
        (false, false) => LevelFilter::Info,
    };
    let format = layers.parse("log-format", value::log_format).unwrap_or(Format::Text);
    Log { level, format, under_journal: stderr_is_journal() }
}

fn service() -> Service {
    let number = |name| layers::env(name)?.to_str()?.parse::<u64>().ok();
    // A variable that was meant for the process that started us is none of ours.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
    Service {
        notify_socket: layers::env("NOTIFY_SOCKET"),
        watchdog: watchdog.map(Duration::from_micros),
        runtime_dir: runtime_dir(),
    }
}

fn runtime_dir() -> Option<PathBuf> {
    // Of several, which are separated by colons, the first is as good as any.
    let dirs = layers::env("RUNTIME_DIRECTORY")?;
    let dir = PathBuf::from(dirs.to_str()?.split(':').next()?);
    dir.is_absolute().then_some(dir)
}

/// Whether `JOURNAL_STREAM` names our stderr, and not that of a service that started us.
fn stderr_is_journal() -> bool {
    let stderr = rustix::fs::fstat(std::io::stderr());
    let stderr = stderr.map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    layers::env("JOURNAL_STREAM").is_some_and(|named| stderr.is_ok_and(|stderr| named == *stderr))
}

fn identity(layers: &mut Layers) -> Identity {
    Identity {
        name: layers.parse("name", value::label),
        price: layers.parse("price", value::price).unwrap_or(5.0),
        location: layers.parse("location", value::label).unwrap_or_else(|| "Local Network".into()),
        address: layers.parse("address", value::label),
        worker_id: layers.parse("worker-id", value::id),
        state_dir: state_dir(layers),
        nvml_library: layers.parse("nvml-library", value::path),
    }
}

fn state_dir(layers: &mut Layers) -> PathBuf {
    let given = layers.parse("state-dir", value::path);
    let by_systemd = || layers::env("STATE_DIRECTORY").map(PathBuf::from);
    let by_xdg =
        || layers::env("XDG_STATE_HOME").map(|dir| PathBuf::from(dir).join("qubix-worker"));
    let at_home =
        || layers::env("HOME").map(|dir| PathBuf::from(dir).join(".local/state/qubix-worker"));
    let dir = given.or_else(by_systemd).or_else(by_xdg).or_else(at_home).unwrap_or_else(|| {
        layers.problem(
            "there is no home directory to keep the state in: give --state-dir DIR".into(),
        );
        PathBuf::new()
    });
    // Jobs run in folders of their own below it, from where another path would lead elsewhere.
    std::path::absolute(&dir).unwrap_or(dir)
}

fn connection(layers: &mut Layers) -> Connection {
    let by_systemd = || {
        let file = PathBuf::from(layers::env("CREDENTIALS_DIRECTORY")?).join("token");
        file.exists().then_some(file)
    };
    Connection {
        backend: layers.parse("backend", value::backend_url).unwrap_or_else(BackendUrl::local),
        token_file: layers.parse("token-file", value::path).or_else(by_systemd),
        ca_cert: layers.parse("ca-cert", value::path),
        request_timeout: layers
            .parse("request-timeout", value::duration(1, 300))
            .unwrap_or(Duration::from_secs(10)),
    }
}

fn rules(layers: &mut Layers) -> Rules {
    let once = layers.parse("once", value::switch).unwrap_or(false).then_some(1);
    let max_jobs = layers.parse("max-jobs", value::count(1, u32::MAX));
    if once.is_some() && max_jobs.is_some_and(|max| max != 1) {
        layers.problem("--once and --max-jobs contradict each other: give one of them".into());
    }
    Rules {
        heartbeat_interval: layers
            .parse("heartbeat-interval", value::heartbeat_interval)
            .unwrap_or(Duration::from_secs(30)),
        progress_interval: layers
            .parse("progress-interval", value::duration(1, 600))
            .unwrap_or(Duration::from_secs(5)),
        max_failures: layers.parse("max-failures", value::count(1, 1000)).unwrap_or(5),
        drain_timeout: layers
            .parse("drain-timeout", value::duration(0, 7 * 86_400))
            .unwrap_or(Duration::from_secs(600)),
        slots: layers
            .parse("slots", value::count(1, 1024))
            .and_then(|slots| usize::try_from(slots).ok())
            .unwrap_or(1),
        max_jobs: once.or(max_jobs),
        exit_when_idle: layers.parse("exit-when-idle", value::duration(0, 365 * 86_400)),
        min_free: layers.parse("min-free", value::size).unwrap_or(1 << 30),
        private_downloads: layers.parse("allow-private-downloads", value::switch).unwrap_or(false),
    }
}

fn artefacts(layers: &mut Layers) -> Artefacts {
    Artefacts {
        space: layers.parse("artefact-space", value::size).unwrap_or(10 << 30),
        reuse: layers.parse("reuse-results", value::switch).unwrap_or(false),
        ipfs_api: layers.parse("ipfs-api", value::ipfs_api),
    }
}

fn jobs(layers: &mut Layers) -> Jobs {
    let mut jobs = Jobs::default();
    let Jobs { kinds, interpreters, limits, limits_by_polling, containers } = &mut jobs;
    kinds.extend(layers.parse("allow", value::list(value::allowed_kind)).unwrap_or_default());
    if let Some(named) = layers.parse("interpreters", value::list(value::interpreter)) {
        *interpreters = named;
    }
    limits.memory = layers.parse("limit-memory", value::size);
    limits.cpus = layers.parse("limit-cpus", value::count(1, 4096));
    limits.disk = layers.parse("limit-disk", value::size).unwrap_or(limits.disk);
    limits.time = layers.parse("limit-time", value::duration(1, 31 * DAY)).unwrap_or(limits.time);
    *limits_by_polling = layers.parse("limits-by-polling", value::switch).unwrap_or(false);
    containers.engine = layers.parse("container-engine", value::path);
    if let Some(images) = layers.parse("container-images", value::list(value::image_pattern)) {
        containers.images = images;
    }
    containers.pull = layers.parse("container-pull", value::pull).unwrap_or(containers.pull);
    let known = |name: &&'static str| Some((*name, layers::env(name)?));
    containers.env = ENGINE_ENV.iter().filter_map(known).collect();
    jobs
}

/// Where the user's own units are.
pub(crate) fn user_units() -> Option<PathBuf> {
    let config = layers::env("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(layers::env("HOME")?).join(".config")));
    config.map(|config| config.join("systemd/user"))
}

/// Where this program is, as a shell would look for it.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = layers::env("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The folders that the agent gives to a job's program, as the program finds them.
pub(crate) fn job_folders() -> Option<(PathBuf, PathBuf)> {
    Some((layers::env("WORKER_INPUT_DIR")?.into(), layers::env("WORKER_OUTPUT_DIR")?.into()))
}

/// Reads a bearer token, and refuses a file that others could read too.
pub(crate) fn read_token(file: &std::path::Path) -> Result<Secret, Problems> {
    use std::os::unix::fs::PermissionsExt as _;
    let told = |what: String| Problems::of_one(format!("token file {}: {what}", file.display()));
    let metadata = std::fs::metadata(file).map_err(|error| told(error.to_string()))?;
    if !metadata.is_file() {
        return Err(told("it is read more than once: give a regular file".into()));
    }
    let mode = metadata.permissions().mode();
    // systemd hands credentials out as 0440 in a directory that only the service can enter.
    let by_systemd = layers::env("CREDENTIALS_DIRECTORY").is_some_and(|dir| file.starts_with(dir));
    if mode & 0o077 != 0 && !by_systemd {
        return Err(told(format!(
            "mode {:04o} lets others read it: chmod 600 {}",
            mode & 0o7777,
            file.display()
        )));
    }
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(TOKEN_MAX).read_to_string(&mut text))
        .map_err(|error| told(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(told("it must hold the token and nothing else, on one line".into()));
    }
    Ok(Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests;
