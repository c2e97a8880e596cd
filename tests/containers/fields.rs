//! Every field of a container's job that is documented, by real engines; the files and times that it has in
//! common with scripts by the same jobs as these.

#[path = "../it/fields/program.rs"]
mod program;
#[path = "../it/fields/table.rs"]
#[expect(dead_code, reason = "the other tests ask which sections there are")]
mod table;

use serde_json::{Value, json};

use crate::engines::{ENGINES, environment};
use crate::support::{Host, Storage};
use program::Desk;
use table::{OF_CONTAINERS, Rows};

/// Each with a worker that uses podman, and one that uses docker.
macro_rules! sections {
    ($($section:expr => $test:ident by $show:path;)*) => {
        $(#[test]
        fn $test() {
            for engine in ENGINES {
                eprintln!("with {engine}");
                let rows = Rows::of($section);
                $show(&desk(engine), &rows);
                rows.end();
            }
        })*
    };
}

sections! {
    OF_CONTAINERS[0] => containers by all_of_containers;
    "Inputs" => inputs by program::inputs;
    "Outputs" => outputs by program::outputs;
    "Times" => times by program::times;
    "What a program finds and says" => what_a_program_finds_and_says by program::finds_and_says;
}

fn desk(engine: &str) -> Desk {
    let storage = Storage::http();
    let ca = format!("{}/tests/it/tls/ca.pem", env!("CARGO_MANIFEST_DIR"));
    let args = ["--allow", "container", "--container-engine", engine, "--container-pull", "never"];
    let more = ["--allow-private-downloads", "--ca-cert", &ca, "--progress-interval", "1s"];
    let env = environment();
    let mut env: Vec<(&str, &str)> =
        env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    env.push(("WORKER_HUGGING_FACE", &storage.url));
    let host = Host::of(&[args.as_slice(), &more].concat(), &env);
    Desk { host, storage, program: of_busybox }
}

fn of_busybox(text: &str) -> Value {
    json!({"jobType": "container", "inputData": {"image": "localhost/busybox", "command": ["/bin/sh", "-c", text]}})
}

const RAN: &str = r#"echo '{"result": "ran"}'"#;

fn all_of_containers(desk: &Desk, rows: &Rows) {
    images(desk, rows);
    commands(desk, rows);
    environments(desk, rows);
    shares(desk, rows);
    of_computehorde(desk, rows);
}

fn images(desk: &Desk, rows: &Rows) {
    let command = ["/bin/sh", "-c", RAN];
    for (row, job) in [
        (
            "jobType container",
            json!({"jobType": "container", "inputData": {"image": "localhost/busybox"}}),
        ),
        (
            "jobType docker",
            json!({"jobType": "docker", "inputData": {"image": "localhost/busybox:latest"}}),
        ),
        ("image", json!({"modelType": "gpt2", "inputData": {"image": "localhost/busybox"}})),
        ("docker_image", json!({"inputData": {"docker_image": "localhost/busybox"}})),
        (
            "advancedConfig.dockerImage",
            json!({"advancedConfig": {"dockerImage": "localhost/busybox"}, "inputData": {}}),
        ),
        (
            "advancedConfig.dockerImage",
            json!({"advancedConfig": {"dockerImage": "localhost/none"}, "inputData": {"image": "localhost/busybox"}}),
        ),
    ] {
        rows.show(&[row]);
        let mut job = job.clone();
        job["inputData"]["command"] = json!(command);
        let result = desk.host.result(&job);
        assert_eq!([&result["value"], &result["jobType"]], ["ran", "container"], "{job}");
    }
}

fn commands(desk: &Desk, rows: &Rows) {
    let line = |text: &str| json!({"entryPoint": text});
    for (row, input, advanced) in [
        ("command", json!({"command": ["/bin/sh", "-c", RAN]}), json!({})),
        ("command as a text", json!({"command": RAN}), json!({})),
        ("docker_run_cmd", json!({"docker_run_cmd": ["/bin/sh", "-c", RAN]}), json!({})),
        ("advancedConfig.entryPoint", json!({}), line(RAN)),
        ("command", json!({"command": RAN}), line("exit 3")),
        ("args", json!({"command": ["/bin/sh", "-c"], "args": [RAN]}), json!({})),
    ] {
        rows.show(&[row]);
        let mut job =
            json!({"jobType": "container", "inputData": input, "advancedConfig": advanced});
        job["inputData"]["image"] = json!("localhost/busybox");
        assert_eq!(desk.host.result(&job)["value"], "ran", "{job}");
    }
}

fn environments(desk: &Desk, rows: &Rows) {
    rows.show(&["env", "advancedConfig.environmentVars"]);
    let mut job = desk.job(
        r#"echo "{\"result\": \"$K $L $N $B\"}""#,
        &json!({"env": {"K": "a  b", "N": 4.5, "B": true}}),
    );
    job["advancedConfig"] = json!({"environmentVars": {"K": "last", "L": "w"}});
    assert_eq!(desk.host.result(&job)["value"], "a  b w 4.5 true");
}

fn shares(desk: &Desk, rows: &Rows) {
    rows.show(&["gpus"]);
    let none =
        desk.result("ls /dev | grep -c nvidia; echo '{\"result\": \"ran\"}'", &json!({"gpus": 0}));
    assert_eq!(none["value"], "ran");
    let declined = desk.host.run(&desk.job(RAN, &json!({"gpus": 64})));
    assert_eq!(declined["result"]["code"], "no_gpu_fits", "{declined:#}");
    for (row, gb, ram) in [
        ("memoryGb", json!(0.0625), json!(64)),
        ("requiredRAM of the job", json!(64), json!(0.0625)),
    ] {
        rows.show(&[row]);
        let mut job = desk.job("tail /dev/zero", &json!({"memoryGb": gb}));
        job["requiredRAM"] = ram;
        assert_eq!(desk.host.run(&job)["error"], "killed: memory limit of 64 MiB", "{row}");
    }
    rows.show(&["cpus"]);
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | cut -d' ' -f1";
    let told =
        desk.result(&format!(r#"echo "{{\"result\": \"$({quota})\"}}""#), &json!({"cpus": 0.5}));
    assert_eq!(told["value"], "50000");
}

fn of_computehorde(desk: &Desk, rows: &Rows) {
    rows.show(&["raw_script", "artifacts_dir", "volume"]);
    desk.storage.put("/word", b"word");
    let volume = json!({"volume_type": "single_file", "url": format!("{}/word", desk.storage.url), "relative_path": "a"});
    let script = "open('/volume/b', 'w').write('own')\n\
                  open('/artifacts/c', 'w').write(open('/volume/a').read() + open(__file__).read()[:4])\n";
    let result = desk.host.result(&json!({"jobType": "container", "inputData": {
        "docker_image": "localhost/python", "raw_script": script, "volume": volume, "artifacts_dir": "/artifacts",
    }}));
    let made = &result["artefacts"][0];
    assert_eq!([&made["path"], &made["bytes"]], [&json!("c"), &json!(8)], "{result:#}");
}
