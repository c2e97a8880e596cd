//! Registering and the first heartbeat, as the backend gets to see them.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, Reply, Reserved, WORKER, has_null, keys};

const REGISTER: &str = "POST /api/providers/register";
const QUICK: &str = "POST /api/providers/quick-register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

/// What the real backend answers to `/register`, without a Location.
const MOVED: &str =
    r#"{"error":"This endpoint is deprecated","redirect":"/api/providers/quick-register"}"#;

fn without<'a>(keys: Vec<&'a str>, optional: &[&str]) -> Vec<&'a str> {
    keys.into_iter().filter(|key| !optional.contains(key)).collect()
}

#[test]
fn a_registration_says_what_the_protocol_lists_and_no_null() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(
        &backend.url(),
        &["--name", "My Gaming PC", "--price", "2.5", "--location", "US East (Virginia)"],
    );
    let request = backend.wait_for(REGISTER, 1);
    let body = &request.body;
    let id = body["worker_id"].as_str().unwrap();
    // The speed is registered once it can be measured.
    assert_eq!(
        without(keys(body), &["computePower"]),
        ["address", "isActive", "location", "name", "pricePerHour", "specs", "worker_id"]
    );
    let of_user = ["name", "location", "pricePerHour", "isActive"].map(|key| body[key].clone());
    assert_eq!(
        of_user,
        [json!("My Gaming PC"), json!("US East (Virginia)"), json!(2.5), json!(true)]
    );
    assert_eq!(body["address"], format!("QUBIC_{}", id.to_uppercase()));
    assert_specs(&body["specs"], id);
    assert!(!has_null(body), "optional fields are left out: {body:#}");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let agent = concat!("qubix-worker/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
    assert_eq!(request.header("authorization"), None);
    let encoding = request.header("accept-encoding");
    assert!(matches!(encoding, None | Some("gzip")), "{encoding:?}");
    worker.stop();
}

fn assert_specs(specs: &Value, id: &str) {
    let of_gpu = ["gpu_model", "gpu_vram_gb", "gpus"];
    let mut expected = vec![
        "agent_version",
        "cpu_cores",
        "cpu_model",
        "gpu_available",
        "hostname",
        "job_kinds",
        "os",
        "ram_available_gb",
        "ram_total_gb",
        "slots",
        "storage_free_gb",
        "storage_total_gb",
        "worker_id",
    ];
    if specs["gpu_available"] == json!(true) {
        expected.extend(of_gpu);
        expected.sort_unstable();
    }
    // Some virtual machines do not tell their clock; the host is told of only where it has more.
    let optional = ["cpu_freq_ghz", "host_cpu_cores", "host_ram_total_gb"];
    assert_eq!(without(keys(specs), &optional), expected, "{specs:#}");
    let fixed = ["worker_id", "agent_version", "slots", "job_kinds"].map(|key| specs[key].clone());
    let kinds = json!(["training", "inference", "fine-tuning", "compute"]);
    assert_eq!(fixed, [json!(id), json!(env!("CARGO_PKG_VERSION")), json!(1), kinds]);
}

#[test]
fn the_first_heartbeat_follows_the_registration_at_once() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker =
        home.worker(&backend.url(), &["--heartbeat-interval", "10m", "--worker-id", "rig-1"]);
    let beat = backend.wait_for(BEAT, 1);
    assert_eq!(backend.calls(), [REGISTER, "POST /api/providers/rig-1/heartbeat"]);
    assert_eq!(keys(&beat.body), ["currentJobs", "status", "usage", "workerId"]);
    let said = ["workerId", "status", "currentJobs"].map(|key| beat.body[key].clone());
    assert_eq!(said, [json!("rig-1"), json!("online"), json!([])]);
    let usage = &beat.body["usage"];
    let of_gpu = [
        "gpuPercent",
        "gpuMemoryPercent",
        "gpuTemp",
        "gpuMemUsedMb",
        "gpuMemTotalMb",
        "gpuPowerDraw",
        "gpuPowerLimit",
        "gpus",
    ];
    let host = without(keys(usage), &of_gpu);
    // The processor's share needs a stretch of time to be measured over; not every machine has a
    // battery, or tells its temperature.
    let host = without(host, &["batteryPercent", "cpuPercent", "cpuTemp", "onBattery"]);
    let disk_and_load = ["diskFreeGb", "diskTotalGb", "loadAverage"];
    let memory = ["ramPercent", "ramTotalGb", "ramUsedGb"];
    assert_eq!(host, [&disk_and_load[..], &memory, &["timestamp"]].concat());
    assert!(!has_null(&beat.body), "{:#}", beat.body);
    worker.stop();
}

