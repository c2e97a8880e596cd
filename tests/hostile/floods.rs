//! Scripts that want all there is of something.

use std::fs;

use serde_json::json;

use super::{BOMB, reason};
use crate::support::{Host, SCRIPTS, script};

#[test]
fn a_fork_bomb_is_bounded_and_ends_with_its_time() {
    let mut host = Host::start(&["--limit-memory", "512MiB"]);
    let mut bomb = script("python3", BOMB);
    bomb["timeoutSeconds"] = json!(3);
    bomb["inputData"]["cpus"] = json!(1);
    let failed = host.run(&bomb);
    assert_eq!(failed["status"], "failed");
    assert!(["timeout", "out_of_memory"].contains(&reason(&failed)), "{failed:#}");
    host.goes_on();
}

#[test]
fn memory_is_not_to_be_had_beyond_the_limit_by_one_process_or_many_or_by_files_in_memory() {
    let mut host = Host::start(&["--limit-memory", "256MiB"]);
    for text in [
        "x = []\nwhile True:\n    x.append(b'x' * (1 << 20))\n",
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = b'x' * (60 << 20)\n        \
         time.sleep(1000)\ntime.sleep(1000)\n",
        "import mmap, time\nm = mmap.mmap(-1, 1 << 30)\nfor i in range(1 << 10):\n    m[i << 20:(i + 1) << 20] = \
         b'x' * (1 << 20)\ntime.sleep(1000)\n",
        "import os, time\nf = os.memfd_create('x')\nfor _ in range(1 << 10):\n    os.write(f, b'x' * (1 << 20))\n\
         time.sleep(1000)\n",
    ] {
        let mut job = script("python3", text);
        job["timeoutSeconds"] = json!(40);
        let failed = host.run(&job);
        assert_eq!(reason(&failed), "out_of_memory", "{text}: {failed:#}");
    }
    host.goes_on();
}

#[test]
fn the_disk_is_not_to_be_had_beyond_the_limit_in_any_of_its_folders() {
    let mut host = Host::start(&["--limit-disk", "64MiB"]);
    for text in [
        "dd if=/dev/zero of=/output/x bs=1M count=10000 2>/dev/null; sleep 1000",
        "while :; do i=$((i+1)); head -c 10000000 /dev/zero > /tmp/$i; done",
        "while :; do i=$((i+1)); head -c 10000000 /dev/zero > /dev/shm/$i; done",
        "while :; do exec {f}>x; rm x; head -c 10000000 /dev/zero >&$f; done",
    ] {
        let mut job = script("bash", text);
        job["timeoutSeconds"] = json!(30);
        let failed = host.run(&job);
        assert_eq!(failed["status"], "failed", "{text}: {failed:#}");
        assert_ne!(reason(&failed), "timeout", "{text}: {failed:#}");
    }
    host.goes_on();
    host.wait_for_clean_up();
    assert!(size(host.home.path("state").as_ref()) < 4 << 20, "nothing of it is left");
}

fn size(folder: &std::path::Path) -> u64 {
    // What goes away meanwhile is nothing.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    };
    entries.map(size).sum()
}

#[test]
fn folders_that_are_deeper_than_any_path_go_with_their_job() {
    let mut host = Host::start(&[]);
    let text = "import os, time\nfor _ in range(5000):\n    os.mkdir('d')\n    os.chdir('d')\nos.mkdir('e', 0)\n\
                time.sleep(1000)\n";
    let mut deep = script("python3", text);
    deep["timeoutSeconds"] = json!(40);
    let failed = host.run(&deep);
    assert!(failed["error"].as_str().unwrap().ends_with("128 folders deep"), "{failed:#}");
    let locked = "mkdir -p a/b; touch a/b/c; chmod 0 a/b a";
    assert_eq!(host.run(&script("bash", locked))["status"], "completed");
    host.goes_on();
    host.wait_for_clean_up();
    let jobs = fs::read_dir(host.home.path("state/jobs")).unwrap();
    let left = jobs.filter(|job| job.as_ref().unwrap().path().join("work").exists());
    assert_eq!(left.count(), 0);
}

#[test]
fn a_flood_of_output_is_cut_and_costs_the_agent_no_memory() {
    let mut host = Host::start(&[]);
    let text = "yes 'flood' | head -c 2000000; yes 'error' | head -c 2000000 >&2; \
                head -c 20000000 /dev/zero; exit 1";
    let failed = host.run(&script("bash", text));
    assert_eq!(failed["error"], "exit code 1");
    assert!(failed.to_string().len() < 200_000, "the completion is bounded");
    let kib = host.worker.peak_kib();
    assert!(kib < 100 << 10, "the agent took {kib} KiB");
    host.goes_on();
}

/// Prints the same again and again for a while, and tells how much of it was taken.
const FLOOD: &str = r#"
import json, os, sys, time
kind, fd = sys.argv[1], int(sys.argv[2])
one = {'lines': b'flood\n', 'empty': b'\n', 'progress': b'{"progress": 50, "operation": "on"}\n',
       'json': b'{"x": [' + b'0, ' * 1300 + b'0]}\n', 'binary': bytes(range(256)) * 16}[kind]
many = one * (16384 // len(one) + 1)
begun, taken = time.monotonic(), 0
while time.monotonic() < begun + 6:
    taken += os.write(fd, many)
seconds = time.monotonic() - begun
lines = taken * one.count(b'\n') / len(one)
with open('/output/result.json', 'w') as file:
    json.dump({'mebibytes': (taken + 32 * lines) / (1 << 20), 'seconds': seconds}, file)
"#;

#[test]
fn however_a_script_floods_its_output_is_read_at_a_bounded_rate_and_what_it_tells_then_counts() {
    let mut host = Host::start(&["--slots", "5"]);
    let kinds = [("lines", "1"), ("empty", "1"), ("progress", "1"), ("json", "1"), ("binary", "2")];
    let ids = kinds.map(|(kind, stream)| {
        let mut job = script("python3", FLOOD);
        job["inputData"]["args"] = json!([kind, stream]);
        let id = host.offer(&job);
        host.backend.wait_for(&format!("POST /api/jobs/{id}/progress"), 1);
        id
    });
    for ((kind, _), id) in kinds.into_iter().zip(ids) {
        let completion = host.completion(&id);
        let of = |name: &str| completion["result"][name].as_f64().unwrap();
        // What the pipe holds is not read yet, and each of its bytes may be a line.
        let most = 32.0 + 4.0 * of("seconds") + 8.0;
        assert!(of("mebibytes") < most, "{kind}: {completion:#}");
    }
    host.goes_on();
}

#[test]
fn what_an_earlier_run_could_not_remove_in_time_goes_with_the_next() {
    let mut host = Host::start(&[]);
    host.worker.kill();
    let left = host.home.path(&format!("state/trash/left/{}", ["d"; 500].join("/")));
    fs::create_dir_all(left).unwrap();
    let _again = host.home.worker(&host.backend.url(), &SCRIPTS);
    host.wait_for_clean_up();
}
