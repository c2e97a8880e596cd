//! GPUs, as a scripted driver shows them to the worker and as the backend gets to see them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Backend, Driver, Home, Program, Reply, Request, endless, keys, short};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

const LOST: u32 = 15;
const NOT_SUPPORTED: u32 = 3;
const NO_PERMISSION: u32 = 4;
const NOT_LOADED: u32 = 9;

/// A GPU at work.
fn busy() -> Value {
    json!({
        "uuid": "GPU-1", "util": 97, "mem_util": 40, "temp": 66, "fans": [55, 58],
        "mem_total": 24_576_u64 << 20, "mem_used": 18_432_u64 << 20,
        "power_mw": 341_200, "power_limit_mw": 350_000, "clock_mhz": 1950, "mem_clock_mhz": 9751,
    })
}

/// The usage of the newest beat, once it is as wanted.
fn usage(backend: &Backend, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    backend.wait(what, |seen| {
        let beat = seen.iter().rev().find(|request| request.is(BEAT))?;
        Some(&beat.body["usage"]).filter(|usage| is_so(usage)).cloned()
    })
}

/// The usage once so many GPUs are in it.
fn usage_of(backend: &Backend, count: usize) -> Value {
    usage(backend, &format!("a beat with {count} GPUs"), |usage| {
        usage["gpus"].as_array().map_or(0, Vec::len) == count
    })
}

fn specs(backend: &Backend, n: usize) -> Value {
    backend.wait_for(REGISTER, n).body["specs"].clone()
}

/// The indices in a registration's or a beat's list of GPUs.
fn indices(of: &Value) -> Vec<u64> {
    let gpus = of["gpus"].as_array().unwrap().iter();
    gpus.map(|gpu| gpu["index"].as_u64().unwrap()).collect()
}

fn gpu_keys(of: &Value) -> Vec<&str> {
    keys(of).into_iter().filter(|key| key.contains("gpu")).collect()
}

