//! Every setting stands once in [`SETTINGS`], which makes its flag, its environment variable and its key
//! in `worker.toml`.

use clap::{Arg, ArgAction, ValueHint};

/// What a setting is about: its heading in `--help`, and which commands take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Backend,
    Machine,
    Work,
    Pace,
    Files,
    Owner,
    Page,
    Log,
}

impl Topic {
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Backend => "Backend",
            Self::Machine => "This machine, as registered",
            Self::Work => "How much work",
            Self::Pace => "Pace",
            Self::Files => "Files",
            Self::Owner => "For the owner's own books",
            Self::Page => "Status page",
            Self::Log => "Log",
        }
    }
}

/// One setting: flag `--key`, variable `WORKER_KEY`, and `key` in `worker.toml`.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) topic: Topic,
    /// The name of its value, or nothing for a switch.
    pub(crate) value: Option<&'static str>,
    help: &'static str,
}

const fn setting(
    topic: Topic,
    key: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, topic, value: Some(value), help }
}

const fn switch(topic: Topic, key: &'static str, help: &'static str) -> Setting {
    Setting { key, topic, value: None, help }
}

use Topic::{Backend, Files, Log, Machine, Owner, Pace, Page, Work};

pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        Backend,
        "backend",
        "URL",
        "The marketplace to work for [default: http://127.0.0.1:3001]",
    ),
    setting(
        Backend,
        "token-file",
        "FILE",
        "A file with the bearer token, readable by its owner only [default: $CREDENTIALS_DIRECTORY/token, if it is there]",
    ),
    setting(
        Backend,
        "ca-cert",
        "FILE",
        "A PEM file of certificates to trust besides the public ones",
    ),
    setting(
        Backend,
        "request-timeout",
        "DUR",
        "The longest that one request may take [default: 10s]",
    ),
    setting(Machine, "name", "NAME", "The name consumers see [default: Provider-<id>]"),
    setting(Machine, "price", "PRICE", "Price per hour [default: 5.0]"),
    setting(Machine, "location", "PLACE", "Where the machine is [default: Local Network]"),
    setting(
        Machine,
        "address",
        "ADDRESS",
        "Where earnings go; some backends insist on a 60-letter Qubic address",
    ),
    setting(
        Machine,
        "worker-id",
        "ID",
        "A stable name of this worker [default: made from the machine's id and kept in the state directory]",
    ),
    setting(
        Machine,
        "nvml-library",
        "PATH",
        "NVIDIA's management library, where the system does not find it [default: libnvidia-ml.so.1]",
    ),
    setting(Work, "slots", "N", "Jobs at once [default: 1]"),
    switch(Work, "once", "Take one job, deliver its result and stop; the same as --max-jobs 1"),
    setting(
        Work,
        "max-jobs",
        "N",
        "Take N jobs, deliver their results and stop; declined jobs do not count",
    ),
    setting(Work, "exit-when-idle", "DUR", "Stop when there was nothing to do for so long"),
    setting(
        Work,
        "min-free",
        "SIZE",
        "Keep so much free on the disk of the state directory: take no job while less is, end a script or container that would take it [default: 1GiB]",
    ),
    setting(
        Work,
        "allow",
        "KIND[,KIND]",
        "Run these kinds of job besides the engine's: script, container. These jobs are programs of strangers. \
         The kernel keeps them from your files, your network and your other programs; a flaw in the kernel, or \
         in podman or docker, would give them what the worker's own user can do, so allow them only on a machine \
         that holds nothing you cannot lose. See docs/threat-model.md [default: none]",
    ),
    setting(
        Work,
        "interpreters",
        "NAME[,NAME]",
        "Programs that scripts may be written for [default: python3,bash]",
    ),
    setting(
        Work,
        "container-engine",
        "PROGRAM",
        "What runs containers: podman, docker, or the path of either [default: podman, else docker]",
    ),
    setting(
        Work,
        "container-images",
        "PATTERN[,PATTERN]",
        "The images that may run, such as docker.io/library/python:*; * is any text [default: *]",
    ),
    setting(
        Work,
        "container-pull",
        "WHEN",
        "When an image is fetched: missing, never or always [default: missing]",
    ),
    setting(
        Work,
        "limit-memory",
        "SIZE",
        "The most memory that one job may take [default: four fifths of the machine's]",
    ),
    setting(Work, "limit-cpus", "N", "The most processors that one job may take [default: all]"),
    setting(Work, "limit-disk", "SIZE", "The most disk that one job may take [default: 20GiB]"),
    setting(Work, "limit-time", "DUR", "The longest that one job may run [default: 24h]"),
    switch(
        Work,
        "limits-by-polling",
        "Run scripts also where no control group can limit their memory: it is only added up once a second, and \
         a hostile script can take much more",
    ),
    setting(
        Pace,
        "heartbeat-interval",
        "DUR",
        "How often the backend hears from us; it may ask for another pace [default: 30s]",
    ),
    setting(
        Pace,
        "progress-interval",
        "DUR",
        "How often a running job's progress is reported [default: 5s]",
    ),
    setting(
        Pace,
        "max-failures",
        "N",
        "Heartbeats that fail in a row before registering again [default: 5]",
    ),
    setting(
        Pace,
        "drain-timeout",
        "DUR",
        "How long running jobs may finish when asked to stop [default: 10m]",
    ),
    setting(
        Files,
        "config",
        "FILE",
        "worker.toml: every flag is a key of the same name there; flags and environment win",
    ),
    setting(
        Files,
        "state-dir",
        "DIR",
        "What must survive a restart [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/qubix-worker, else ~/.local/state/qubix-worker]",
    ),
    setting(
        Files,
        "artefact-space",
        "SIZE",
        "How much room the results of jobs may take [default: 10GiB]",
    ),
    switch(
        Files,
        "reuse-results",
        "Answer a job like one before, of the same data, from the results that are still here",
    ),
    switch(
        Files,
        "allow-private-downloads",
        "Let jobs download from the loopback and from private networks",
    ),
    setting(
        Files,
        "ipfs-api",
        "URL",
        "The API of an IPFS node to add results to, such as http://127.0.0.1:5001",
    ),
    setting(
        Owner,
        "electricity-price",
        "PRICE",
        "What a kilowatt-hour costs here, in the unit of --price; `worker earnings` then tells the margin",
    ),
    setting(
        Page,
        "listen",
        "ADDR",
        "Serve the status page, /metrics and /healthz there, such as 9200 or 127.0.0.1:9200 [default: off]",
    ),
    setting(Log, "log-format", "FORMAT", "text or json [default: text]"),
    switch(Log, "verbose", "Log each request and change of state"),
    switch(Log, "quiet", "Log warnings and errors only"),
];

