//! `/metrics`: the Prometheus text format 0.0.4, with its conventions for names and units.
//!
//! What was not measured has no sample; a name without samples is left out as a whole.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use super::Tally;
use crate::snapshot::{Counts, Gpu, GpuUse, Snapshot, State, Usage};
use crate::{clock, text};

/// The upper bounds of the histogram of jobs, in seconds: from a test to a day.
const BUCKETS: [f64; 11] =
    [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 28_800.0, 86_400.0];

const STATES: [(State, &str); 7] = [
    (State::Starting, "starting"),
    (State::Online, "online"),
    (State::Busy, "busy"),
    (State::Paused, "paused"),
    (State::Unreachable, "unreachable"),
    (State::Stopping, "stopping"),
    (State::Stopped, "stopped"),
];

/// What this process uses.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<usize>,
}

impl Process {
    pub(super) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            cpu: clock::of_process(),
            resident_bytes: kib.map(|kib| kib * 1024),
            open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }
}

pub(super) fn render(snapshot: &Snapshot, tallies: &[Tally], process: &Process) -> String {
    let mut text = Text(String::new());
    agent(&mut text, snapshot);
    jobs(&mut text, snapshot, tallies);
    gpus(&mut text, snapshot);
    if let Some(usage) = &snapshot.usage {
        machine(&mut text, usage);
    }
    this_process(&mut text, snapshot, process);
    text.0
}

fn agent(text: &mut Text, snapshot: &Snapshot) {
    let Counts { heartbeats, heartbeats_failed, registrations, .. } = snapshot.since_start;
    text.gauge("worker_build_info", "The version that runs.", |of| {
        of.put(&[("version", &snapshot.version)], 1.0);
    });
    text.gauge("worker_state", "1 for the state that the agent is in.", |of| {
        for (state, name) in STATES {
            of.put(&[("state", name)], flag(snapshot.state == state));
        }
    });
    text.gauge("worker_registered", "Whether the backend knows this worker.", |of| {
        of.put(&[], flag(snapshot.registered));
    });
    text.gauge("worker_paused", "Whether the agent is paused and takes no jobs.", |of| {
        of.put(&[], flag(snapshot.state == State::Paused));
    });
    let last = snapshot.last_heartbeat.as_deref().and_then(unix_seconds);
    text.gauge(
        "worker_last_heartbeat_timestamp_seconds",
        "When the backend last answered.",
        |of| {
            of.measured(&[], last);
        },
    );
    text.counter("worker_heartbeats_total", "Heartbeats that the backend answered.", |of| {
        of.put(&[], heartbeats as f64);
    });
    text.counter("worker_heartbeat_failures_total", "Heartbeats without a good answer.", |of| {
        of.put(&[], heartbeats_failed as f64);
    });
    text.counter("worker_registrations_total", "Registrations at the backend.", |of| {
        of.put(&[], registrations as f64);
    });
}

fn jobs(text: &mut Text, snapshot: &Snapshot, tallies: &[Tally]) {
    text.gauge("worker_slots", "Jobs that may run at once.", |of| {
        of.put(&[], snapshot.slots as f64);
    });
    text.gauge("worker_jobs_running", "Jobs that run now.", |of| {
        of.put(&[], snapshot.jobs.len() as f64);
    });
    text.gauge("worker_results_waiting", "Outcomes that the backend does not have yet.", |of| {
        of.put(&[], snapshot.waiting_results as f64);
    });
    text.counter("worker_jobs_total", "Jobs that ended since the agent started.", |of| {
        for Tally { kind, status, count, .. } in tallies {
            of.put(&[("kind", kind), ("status", status)], *count as f64);
        }
    });
    let mut kinds: Vec<&str> = tallies.iter().map(|tally| tally.kind.as_str()).collect();
    kinds.dedup();
    text.family("worker_job_duration_seconds", "histogram", "How long jobs ran.", |of| {
        for kind in kinds {
            let of_kind = tallies.iter().filter(|tally| tally.kind == kind);
            let seconds: Vec<f64> = of_kind.flat_map(|tally| tally.seconds.clone()).collect();
            of.histogram(("kind", kind), &seconds);
        }
    });
}

