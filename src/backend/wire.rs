//! The wire's own words: what is sent as the backend spells it, and what comes back.
//!
//! Nothing here reaches the disk. Replies are taken apart field by field, so that one field gone
//! wrong spoils neither its neighbours nor the agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beat, Facts};
use crate::reading::{
    FlatGpu, GpuSpecs, GpuUsage, HostUsage, MigSpecs, Reading, Specs, Vitals, flatten,
};
use crate::work::{Attempt, Ending, JobId, Object, Outcome, Reason, Report};
use crate::{clock, text};

/// The marker by which the real backend is told that retrying is over.
pub(crate) const LAST_ATTEMPT: &str = " [Reassignment attempt 3]";

#[derive(Serialize)]
pub(crate) struct Register<'a> {
    worker_id: &'a str,
    name: &'a str,
    address: &'a str,
    location: &'a str,
    #[serde(rename = "computePower", skip_serializing_if = "Option::is_none")]
    compute_power: Option<f64>,
    #[serde(rename = "pricePerHour")]
    price_per_hour: f64,
    #[serde(rename = "isActive")]
    is_active: bool,
    specs: RegisterSpecs<'a>,
}

#[derive(Serialize)]
struct RegisterSpecs<'a> {
    worker_id: &'a str,
    hostname: &'a str,
    os: &'a str,
    cpu_model: &'a str,
    cpu_cores: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_cpu_cores: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_freq_ghz: Option<f64>,
    ram_total_gb: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ram_total_gb: Option<f64>,
    ram_available_gb: f64,
    gpu_available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_vram_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_total_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_free_gb: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<RegisterGpu<'a>>,
    agent_version: &'static str,
    slots: usize,
    job_kinds: &'a [&'static str],
}

#[derive(Serialize)]
struct RegisterGpu<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_limit_w: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pci: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    theoretical_gflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mig: Vec<RegisterMig<'a>>,
}

#[derive(Serialize)]
struct RegisterMig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_gb: Option<f64>,
}

impl<'a> Register<'a> {
    pub(crate) fn new(facts: &'a Facts) -> Self {
        let specs: &Specs = &facts.specs;
        let first_gpu = specs.gpus.first();
        Self {
            worker_id: &facts.worker_id,
            name: &facts.name,
            address: &facts.address,
            location: &facts.location,
            compute_power: facts.gflops.map(tenths),
            price_per_hour: facts.price,
            is_active: true,
            specs: RegisterSpecs {
                worker_id: &facts.worker_id,
                hostname: &specs.hostname,
                os: &specs.os,
                cpu_model: &specs.cpu_model,
                cpu_cores: specs.cpu_cores,
                host_cpu_cores: specs.host_cpu_cores,
                cpu_freq_ghz: specs.cpu_freq_ghz.map(hundredths),
                ram_total_gb: tenths(specs.ram_total_gb),
                host_ram_total_gb: specs.host_ram_total_gb.map(tenths),
                ram_available_gb: tenths(specs.ram_available_gb),
                gpu_available: !specs.gpus.is_empty(),
                gpu_model: first_gpu.and_then(|gpu| gpu.name.as_deref()),
                gpu_vram_gb: first_gpu.and_then(|gpu| gpu.vram_gb).map(tenths),
                storage_total_gb: specs.storage_total_gb.map(tenths),
                storage_free_gb: specs.storage_free_gb.map(tenths),
                gpus: specs.gpus.iter().map(register_gpu).collect(),
                agent_version: env!("CARGO_PKG_VERSION"),
                slots: facts.slots,
                job_kinds: &facts.kinds,
            },
        }
    }
}

fn register_gpu(gpu: &GpuSpecs) -> RegisterGpu<'_> {
    RegisterGpu {
        index: gpu.index,
        uuid: gpu.uuid.as_deref(),
        name: gpu.name.as_deref(),
        vram_gb: gpu.vram_gb.map(tenths),
        driver: gpu.driver.as_deref(),
        power_limit_w: gpu.power_limit_w.map(tenths),
        pci: gpu.pci.as_deref(),
        theoretical_gflops: gpu.theoretical_gflops.map(tenths),
        compute_mode: gpu.compute_mode,
        mig: gpu.mig.iter().map(register_mig).collect(),
    }
}

fn register_mig(mig: &MigSpecs) -> RegisterMig<'_> {
    RegisterMig {
        uuid: mig.uuid.as_deref(),
        name: mig.name.as_deref(),
        vram_gb: mig.vram_gb.map(tenths),
    }
}