/// The flags of the settings that are wanted.
pub(super) fn settings(wanted: impl Fn(Topic) -> bool) -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(move |setting| wanted(setting.topic)).map(arg)
}

/// The flags of the log, and of these keys.
pub(super) fn log_and(keys: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    let wanted = |setting: &&Setting| setting.topic == Log || keys.contains(&setting.key);
    SETTINGS.iter().filter(wanted).map(arg)
}

pub(super) fn arg(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.key)
        .long(setting.key)
        .env(env_name(setting.key))
        .hide_env(true)
        .help(setting.help)
        .help_heading(setting.topic.heading());
    match setting.value {
        Some(name) => {
            arg.value_name(name).value_hint(hint(name)).allow_hyphen_values(name == "PRICE")
        }
        // A switch is read as text too, so that its variable and its key can say false.
        None => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_name("BOOL")
            .hide_default_value(true)
            .short(match setting.key {
                "verbose" => Some('v'),
                "quiet" => Some('q'),
                _ => None,
            }),
    }
}

/// What a shell can complete of a value of this name.
fn hint(name: &str) -> ValueHint {
    match name {
        "FILE" | "PATH" => ValueHint::FilePath,
        "DIR" => ValueHint::DirPath,
        _ => ValueHint::Other,
    }
}

/// `WORKER_TOKEN_FILE` for `token-file`.
fn env_name(key: &str) -> String {
    format!("WORKER_{}", key.replace('-', "_").to_uppercase())
}
