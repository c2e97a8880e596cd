//! The machine's speed: measured on demand or by the agent, kept, and registered.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, endless, run};

const REGISTER: &str = "POST /api/providers/register";

#[test]
fn the_speed_is_measured_told_and_kept_unless_others_use_the_machine() {
    let home = Home::unmeasured();
    let (state, file) = (home.path("state"), home.path("state/speed.json"));
    let (code, told, log) = run(&["bench", "--state-dir", &state]);
    assert_eq!(code, 0, "{log}");
    assert!(told.contains(" GFLOP/s (f32, "), "{told}");
    // Beside other tests the figure may mean nothing.
    if told.contains("\nnot kept: others use the machine") {
        assert!(!fs::exists(file).unwrap());
    } else {
        assert!(told.ends_with(&format!("kept in {file}\n")), "{told}");
        let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(kept["speed"]["measured"]["gflops"].as_f64() > Some(0.0), "{kept:#}");
    }
}

#[test]
fn the_speed_is_told_to_programs_as_json() {
    let home = Home::unmeasured();
    let (code, told, log) = run(&["bench", "--json", "--state-dir", &home.path("state")]);
    assert_eq!(code, 0, "{log}");
    let measured: Value = serde_json::from_str(&told).unwrap();
    assert!(measured["gflops"].as_f64() > Some(0.0), "{measured:#}");
}

/// The commands of the worker's children.
fn children(worker: &Program) -> Vec<String> {
    let commands =
        worker.children().into_iter().map(|pid| fs::read(format!("/proc/{pid}/cmdline")));
    // One may have ended since.
    let commands = commands.filter_map(Result::ok);
    let commands = commands.map(|command| String::from_utf8(command).unwrap().replace('\0', " "));
    // One that is dead and not yet buried has none.
    commands.filter(|command| !command.is_empty()).collect()
}

#[test]
fn a_known_speed_is_registered_and_not_measured_again() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    assert_eq!(backend.wait_for(REGISTER, 1).body["computePower"], 812.4);
    let (_, specs, _) = run(&["specs", "--state-dir", &home.path("state")]);
    let specs: Value = serde_json::from_str(&specs).unwrap();
    assert_eq!(specs["computePower"], 812.4);
    backend.wait_beats(2);
    assert_eq!(children(&worker), Vec::<String>::new());
    worker.stop();
}

#[test]
fn the_speed_of_another_processor_is_not_this_machines() {
    let (home, backend) = (Home::new(), Backend::start());
    let kept = fs::read_to_string(home.path("state/speed.json")).unwrap();
    let mut kept: Value = serde_json::from_str(&kept).unwrap();
    kept["speed"]["cpuModel"] = json!("Abacus");
    home.file("state/speed.json", &kept.to_string(), 0o600);
    let mut worker = home.worker(&backend.url(), &[]);
    assert_eq!(backend.wait_for(REGISTER, 1).body.get("computePower"), None);
    worker.stop();
}

#[test]
fn a_first_start_measures_after_its_first_heartbeat_and_registers_what_came_out() {
    let (home, backend) = (Home::unmeasured(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    assert_eq!(backend.wait_for(REGISTER, 1).body.get("computePower"), None);
    // Beside other tests the machine may be too busy for the figure to mean anything.
    let measured = worker.wait_said("the measurement to end", |lines| {
        let (_, line) = lines.iter().find(|(_, line)| line.contains("the processor"))?;
        assert!(line.contains(" GFLOP/s") || line.contains("again in 10m: "), "{line}");
        Some(line.contains(" GFLOP/s"))
    });
    if measured {
        let again = backend.wait_for(REGISTER, 2).body;
        let kept = fs::read_to_string(home.path("state/speed.json")).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(again["computePower"], kept["speed"]["measured"]["gflops"]);
    } else {
        assert_eq!(backend.requests(REGISTER).len(), 1);
    }
    let calls = backend.calls();
    assert!(calls[1].ends_with("/heartbeat") && calls[2].ends_with("/heartbeat"), "{calls:?}");
    worker.stop();
}

#[test]
fn nothing_is_measured_beside_a_job() {
    let (home, backend) = (Home::unmeasured(), Backend::start());
    let worker = home.worker(&backend.url(), &["-v"]);
    worker.wait_log("measuring the processor");
    backend.offer(&[endless("job-1")]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    // Killed before the job began, it may take a moment to be gone.
    backend.wait_beats(1);
    let children = children(&worker);
    let programs: Vec<_> =
        children.iter().filter_map(|command| command.split(' ').nth(1)).collect();
    assert_eq!(programs, ["engine"]);
}