/// The same facts for `quick-register`, which resets whatever is left out and refuses `null`.
pub(crate) fn quick_register(facts: &Facts) -> Value {
    let specs = &facts.specs;
    let mut gpu = json!({"type": "native"});
    if let Some(first) = specs.gpus.first() {
        gpu["vendor"] = json!("NVIDIA");
        insert(&mut gpu, "model", first.name.as_ref().map(|name| json!(name)));
        insert(&mut gpu, "vram", first.vram_gb.map(|vram| json!(tenths(vram))));
    }
    json!({
        "type": "native",
        "workerId": facts.worker_id,
        "qubicAddress": facts.address,
        "gpu": gpu,
        "cpu": {"model": specs.cpu_model, "cores": specs.cpu_cores},
        "ram": {"total": tenths(specs.ram_total_gb)},
        "location": facts.location,
        "pricePerHour": facts.price,
    })
}

/// A heartbeat. A legacy backend reads snake_case only, so it is given both spellings.
pub(crate) fn heartbeat(worker_id: &str, beat: &Beat, legacy: bool) -> Value {
    let current = beat.jobs.first().map(|id| json!(id.as_str()));
    let ids: Vec<&str> = beat.jobs.iter().map(|id| id.as_str()).collect();
    let mut body = json!({
        "workerId": worker_id,
        "status": beat.status.name(),
        "currentJobs": ids,
        "usage": usage(beat, legacy),
    });
    insert_vitals(&mut body["usage"], &beat.vitals);
    insert(&mut body, "currentJob", current.clone());
    insert(&mut body, "pausedReason", beat.paused.as_ref().map(|reason| json!(reason)));
    if legacy {
        insert(&mut body, "current_job", current);
    }
    body
}

fn usage(beat: &Beat, legacy: bool) -> Value {
    let reading = &beat.reading;
    let HostUsage { cpu_percent, ram_percent, ram_used_gb, ram_total_gb } = &reading.host;
    let mut usage = json!({
        "ramPercent": tenths(*ram_percent),
        "ramUsedGb": hundredths(*ram_used_gb),
        "ramTotalGb": hundredths(*ram_total_gb),
        "timestamp": clock::rfc3339(beat.at),
    });
    insert_tenths(&mut usage, "cpuPercent", *cpu_percent);
    insert_gpu(&mut usage, &flatten(&reading.gpus));
    if !reading.gpus.is_empty() {
        usage["gpus"] = reading.gpus.iter().map(gpu_usage).collect();
    }
    if let Some(reason) = &beat.gpu_absence {
        usage["absent"] = json!({"gpu": reason});
    }
    if legacy {
        for (ours, theirs) in LEGACY_USAGE {
            let value = usage.get(ours).cloned();
            insert(&mut usage, theirs, value);
        }
    }
    usage
}

fn insert_vitals(usage: &mut Value, vitals: &Vitals) {
    let Vitals { load, disk_total_gb, disk_free_gb, net, power, cpu_temp_c } = vitals;
    insert(usage, "loadAverage", load.map(|load| json!(load.map(hundredths))));
    insert_tenths(usage, "diskTotalGb", *disk_total_gb);
    insert_tenths(usage, "diskFreeGb", *disk_free_gb);
    insert_tenths(usage, "cpuTemp", *cpu_temp_c);
    if let Some(net) = net {
        usage["netRxBytes"] = json!(net.rx_bytes);
        usage["netTxBytes"] = json!(net.tx_bytes);
    }
    if let Some(power) = power {
        insert_tenths(usage, "batteryPercent", power.battery_percent);
        usage["onBattery"] = json!(power.on_battery);
    }
}

const LEGACY_USAGE: [(&str, &str); 8] = [
    ("cpuPercent", "cpu_percent"),
    ("ramPercent", "ram_percent"),
    ("ramUsedGb", "ram_used_gb"),
    ("ramTotalGb", "ram_total_gb"),
    ("gpuPercent", "gpu_percent"),
    ("gpuTemp", "gpu_temp"),
    ("gpuMemUsedMb", "gpu_mem_used_mb"),
    ("gpuMemTotalMb", "gpu_mem_total_mb"),
];