fn gpus(text: &mut Text, snapshot: &Snapshot) {
    let usage = snapshot.usage.as_ref().map_or(&[][..], |usage| &usage.gpus);
    text.gauge("worker_gpu_info", "The GPUs of this machine.", |of| {
        for gpu in &snapshot.machine.gpus {
            let name = gpu.name.as_deref().unwrap_or_default();
            let driver = gpu.driver.as_deref().unwrap_or_default();
            of.put(
                &[
                    ("gpu", &gpu.index.to_string()),
                    ("uuid", uuid(gpu)),
                    ("name", name),
                    ("driver", driver),
                ],
                1.0,
            );
        }
    });
    let ratio = |percent: f64| percent / 100.0;
    let mib = |mib: u64| mib as f64 * f64::from(1 << 20);
    type Asked<'a> = &'a dyn Fn(&GpuUse) -> Option<f64>;
    let gauges: [(&str, &str, Asked<'_>); 6] = [
        ("temperature_celsius", "Temperature of a GPU.", &|gpu| gpu.temp_celsius),
        ("utilization_ratio", "Share of the time in which a GPU computed.", &|gpu| {
            gpu.percent.map(ratio)
        }),
        ("power_watts", "Power that a GPU takes.", &|gpu| gpu.power_watts),
        ("power_limit_watts", "Power that a GPU may take.", &|gpu| gpu.power_limit_watts),
        ("memory_used_bytes", "Memory of a GPU in use.", &|gpu| gpu.memory_used_mb.map(mib)),
        ("memory_total_bytes", "Memory of a GPU.", &|gpu| gpu.memory_total_mb.map(mib)),
    ];
    let each = |of: &mut Family<'_>, value: Asked<'_>| {
        for gpu in usage {
            let known = snapshot.machine.gpus.iter().find(|known| known.index == gpu.index);
            let labels = [("gpu", &*gpu.index.to_string()), ("uuid", known.map_or("", uuid))];
            of.measured(&labels, value(gpu));
        }
    };
    for (name, help, value) in gauges {
        text.gauge(&format!("worker_gpu_{name}"), help, |of| each(of, value));
    }
    let help = "Energy that a GPU has used since the agent first looked.";
    text.counter("worker_gpu_energy_joules_total", help, |of| each(of, &|gpu| gpu.energy_joules));
}

fn machine(text: &mut Text, usage: &Usage) {
    let gib = |gib: f64| gib * f64::from(1 << 30);
    let gauges = [
        (
            "cpu_utilization_ratio",
            "Share of the processor in use.",
            usage.cpu_percent.map(|percent| percent / 100.0),
        ),
        ("cpu_temperature_celsius", "Temperature of the processor.", usage.cpu_temp_celsius),
        (
            "memory_utilization_ratio",
            "Share of the memory in use.",
            Some(usage.ram_percent / 100.0),
        ),
        ("memory_used_bytes", "Memory in use.", Some(gib(usage.ram_used_gb))),
        ("disk_free_bytes", "Free space where the state is kept.", usage.disk_free_gb.map(gib)),
        (
            "disk_size_bytes",
            "Size of the disk where the state is kept.",
            usage.disk_total_gb.map(gib),
        ),
        ("on_battery", "Whether the machine runs on its battery.", usage.on_battery.map(flag)),
    ];
    for (name, help, value) in gauges {
        text.gauge(&format!("worker_{name}"), help, |of| of.measured(&[], value));
    }
}

fn this_process(text: &mut Text, snapshot: &Snapshot, process: &Process) {
    text.counter("process_cpu_seconds_total", "Processor time of the agent.", |of| {
        of.put(&[], process.cpu.as_secs_f64());
    });
    text.gauge("process_resident_memory_bytes", "Memory of the agent.", |of| {
        of.measured(&[], process.resident_bytes.map(|bytes| bytes as f64));
    });
    text.gauge("process_open_fds", "Files that the agent has open.", |of| {
        of.measured(&[], process.open_files.map(|files| files as f64));
    });
    text.gauge("process_start_time_seconds", "When the agent started.", |of| {
        of.measured(&[], unix_seconds(&snapshot.started));
    });
}

fn uuid(gpu: &Gpu) -> &str {
    gpu.uuid.as_deref().unwrap_or_default()
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn unix_seconds(time: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// The text so far.
struct Text(String);

/// The samples of one name.
struct Family<'a> {
    name: &'a str,
    lines: String,
}

impl Text {
    fn gauge(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(name, "gauge", help, fill);
    }

    fn counter(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(name, "counter", help, fill);
    }

    fn family(&mut self, name: &str, of: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        let mut family = Family { name, lines: String::new() };
        fill(&mut family);
        if !family.lines.is_empty() {
            let head = format!("# HELP {name} {help}\n# TYPE {name} {of}\n");
            self.0.extend([head, family.lines]);
        }
    }
}

impl Family<'_> {
    fn put(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    fn measured(&mut self, labels: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.line("", labels, value);
        }
    }

    fn histogram(&mut self, label: (&str, &str), values: &[f64]) {
        for bound in BUCKETS {
            let within = values.iter().filter(|value| **value <= bound).count();
            self.line("_bucket", &[label, ("le", &bound.to_string())], within as f64);
        }
        self.line("_bucket", &[label, ("le", "+Inf")], values.len() as f64);
        self.line("_sum", &[label], values.iter().sum());
        self.line("_count", &[label], values.len() as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.lines.extend([format!("{}{suffix}{labels} {value}\n", self.name)]);
    }
}

fn escaped(text: &str) -> String {
    text::shown_lines(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
