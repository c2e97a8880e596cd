//! The text as Prometheus reads it.

use super::*;
use crate::status::tests::{snapshot, with_gpu};

fn process() -> Process {
    Process {
        cpu: Duration::from_millis(1500),
        resident_bytes: Some(12_345_344),
        open_files: Some(17),
    }
}

/// The samples of these names, without the words about them.
fn samples(text: &str, name: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn a_worker_without_gpus_tells_what_it_knows() {
    let text = render(&snapshot(), &[], &process());
    assert_eq!(text, include_str!("plain.prom"));
}

#[test]
fn gpus_are_told_apart_and_percent_become_ratios() {
    let text = render(&with_gpu(), &[], &process());
    let labels = r#"{gpu="0",uuid="GPU-1"}"#;
    assert_eq!(
        samples(&text, "worker_gpu_"),
        [
            r#"worker_gpu_info{gpu="0",uuid="GPU-1",name="RTX \"3090\"",driver="580"} 1"#
                .to_owned(),
            format!("worker_gpu_temperature_celsius{labels} 66"),
            format!("worker_gpu_utilization_ratio{labels} 0.97"),
            format!("worker_gpu_power_watts{labels} 341.5"),
            format!("worker_gpu_memory_used_bytes{labels} 1073741824"),
            format!("worker_gpu_energy_joules_total{labels} 12.5"),
        ]
    );
    // What the GPU does not tell has not even a name.
    assert!(!text.contains("worker_gpu_power_limit_watts"));
    assert_eq!(samples(&text, "worker_cpu_"), ["worker_cpu_utilization_ratio 0.125"]);
    assert_eq!(samples(&text, "worker_disk_"), ["worker_disk_free_bytes 107374182400"]);
}

#[test]
fn jobs_are_counted_by_kind_and_outcome_and_their_time_by_kind() {
    let tally = |kind: &str, status: &str, seconds: &[f64]| Tally {
        kind: kind.into(),
        status: status.into(),
        count: seconds.len() as u64,
        seconds: seconds.to_vec(),
    };
    let tallies = [
        tally("compute", "completed", &[0.5, 4.0]),
        tally("compute", "failed", &[100_000.0]),
        tally("training", "completed", &[61.0]),
    ];
    let text = render(&snapshot(), &tallies, &process());
    assert_eq!(
        samples(&text, "worker_jobs_total"),
        [
            r#"worker_jobs_total{kind="compute",status="completed"} 2"#,
            r#"worker_jobs_total{kind="compute",status="failed"} 1"#,
            r#"worker_jobs_total{kind="training",status="completed"} 1"#,
        ]
    );
    let of_compute = r#"worker_job_duration_seconds_bucket{kind="compute""#;
    let buckets: Vec<_> = samples(&text, of_compute);
    let counts: Vec<_> = buckets.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(counts, ["0", "1", "2", "2", "2", "2", "2", "2", "2", "2", "2", "3"]);
    assert_eq!(
        samples(&text, "worker_job_duration_seconds_sum"),
        [
            r#"worker_job_duration_seconds_sum{kind="compute"} 100004.5"#,
            r#"worker_job_duration_seconds_sum{kind="training"} 61"#,
        ]
    );
}

#[test]
fn a_label_cannot_break_out_of_its_line() {
    assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
}