fn insert_gpu(usage: &mut Value, gpu: &FlatGpu) {
    insert_tenths(usage, "gpuPercent", gpu.percent);
    insert_tenths(usage, "gpuMemoryPercent", gpu.memory_percent);
    insert_tenths(usage, "gpuTemp", gpu.temp_c);
    insert(usage, "gpuMemUsedMb", gpu.mem_used_mb.map(|mb| json!(mb)));
    insert(usage, "gpuMemTotalMb", gpu.mem_total_mb.map(|mb| json!(mb)));
    insert_tenths(usage, "gpuPowerDraw", gpu.power_w);
    insert_tenths(usage, "gpuPowerLimit", gpu.power_limit_w);
}

fn gpu_usage(gpu: &GpuUsage) -> Value {
    let mut usage = json!({"index": gpu.index});
    insert_gpu(&mut usage, &flatten(std::slice::from_ref(gpu)));
    insert_tenths(&mut usage, "memoryBusyPercent", gpu.memory_busy_percent);
    insert_tenths(&mut usage, "fanPercent", gpu.fan_percent);
    insert(&mut usage, "clockMhz", gpu.clock_mhz.map(|mhz| json!(mhz)));
    insert(&mut usage, "memClockMhz", gpu.mem_clock_mhz.map(|mhz| json!(mhz)));
    insert(&mut usage, "throttle", (!gpu.throttle.is_empty()).then(|| json!(gpu.throttle)));
    insert_tenths(&mut usage, "energyJ", gpu.energy_j);
    insert(&mut usage, "ownProcesses", gpu.users.as_ref().map(|users| json!(users.own.len())));
    insert(&mut usage, "otherProcesses", gpu.users.as_ref().map(|users| json!(users.others)));
    usage
}

/// A progress report.
pub(crate) fn progress(worker_id: &str, report: &Report, legacy: bool) -> Value {
    let lines: Vec<Value> = report
        .lines
        .iter()
        .map(|line| {
            let level = if line.from_stderr { "warn" } else { "info" };
            json!({"level": level, "message": line.text, "timestamp": clock::rfc3339(line.at)})
        })
        .collect();
    let mut metrics = json!({"workedSeconds": report.worked.as_secs()});
    insert(&mut metrics, "energyKwh", report.energy_kwh.map(|kwh| json!(kwh)));
    if let Some(reading) = &report.reading {
        let gpu = flatten(&reading.gpus);
        insert_tenths(&mut metrics, "cpuPercent", reading.host.cpu_percent);
        metrics["ramPercent"] = json!(tenths(reading.host.ram_percent));
        insert_tenths(&mut metrics, "gpuPercent", gpu.percent);
        insert_tenths(&mut metrics, "gpuTemp", gpu.temp_c);
        insert_long_gpu(&mut metrics, &gpu);
    }
    let mut body = json!({
        "workerId": worker_id,
        "progress": report.percent,
        "currentOperation": report.operation,
        "timestamp": clock::rfc3339(report.at),
        "metrics": metrics,
    });
    insert(&mut body, "logLines", (!lines.is_empty()).then(|| json!(lines)));
    if legacy {
        body["worker_id"] = json!(worker_id);
    }
    body
}

/// The GPUs at a job's end, as a completion tells of them.
pub(crate) fn final_metrics(reading: &Reading) -> Object {
    let mut metrics = json!({});
    insert_long_gpu(&mut metrics, &flatten(&reading.gpus));
    metrics.as_object().cloned().unwrap_or_default()
}

/// The five keys that progress and completion spell in their own way.
fn insert_long_gpu(metrics: &mut Value, gpu: &FlatGpu) {
    insert_tenths(metrics, "gpuUtilization", gpu.percent);
    insert(metrics, "gpuMemoryUsed", gpu.mem_used_mb.map(|mb| json!(mb)));
    insert(metrics, "gpuMemoryTotal", gpu.mem_total_mb.map(|mb| json!(mb)));
    insert_tenths(metrics, "gpuTemperature", gpu.temp_c);
    insert_tenths(metrics, "powerUsage", gpu.power_w);
}

