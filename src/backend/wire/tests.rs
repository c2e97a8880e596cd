//! Golden messages: the literals are the wire's, as documented.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::backend::Status;
use crate::reading::{GpuUsers, Power, Traffic};
use crate::work::{Blame, Decline, DeclineCode, Failure, LogLine, Stage};

fn at() -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_768_473_000_000)
}

fn gpu_specs() -> GpuSpecs {
    GpuSpecs {
        index: 0,
        uuid: Some("GPU-1".into()),
        name: Some("NVIDIA GeForce RTX 3090".into()),
        vram_gb: Some(24.0),
        driver: Some("580.95".into()),
        power_limit_w: Some(350.0),
        ..GpuSpecs::default()
    }
}

fn facts(gpus: Vec<GpuSpecs>) -> Facts {
    Facts {
        worker_id: "3f0c9a".into(),
        name: "My Gaming PC".into(),
        address: "QUBIC_3F0C9A".into(),
        location: "US East (Virginia)".into(),
        price: 2.5,
        slots: 1,
        kinds: vec!["compute"],
        gflops: None,
        specs: Specs {
            hostname: "rig".into(),
            os: "Linux 6.18.0".into(),
            cpu_model: "AMD Ryzen 7 5800X".into(),
            cpu_cores: 16,
            host_cpu_cores: None,
            cpu_freq_ghz: Some(4.85),
            ram_total_gb: 31.31,
            host_ram_total_gb: None,
            ram_available_gb: 20.1,
            storage_total_gb: Some(931.5),
            storage_free_gb: None,
            gpus,
        },
    }
}

fn reading(gpus: Vec<GpuUsage>) -> Reading {
    let host = HostUsage {
        cpu_percent: Some(41.23),
        ram_percent: 63.0,
        ram_used_gb: 19.7,
        ram_total_gb: 31.3,
    };
    Reading { host, gpus }
}

fn gpu_usage() -> GpuUsage {
    GpuUsage {
        index: 0,
        percent: Some(97.0),
        temp_c: Some(66.0),
        mem_used_mb: Some(17_584),
        mem_total_mb: Some(24_576),
        power_limit_w: Some(350.0),
        ..GpuUsage::default()
    }
}

fn beat(jobs: &[&str], gpus: Vec<GpuUsage>) -> Beat {
    Beat {
        status: Status::Busy,
        jobs: jobs.iter().map(|id| JobId::parse(id).unwrap()).collect(),
        paused: None,
        reading: reading(gpus),
        gpu_absence: None,
        vitals: Vitals::default(),
        at: at(),
    }
}

fn outcome(ending: Ending) -> Outcome {
    let metrics = json!({"processingTimeSeconds": 1.5}).as_object().cloned().unwrap();
    Outcome { metrics, ..Outcome::without_run(ending, at()) }
}

#[test]
fn a_machine_without_gpu_registers_without_any_gpu_field() {
    assert_eq!(
        serde_json::to_value(Register::new(&facts(vec![]))).unwrap(),
        json!({
            "worker_id": "3f0c9a", "name": "My Gaming PC", "address": "QUBIC_3F0C9A",
            "location": "US East (Virginia)", "pricePerHour": 2.5, "isActive": true,
            "specs": {
                "worker_id": "3f0c9a", "hostname": "rig", "os": "Linux 6.18.0",
                "cpu_model": "AMD Ryzen 7 5800X", "cpu_cores": 16, "cpu_freq_ghz": 4.85,
                "ram_total_gb": 31.3, "ram_available_gb": 20.1, "gpu_available": false,
                "storage_total_gb": 931.5, "agent_version": env!("CARGO_PKG_VERSION"), "slots": 1,
                "job_kinds": ["compute"],
            },
        })
    );
}

#[test]
fn a_gpu_is_registered_with_what_it_told() {
    let body = serde_json::to_value(Register::new(&facts(vec![gpu_specs()]))).unwrap();
    let specs = &body["specs"];
    assert_eq!(specs["gpu_available"], json!(true));
    assert_eq!(specs["gpu_model"], json!("NVIDIA GeForce RTX 3090"));
    assert_eq!(specs["gpu_vram_gb"], json!(24.0));
    assert_eq!(
        specs["gpus"],
        json!([{"index": 0, "uuid": "GPU-1", "name": "NVIDIA GeForce RTX 3090", "vram_gb": 24.0,
                "driver": "580.95", "power_limit_w": 350.0}])
    );
}