#[test]
fn a_backend_that_wants_quick_register_gets_the_same_facts_there() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.always(REGISTER, Reply::json(301, MOVED));
    backend.always(QUICK, Reply::json(200, r#"{"success":true,"provider":{"id":"p-1"}}"#));
    let address = "A".repeat(60);
    let mut worker = home.worker(&backend.url(), &["--address", &address, "--worker-id", "rig-1"]);
    let quick = backend.wait_for(QUICK, 1).body;
    backend.wait_for(BEAT, 1);
    let specs = backend.wait_for(REGISTER, 1).body["specs"].clone();
    let mut gpu = json!({"type": "native"});
    if specs["gpu_available"] == json!(true) {
        gpu["vendor"] = json!("NVIDIA");
        gpu["model"] = specs["gpu_model"].clone();
        gpu["vram"] = specs["gpu_vram_gb"].clone();
    }
    assert_eq!(
        quick,
        json!({
            "type": "native", "workerId": "rig-1", "qubicAddress": address, "gpu": gpu,
            "cpu": {"model": specs["cpu_model"], "cores": specs["cpu_cores"]},
            "ram": {"total": specs["ram_total_gb"]},
            "location": "Local Network", "pricePerHour": 5.0,
        })
    );
    worker.stop();
}

#[test]
fn a_backend_that_pays_to_an_address_is_not_worked_for_without_one() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.always(REGISTER, Reply::json(301, MOVED));
    let mut worker = home.worker(&backend.url(), &[]);
    assert_eq!(worker.wait(), 2);
    let log = worker.log();
    assert!(
        log.contains("this backend pays to a 60-letter Qubic address: give yours with --address"),
        "{log}"
    );
    assert_eq!(backend.calls(), [REGISTER]);
}

#[test]
fn a_heartbeat_that_nobody_knows_is_followed_by_a_registration_at_once() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.next(
        BEAT,
        [
            Reply::json(200, r#"{"success":true,"pendingJobs":[]}"#),
            Reply::json(404, r#"{"success":false,"error":"Provider not found"}"#),
        ],
    );
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(BEAT, 3);
    let beat = "POST /api/providers/rig-1/heartbeat";
    assert_eq!(backend.calls(), [REGISTER, beat, beat, REGISTER, beat]);
    worker.stop();
    assert_eq!(worker.count("backend does not know us, registering again"), 1);
}

#[test]
fn a_backend_that_is_not_up_yet_is_waited_for_and_this_is_said_once() {
    let (home, reserved) = (Home::new(), Reserved::new());
    let mut worker = home.worker(&reserved.url(), &[]);
    worker.wait_log("backend unreachable, trying on");
    let backend = reserved.open(&[(REGISTER, Reply::HangUp), (REGISTER, Reply::HangUp)]);
    backend.wait_beats(1);
    worker.wait_log("backend back after");
    assert_eq!(backend.requests(REGISTER).len(), 3);
    assert_eq!(worker.count("backend unreachable"), 1, "three failures, one line");
    assert_eq!(worker.count(", 3 attempts"), 1, "{}", worker.log());
    worker.stop();
}

#[test]
fn a_proxy_of_the_environment_does_not_come_between_us_and_the_loopback() {
    let (home, backend) = (Home::new(), Backend::start());
    let args = ["--backend", &backend.url(), "--state-dir", &home.path("state")];
    // Nobody listens there.
    let nobody = Reserved::new();
    let _worker = Program::start_at(WORKER, &args, &[("HTTPS_PROXY", &nobody.url())]);
    backend.wait_for("POST /api/providers/register", 1);
}