/// A completion, made from the recorded outcome alone, so that every send of it says the same.
pub(crate) fn complete(worker_id: &str, kind: &str, outcome: &Outcome) -> Value {
    let timestamp = clock::rfc3339(outcome.at);
    let mut body = json!({
        "workerId": worker_id,
        "timestamp": timestamp,
        "metrics": outcome.metrics,
    });
    if !outcome.final_metrics.is_empty() {
        body["finalMetrics"] = json!(outcome.final_metrics);
    }
    match &outcome.ending {
        Ending::Completed(own) => {
            let mut result = own.clone();
            result.insert("jobType".into(), json!(kind));
            result.insert("status".into(), json!("success"));
            result.insert("timestamp".into(), json!(timestamp));
            result.entry("artefacts").or_insert_with(|| json!([]));
            body["status"] = json!("completed");
            body["result"] = Value::Object(result);
        }
        Ending::Failed(failure) => {
            let mut details = json!({
                "stage": failure.stage.name(),
                "reason": failure.reason.name(),
                "blame": failure.blame.name(),
                "log": failure.log,
            });
            insert(&mut details, "exitCode", failure.exit_code.map(|code| json!(code)));
            insert(&mut details, "signal", failure.signal.map(|signal| json!(signal)));
            body["status"] = json!("failed");
            body["error"] = json!(failure.error);
            body["errorDetails"] = details;
        }
        Ending::Declined(decline) => {
            body["status"] = json!("failed");
            body["error"] = json!(decline.error());
            body["errorDetails"] = json!({
                "stage": "accept",
                "reason": Reason::Declined.name(),
                "blame": decline.code.blame().name(),
                "log": [],
            });
            body["result"] = json!({
                "declined": true, "code": decline.code.name(), "reason": decline.reason,
            });
        }
        // Never sent: the backend took the job away itself.
        Ending::Cancelled => body["status"] = json!("failed"),
    }
    body
}

/// What marks every send of one attempt's outcome.
pub(crate) fn idempotency_key(worker_id: &str, attempt: &Attempt) -> String {
    format!("{worker_id}:{}:{}", attempt.id, attempt.number)
}

/// A reply taken apart: each field that matters still as the text it came in, none where that is too large.
pub(crate) type Fields = BTreeMap<String, Option<String>>;

/// One field of a reply: absent or `null` is `None`, of another type than `T` an error.
pub(crate) fn field<'a, T: Deserialize<'a>>(
    fields: &'a Fields,
    name: &str,
) -> Result<Option<T>, String> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    let Some(text) = text else { return Err(format!("its {name} is too large")) };
    serde_json::from_str(text).map_err(|error| {
        format!("its {name} cannot be read ({error}): {}", text::one_line(text, 80))
    })
}

/// The most that one job may take: its text, and what its values take in memory beside.
pub(crate) const JOB_MAX: u64 = 8 << 20;

/// A job of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: JobId,
    /// Its other fields as they came; none if they are too large.
    pub(crate) text: Option<String>,
}

/// A job as it is offered. Every field may be anything: `job::parse` looks at each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    pub(crate) job_type: Option<Value>,
    pub(crate) model_type: Option<Value>,
    pub(crate) compute_needed: Option<Value>,
    pub(crate) input_data: Option<Value>,
    pub(crate) advanced_config: Option<Value>,
    pub(crate) timeout_seconds: Option<Value>,
    pub(crate) provider_id: Option<Value>,
    pub(crate) user_id: Option<Value>,
    pub(crate) file_url: Option<Value>,
    pub(crate) file_name: Option<Value>,
    #[serde(rename = "requiredRAM")]
    pub(crate) required_ram: Option<Value>,
}

impl Job {
    /// What it may be called by, the one that counts first in front.
    pub(crate) fn names(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        [&self.job_type, &self.model_type].into_iter().flatten().filter_map(Value::as_str)
    }
}

/// The fields that say what a job asks for; the others say where it stands.
pub(crate) const CONTENT: [&str; 12] = [
    "advancedConfig",
    "computeNeeded",
    "fileName",
    "fileUrl",
    "framework",
    "inputData",
    "jobType",
    "maxPrice",
    "modelType",
    "requiredRAM",
    "requiredVRAM",
    "timeoutSeconds",
];

/// A job as `GET /api/jobs/:id` tells of it.
#[derive(Debug, Default)]
pub(crate) struct JobView {
    pub(crate) status: Option<String>,
    pub(crate) provider_id: Option<String>,
    pub(crate) provider_worker_id: Option<String>,
}

impl JobView {
    pub(crate) fn read(fields: &Fields) -> Self {
        let text = |name| field(fields, name).unwrap_or_default();
        let provider: Option<Object> = field(fields, "provider").unwrap_or_default();
        let worker_id = provider.and_then(|mut provider| provider.remove("workerId"));
        Self {
            status: text("status"),
            provider_id: text("providerId"),
            provider_worker_id: worker_id.and_then(|id| id.as_str().map(str::to_owned)),
        }
    }
}

fn insert(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[key] = value;
    }
}

fn insert_tenths(object: &mut Value, key: &str, value: Option<f64>) {
    insert(object, key, value.map(|value| json!(tenths(value))));
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