#[test]
fn a_divided_or_reserved_gpu_is_named_as_such() {
    let mig = MigSpecs {
        uuid: Some("MIG-1".into()),
        name: Some("NVIDIA A100 MIG 1g.10gb".into()),
        vram_gb: Some(9.75),
    };
    let gpu = GpuSpecs {
        index: 3,
        pci: Some("00000000:01:00.0".into()),
        theoretical_gflops: Some(35_580.16),
        compute_mode: Some("prohibited"),
        mig: vec![mig, MigSpecs::default()],
        ..GpuSpecs::default()
    };
    let body = serde_json::to_value(Register::new(&facts(vec![gpu]))).unwrap();
    assert_eq!(
        body["specs"]["gpus"],
        json!([{"index": 3, "pci": "00000000:01:00.0", "theoretical_gflops": 35_580.2,
                "compute_mode": "prohibited",
                "mig": [{"uuid": "MIG-1", "name": "NVIDIA A100 MIG 1g.10gb", "vram_gb": 9.8}, {}]}])
    );
}

#[test]
fn a_measured_speed_is_the_compute_power() {
    let measured = Facts { gflops: Some(812.44), ..facts(vec![]) };
    let body = serde_json::to_value(Register::new(&measured)).unwrap();
    assert_eq!(body["computePower"], json!(812.4));
}

#[test]
fn a_limited_machine_is_registered_with_what_the_host_has_too() {
    let limited = facts(vec![]);
    let specs =
        Specs { host_cpu_cores: Some(64), host_ram_total_gb: Some(251.57), ..limited.specs };
    let body = serde_json::to_value(Register::new(&Facts { specs, ..limited })).unwrap();
    let specs = &body["specs"];
    assert_eq!((&specs["cpu_cores"], &specs["host_cpu_cores"]), (&json!(16), &json!(64)));
    assert_eq!(
        (&specs["ram_total_gb"], &specs["host_ram_total_gb"]),
        (&json!(31.3), &json!(251.6))
    );
}

#[test]
fn quick_register_says_the_same_in_its_own_words() {
    assert_eq!(
        quick_register(&facts(vec![gpu_specs()])),
        json!({
            "type": "native", "workerId": "3f0c9a", "qubicAddress": "QUBIC_3F0C9A",
            "gpu": {"type": "native", "vendor": "NVIDIA", "model": "NVIDIA GeForce RTX 3090",
                    "vram": 24.0},
            "cpu": {"model": "AMD Ryzen 7 5800X", "cores": 16}, "ram": {"total": 31.3},
            "location": "US East (Virginia)", "pricePerHour": 2.5,
        })
    );
    assert_eq!(quick_register(&facts(vec![]))["gpu"], json!({"type": "native"}));
}

#[test]
fn a_beat_names_its_jobs_and_leaves_out_what_was_not_measured() {
    assert_eq!(
        heartbeat("3f0c9a", &beat(&["job-7", "job-8"], vec![gpu_usage()]), false),
        json!({
            "workerId": "3f0c9a", "status": "busy", "currentJob": "job-7",
            "currentJobs": ["job-7", "job-8"],
            "usage": {
                "cpuPercent": 41.2, "ramPercent": 63.0, "ramUsedGb": 19.7, "ramTotalGb": 31.3,
                "timestamp": "2026-01-15T10:30:00.000Z",
                "gpuPercent": 97.0, "gpuMemoryPercent": 71.5, "gpuTemp": 66.0,
                "gpuMemUsedMb": 17584, "gpuMemTotalMb": 24576, "gpuPowerLimit": 350.0,
                "gpus": [{"index": 0, "gpuPercent": 97.0, "gpuMemoryPercent": 71.5,
                          "gpuTemp": 66.0, "gpuMemUsedMb": 17584, "gpuMemTotalMb": 24576,
                          "gpuPowerLimit": 350.0}],
            },
        })
    );
    let idle = heartbeat("3f0c9a", &beat(&[], vec![]), false);
    assert_eq!(idle["currentJobs"], json!([]));
    assert_eq!((idle.get("currentJob"), idle["usage"].get("gpus")), (None, None));
}