/// The log's lines of this level that speak of GPUs.
fn lines(worker: &Program, level: &str) -> Vec<String> {
    let log = worker.log();
    let lines = log.lines().filter(|line| line.contains("GPU") && line.contains(level));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_gpu_is_registered_with_what_tells_it_apart() {
    let driver = Driver::new(&json!({"driver": "580.95.05", "gpus": [busy()]}));
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    let specs = specs(&backend, 1);
    let first = ["gpu_available", "gpu_model", "gpu_vram_gb"].map(|key| specs[key].clone());
    assert_eq!(first, [json!(true), json!("NVIDIA GeForce RTX 3090"), json!(24.0)]);
    assert_eq!(
        specs["gpus"],
        json!([{
            "index": 0, "uuid": "GPU-1", "name": "NVIDIA GeForce RTX 3090", "vram_gb": 24.0,
            "driver": "580.95.05", "power_limit_w": 350.0, "pci": "00000000:01:00.0",
            // 10496 cores, each with two operations in each of 2100 million cycles.
            "theoretical_gflops": 44_083.2,
        }])
    );
    worker.wait_log(&format!("GPU driver library: {}", driver.library()));
    worker.stop();
}

#[test]
fn a_beat_tells_what_a_gpu_does() {
    let mut script = json!({"gpus": [busy()]});
    script["gpus"][0]["throttle"] = json!(0x20);
    script["gpus"][0]["energy_mj"] = json!(9_000);
    let driver = Driver::new(&script);
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    let usage = usage_of(&backend, 1);
    let of_all = json!({
        "gpuPercent": 97.0, "gpuTemp": 66.0, "gpuMemUsedMb": 18_432, "gpuMemTotalMb": 24_576,
        "gpuMemoryPercent": 75.0, "gpuPowerDraw": 341.2, "gpuPowerLimit": 350.0,
    });
    let mut of_one = of_all.clone();
    for (key, value) in [
        ("index", json!(0)),
        ("memoryBusyPercent", json!(40.0)),
        ("fanPercent", json!(56.5)),
        ("clockMhz", json!(1950)),
        ("memClockMhz", json!(9751)),
        ("throttle", json!(["thermal"])),
        ("ownProcesses", json!(0)),
        ("otherProcesses", json!(0)),
    ] {
        of_one[key] = value;
    }
    of_one["energyJ"] = json!(0.0);
    assert_eq!(usage["gpus"][0], of_one);
    for (key, value) in of_all.as_object().unwrap() {
        assert_eq!(&usage[key], value, "{key}");
    }
    assert_eq!(usage["absent"]["gpu"], Value::Null);
    let mut later = json!({"gpus": [busy()]});
    later["gpus"][0]["energy_mj"] = json!(11_500);
    driver.set(&later);
    let used = |usage: &Value| usage["gpus"][0]["energyJ"] == 2.5;
    let usage = self::usage(&backend, "what was used since the start", used);
    assert_eq!(usage["gpus"][0].get("throttle"), None);
    worker.stop();
}

#[test]
fn several_gpus_are_also_told_as_one() {
    for count in [2_u32, 8] {
        let gpu = |index| json!({"util": 10 * index, "temp": 40 + index, "mem_used": 1 << 30});
        let driver = Driver::new(&json!({"gpus": (0..count).map(gpu).collect::<Value>()}));
        let (home, backend) = (Home::new(), Backend::start());
        let mut worker = driver.worker(&home, &backend.url(), &[]);
        assert_eq!(indices(&specs(&backend, 1)), Vec::from_iter(0..u64::from(count)));
        let usage = usage_of(&backend, count as usize);
        let of_all = json!({
            "gpuPercent": f64::from(10 * (count - 1)) / 2.0, "gpuTemp": f64::from(40 + count - 1),
            "gpuMemUsedMb": 1024 * count, "gpuMemTotalMb": 24_576 * count,
            "gpuPowerDraw": f64::from(25 * count), "gpuPowerLimit": f64::from(350 * count),
        });
        for (key, value) in of_all.as_object().unwrap() {
            assert_eq!(&usage[key], value, "{key} of {count}");
        }
        worker.stop();
    }
}

#[test]
fn a_job_s_process_is_told_from_the_owner_s() {
    let driver = Driver::new(&json!({"gpus": [{}]}));
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let worker = driver.worker(&home, &backend.url(), &["--progress-interval", "1s"]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let ours = worker.children().into_iter().map(|pid| json!({"pid": pid, "mem": 1 << 30}));
    // Nobody's job is the first process, nor is it known how much memory it has.
    let all: Vec<Value> = ours.chain([json!({"pid": 1})]).collect();
    driver.set(&json!({"gpus": [{"compute": all}]}));
    let gpu = usage(&backend, "processes", |usage| usage["gpus"][0]["otherProcesses"] == 1);
    assert_eq!(gpu["gpus"][0]["ownProcesses"], 1);
}

#[test]
fn a_job_is_charged_with_what_the_gpus_it_runs_on_use() {
    let gpus = |pid: Option<u32>, kwh: u64| {
        let compute: Vec<Value> = pid.into_iter().map(|pid| json!({"pid": pid})).collect();
        let mj = kwh * 3_600_000_000;
        json!({"gpus": [{"compute": compute, "energy_mj": mj}, {"energy_mj": 7 * mj}]})
    };
    let driver = Driver::new(&gpus(None, 1));
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let worker = driver.worker(&home, &backend.url(), &["--progress-interval", "1s"]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let pid = worker.children().into_iter().next();
    driver.set(&gpus(pid, 1));
    usage(&backend, "the job on the GPU", |usage| usage["gpus"][0]["ownProcesses"] == 1);
    driver.set(&gpus(pid, 3));
    backend.wait("the energy of one GPU", |seen| {
        let progress = |request: &&Request| request.is("POST /api/jobs/job-1/progress");
        let last = seen.iter().rfind(progress)?;
        // Besides that of the processor, where that can be read.
        let kwh = last.body["metrics"]["energyKwh"].as_f64()?;
        (2.0..2.1).contains(&kwh).then_some(())
    });
}

#[test]
fn a_question_that_fails_costs_its_own_field_alone() {
    let denied = [
        ("nvmlDeviceGetPowerUsage", NOT_SUPPORTED),
        ("nvmlDeviceGetEnforcedPowerLimit", NOT_SUPPORTED),
        ("nvmlDeviceGetTemperature", NO_PERMISSION),
    ];
    let mut script = json!({"gpus": [busy(), {}]});
    script["gpus"][0]["fail"] = json!(BTreeMap::from(denied));
    let driver = Driver::new(&script);
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    let specs = specs(&backend, 1);
    assert_eq!(indices(&specs), [0, 1]);
    assert_eq!(specs["gpus"][0].get("power_limit_w"), None);
    let usage = usage_of(&backend, 2);
    let gpu = &usage["gpus"][0];
    for key in ["gpuPowerDraw", "gpuPowerLimit", "gpuTemp"] {
        assert_eq!(gpu.get(key), None, "{gpu:#}");
    }
    assert_eq!([&gpu["gpuPercent"], &gpu["gpuMemUsedMb"]], [&json!(97.0), &json!(18_432)]);
    // The other's alone.
    assert_eq!([&usage["gpuPowerDraw"], &usage["gpuTemp"]], [25.0, 40.0]);
    worker.stop();
}

#[test]
fn a_function_that_an_old_driver_lacks_costs_its_own_field_alone() {
    let script = json!({"gpus": [busy()]});
    let driver = Driver::without("nvmlDeviceGetTotalEnergyConsumption", &script);
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    // Summed up from the power instead.
    let used = |usage: &Value| usage["gpus"][0]["energyJ"].as_f64() > Some(0.0);
    let gpu = usage(&backend, "the energy", used)["gpus"][0].clone();
    assert_eq!([&gpu["gpuPercent"], &gpu["gpuPowerDraw"]], [97.0, 341.2]);
    worker.stop();
}

#[test]
fn a_gpu_in_parts_and_one_that_is_closed_to_others_are_registered_as_such() {
    let part = |uuid| {
        json!({"uuid": uuid, "name": "NVIDIA A100 MIG 3g.20gb", "mem_total": 20_u64 << 30,
               "mem_used": 0})
    };
    let driver = Driver::new(&json!({"gpus": [
        {"name": "NVIDIA A100", "mig": [part("MIG-1"), part("MIG-2")]},
        {"compute_mode": 3},
        {"compute_mode": 2},
    ]}));
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    let specs = specs(&backend, 1);
    let [parted, exclusive, prohibited] = [0, 1, 2].map(|index| &specs["gpus"][index]);
    let part = |uuid| json!({"uuid": uuid, "name": "NVIDIA A100 MIG 3g.20gb", "vram_gb": 20.0});
    assert_eq!(parted["mig"], json!([part("MIG-1"), part("MIG-2")]));
    assert_eq!(parted.get("compute_mode"), None);
    assert_eq!(exclusive["compute_mode"], "exclusive-process");
    assert_eq!(exclusive.get("mig"), None);
    assert_eq!(prohibited["compute_mode"], "prohibited");
    worker.stop();
}

#[test]
fn a_lost_gpu_is_left_out_until_it_is_back_and_the_other_stays() {
    let driver = Driver::new(&json!({"gpus": [{}, {}]}));
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    usage_of(&backend, 2);
    // Any of its answers may be the one that says it.
    driver.set(&json!({"gpus": [{"fail": {"nvmlDeviceGetTemperature": LOST}}, {}]}));
    let usage = usage_of(&backend, 1);
    assert_eq!(indices(&usage), [1]);
    assert!(usage["absent"]["gpu"].is_string(), "{usage:#}");
    let before = backend.requests(REGISTER).len();
    backend.next(BEAT, [Reply::json(404, r#"{"success":false,"error":"Provider not found"}"#)]);
    assert_eq!(indices(&specs(&backend, before + 1)), [1]);
    // Longer than the time between two looks at it.
    backend.wait_beats(7);
    assert_eq!(lines(&worker, "WARN").len(), 1, "{}", worker.log());

    let (before, said) = (backend.requests(REGISTER).len(), lines(&worker, "INFO").len());
    driver.set(&json!({"gpus": [{}, {}]}));
    assert_eq!(usage_of(&backend, 2)["absent"]["gpu"], Value::Null);
    assert_eq!(indices(&specs(&backend, before + 1)), [0, 1]);
    assert!(lines(&worker, "INFO").len() > said, "{}", worker.log());
    worker.stop();
}

#[test]
fn a_gpu_that_takes_the_number_of_another_is_not_taken_for_it() {
    let first = json!({"uuid": "GPU-1", "energy_mj": 1_000_000});
    let second = json!({"uuid": "GPU-2", "energy_mj": 5_000_000_000_u64});
    let driver = Driver::new(&json!({"gpus": [first, second]}));
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    usage_of(&backend, 2);
    driver.set(&json!({"gpus": [{"lost": true}, second]}));
    usage_of(&backend, 1);
    // What a driver tells when it is opened anew after that.
    driver.set(&json!({"gpus": [second]}));
    let renumbered = |usage: &Value| indices(usage) == [0];
    let usage = usage(&backend, "the second as the first", renumbered);
    assert!(usage["gpus"][0]["energyJ"].as_f64() < Some(1.0), "{usage:#}");
    assert_eq!(usage["absent"]["gpu"], "1 of 2 GPUs are there");
    driver.set(&json!({"gpus": [first, second]}));
    assert_eq!(usage_of(&backend, 2)["absent"]["gpu"], Value::Null);
    worker.stop();
}

/// All GPUs go, and the beats go on without them; they come back, and so do the figures. Returns
/// why they were absent.
fn gone_and_back(go: impl Fn(&Driver)) -> String {
    let whole = json!({"gpus": [{}]});
    let driver = Driver::new(&whole);
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    usage_of(&backend, 1);
    go(&driver);
    let gone = |usage: &Value| usage["absent"]["gpu"].is_string();
    let usage = usage(&backend, "a reason why there is no GPU", gone);
    assert_eq!(gpu_keys(&usage), Vec::<&str>::new());
    // A new job is taken, run and completed meanwhile.
    backend.offer(&[short("meanwhile")]);
    let completion = backend.wait_for("POST /api/jobs/meanwhile/complete", 1);
    assert_eq!(completion.body["status"], "completed");
    backend.wait_beats(7);
    assert_eq!(lines(&worker, "WARN").len(), 1, "{}", worker.log());
    driver.set(&whole);
    assert_eq!(usage_of(&backend, 1)["absent"]["gpu"], Value::Null);
    worker.stop();
    usage["absent"]["gpu"].as_str().unwrap().to_owned()
}

#[test]
fn beats_and_jobs_go_on_without_a_gpu_that_is_lost() {
    gone_and_back(|driver| driver.set(&json!({"gpus": [{"lost": true}]})));
}

#[test]
fn beats_and_jobs_go_on_without_a_driver_that_was_unloaded() {
    gone_and_back(Driver::unload);
}

#[test]
fn beats_and_jobs_go_on_beside_a_driver_that_hangs() {
    let hang = json!({"hang": ["nvmlDeviceGetUtilizationRates"], "gpus": [{}]});
    let reason = gone_and_back(|driver| driver.set(&hang));
    assert!(reason.starts_with("stale:"), "{reason}");
}

/// A worker that starts without a GPU registers it once the driver has come.
fn comes_late(driver: &Driver, come: impl Fn(&Driver)) {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    assert_eq!(specs(&backend, 1)["gpu_available"], false);
    come(driver);
    let late = specs(&backend, 2);
    assert_eq!([&late["gpu_available"], &late["gpus"][0]["uuid"]], [&json!(true), &json!("GPU-1")]);
    usage_of(&backend, 1);
    worker.stop();
}

#[test]
fn a_driver_that_is_installed_while_the_worker_runs_is_found() {
    comes_late(&Driver::missing(&json!({"gpus": [busy()]})), Driver::install);
}

#[test]
fn a_driver_that_is_loaded_while_the_worker_runs_is_found() {
    let unloaded = json!({"fail": {"nvmlInit_v2": NOT_LOADED}});
    comes_late(&Driver::new(&unloaded), |driver| driver.set(&json!({"gpus": [busy()]})));
}

#[test]
fn without_a_driver_nothing_is_said_of_gpus_but_one_line_in_the_log() {
    let driver = Driver::missing(&json!({}));
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = driver.worker(&home, &backend.url(), &[]);
    let body = backend.wait_for(REGISTER, 1).body;
    assert_eq!(gpu_keys(&body["specs"]), ["gpu_available"]);
    assert_eq!(body["specs"]["gpu_available"], false);
    // Looked for twice more by then.
    let usage = backend.wait_beats(8).body["usage"].clone();
    assert_eq!(gpu_keys(&usage), Vec::<&str>::new());
    assert_eq!(usage["absent"]["gpu"], Value::Null);
    worker.stop();
    // Which library was asked for is the user's own word.
    let said = lines(&worker, "").into_iter().filter(|line| !line.contains("GPU driver library:"));
    let said: Vec<_> = said.collect();
    assert!(matches!(&said[..], [line] if line.contains("INFO")), "{said:#?}");
}