#[test]
fn a_beat_tells_of_each_gpu_what_it_told_itself() {
    let gpu = GpuUsage {
        index: 1,
        memory_busy_percent: Some(40.0),
        fan_percent: Some(56.0),
        clock_mhz: Some(1950),
        mem_clock_mhz: Some(9751),
        throttle: vec!["power", "thermal"],
        energy_j: Some(1234.56),
        users: Some(GpuUsers { own: vec![7, 8], others: 1 }),
        ..GpuUsage::default()
    };
    let beat = heartbeat("3f0c9a", &beat(&[], vec![gpu]), false);
    assert_eq!(
        beat["usage"]["gpus"],
        json!([{"index": 1, "memoryBusyPercent": 40.0, "fanPercent": 56.0, "clockMhz": 1950,
                "memClockMhz": 9751, "throttle": ["power", "thermal"], "energyJ": 1234.6,
                "ownProcesses": 2, "otherProcesses": 1}])
    );
}

#[test]
fn a_beat_says_why_a_gpu_is_absent() {
    let absent = Beat { gpu_absence: Some("GPU 1 fell off the bus".into()), ..beat(&[], vec![]) };
    let usage = &heartbeat("3f0c9a", &absent, false)["usage"];
    assert_eq!(usage["absent"], json!({"gpu": "GPU 1 fell off the bus"}));
    let gpu_keys = usage.as_object().unwrap().keys().filter(|key| key.starts_with("gpu"));
    assert_eq!(gpu_keys.count(), 0);
}

#[test]
fn a_beat_tells_how_the_machine_is() {
    let vitals = Vitals {
        load: Some([0.524, 1.1, 2.0]),
        disk_total_gb: Some(931.51),
        disk_free_gb: Some(400.24),
        net: Some(Traffic { rx_bytes: 18_234, tx_bytes: 9_120 }),
        power: Some(Power { battery_percent: Some(64.0), on_battery: true }),
        cpu_temp_c: Some(52.125),
    };
    let plain = heartbeat("3f0c9a", &beat(&[], vec![]), false);
    let told = heartbeat("3f0c9a", &Beat { vitals, ..beat(&[], vec![]) }, false);
    let mut more = told["usage"].as_object().cloned().unwrap();
    more.retain(|key, _| plain["usage"].get(key).is_none());
    assert_eq!(
        Value::Object(more),
        json!({
            "loadAverage": [0.52, 1.1, 2.0], "diskTotalGb": 931.5, "diskFreeGb": 400.2,
            "netRxBytes": 18234, "netTxBytes": 9120, "batteryPercent": 64.0, "onBattery": true,
            "cpuTemp": 52.1,
        })
    );
}

#[test]
fn a_legacy_backend_gets_both_spellings() {
    let beat = heartbeat("3f0c9a", &beat(&["job-7"], vec![gpu_usage()]), true);
    assert_eq!(beat["current_job"], json!("job-7"));
    for (key, value) in [
        ("cpu_percent", json!(41.2)),
        ("ram_percent", json!(63.0)),
        ("ram_used_gb", json!(19.7)),
        ("ram_total_gb", json!(31.3)),
        ("gpu_percent", json!(97.0)),
        ("gpu_temp", json!(66.0)),
        ("gpu_mem_used_mb", json!(17584)),
        ("gpu_mem_total_mb", json!(24576)),
    ] {
        assert_eq!(beat["usage"][key], value, "{key}");
    }
}

#[test]
fn progress_carries_live_metrics_and_the_lines_since_the_last() {
    let report = Report {
        percent: 42,
        operation: "epoch 5/10".into(),
        lines: vec![LogLine { from_stderr: false, text: "loss 0.31".into(), at: at() }],
        worked: Duration::from_millis(61_900),
        reading: Some(reading(vec![gpu_usage()])),
        energy_kwh: Some(0.0058),
        at: at(),
    };
    let body = progress("3f0c9a", &report, true);
    assert_eq!(
        body,
        json!({
            "workerId": "3f0c9a", "worker_id": "3f0c9a", "progress": 42,
            "currentOperation": "epoch 5/10", "timestamp": "2026-01-15T10:30:00.000Z",
            "metrics": {
                "cpuPercent": 41.2, "ramPercent": 63.0, "gpuPercent": 97.0, "gpuTemp": 66.0,
                "gpuUtilization": 97.0, "gpuMemoryUsed": 17584, "gpuMemoryTotal": 24576,
                "gpuTemperature": 66.0, "workedSeconds": 61, "energyKwh": 0.0058,
            },
            "logLines": [{"level": "info", "message": "loss 0.31",
                          "timestamp": "2026-01-15T10:30:00.000Z"}],
        })
    );
    assert_eq!(progress("3f0c9a", &report, false).get("worker_id"), None);
}

#[test]
fn a_completion_says_completed_with_the_result_all_jobs_have() {
    let own = json!({"computationData": {"result": 7}}).as_object().cloned().unwrap();
    assert_eq!(
        complete("3f0c9a", "compute", &outcome(Ending::Completed(own))),
        json!({
            "workerId": "3f0c9a", "status": "completed", "timestamp": "2026-01-15T10:30:00.000Z",
            "metrics": {"processingTimeSeconds": 1.5},
            "result": {"jobType": "compute", "status": "success",
                       "timestamp": "2026-01-15T10:30:00.000Z", "artefacts": [],
                       "computationData": {"result": 7}},
        })
    );
}

#[test]
fn a_completion_tells_of_the_gpus_where_there_are_any() {
    let gpus = |gpus| Outcome {
        final_metrics: final_metrics(&reading(gpus)),
        ..outcome(Ending::Completed(Object::new()))
    };
    assert_eq!(
        complete("3f0c9a", "compute", &gpus(vec![gpu_usage()]))["finalMetrics"],
        json!({"gpuUtilization": 97.0, "gpuMemoryUsed": 17584, "gpuMemoryTotal": 24576,
               "gpuTemperature": 66.0})
    );
    assert_eq!(complete("3f0c9a", "compute", &gpus(vec![])).get("finalMetrics"), None);
}

#[test]
fn a_failure_says_failed_with_one_line_and_the_details() {
    let failure = Failure {
        reason: Reason::NonzeroExit,
        blame: Blame::Job,
        stage: Stage::Run,
        error: "exit code 3".into(),
        exit_code: Some(3),
        signal: None,
        log: vec!["last words".into()],
    };
    assert_eq!(
        complete("3f0c9a", "compute", &outcome(Ending::Failed(failure))),
        json!({
            "workerId": "3f0c9a", "status": "failed", "timestamp": "2026-01-15T10:30:00.000Z",
            "metrics": {"processingTimeSeconds": 1.5}, "error": "exit code 3",
            "errorDetails": {"stage": "run", "reason": "nonzero_exit", "blame": "job",
                             "exitCode": 3, "log": ["last words"]},
        })
    );
}

#[test]
fn a_decline_is_a_failure_that_says_so() {
    let decline = Decline { code: DeclineCode::UnknownKind, reason: "no 'gpt2'".into() };
    let body = complete("3f0c9a", "gpt2", &outcome(Ending::Declined(decline)));
    assert_eq!(body["status"], json!("failed"));
    assert_eq!(body["error"], json!("declined: no 'gpt2'"));
    assert_eq!(
        body["result"],
        json!({"declined": true, "code": "unknown_kind", "reason": "no 'gpt2'"})
    );
}

#[test]
fn one_field_gone_wrong_leaves_the_others_readable() {
    let reply = [("a", Some("1e999")), ("b", Some("[1]")), ("c", Some("null")), ("large", None)];
    let fields: Fields =
        reply.map(|(name, text)| (name.to_owned(), text.map(str::to_owned))).into();
    let problem = field::<f64>(&fields, "a").unwrap_err();
    assert!(problem.starts_with("its a cannot be read (number out of range"), "{problem}");
    assert_eq!(field::<Vec<u8>>(&fields, "b"), Ok(Some(vec![1])));
    assert_eq!(field::<u8>(&fields, "large"), Err("its large is too large".into()));
    assert_eq!((field::<u8>(&fields, "c"), field::<u8>(&fields, "d")), (Ok(None), Ok(None)));
}
