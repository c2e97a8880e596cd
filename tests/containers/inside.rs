//! What a job finds inside its container, and what it cannot do there.

use serde_json::{Value, json};

use crate::engines::{COMPLETE, Place, job, shell, with, with_both};

/// What a shell script says, line by line, in a container with these limits.
#[track_caller]
fn said(place: &Place, id: &str, limits: &Value, script: &str) -> Vec<String> {
    let script = format!(
        "({script}) >/tmp/said 2>&1; exec sh -c 'while read -r line; do echo \"$line\"; done </tmp/said; exit 9'"
    );
    let body = place.run(&with(shell(id, &script), limits.clone()), &[]);
    let details = &body["errorDetails"];
    assert_eq!(details["exitCode"], 9, "{body}");
    let log = details["log"].as_array().unwrap();
    log.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn says(place: &Place, id: &str, script: &str, wanted: &[&str]) {
    assert_eq!(said(place, id, &json!({}), script), wanted, "{}: {script}", place.engine);
}

#[test]
fn there_is_no_network() {
    with_both(|place| {
        let tunnels = "^(tunl|sit|ip6tnl|gre|gretap|erspan|ip_vti|ip6_vti|ip6gre)0$";
        // The heading of the table of routes, and no route.
        let script = format!("ls /sys/class/net | grep -vE '{tunnels}'; wc -l </proc/net/route");
        says(place, "network", &script, &["lo", "1"]);
    });
}

#[test]
fn nothing_but_its_own_folders_can_be_written_to() {
    with_both(|place| {
        let script = "for dir in / /bin /etc /dev /var/tmp /run /sys /proc /input /output /tmp /dev/shm; do \
            if touch $dir/x 2>/dev/null; then echo $dir; fi; done; \
            (echo w >/proc/sys/kernel/core_pattern) 2>/dev/null || echo no core";
        says(place, "writes", script, &["/output", "/tmp", "/dev/shm", "no core"]);
    });
}

#[test]
fn it_is_nobody_without_capabilities_and_cannot_become_anybody() {
    with_both(|place| {
        let script = "id -u; id -g; grep -E '^(CapEff|CapBnd|CapPrm|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; \
            mount -t tmpfs none /tmp 2>/dev/null || echo no mount; \
            chroot / true 2>/dev/null || echo no chroot; \
            unshare -U true 2>/dev/null || echo no user namespace";
        says(
            place,
            "nobody",
            script,
            &[
                "65534",
                "65534",
                "CapPrm:0000000000000000",
                "CapEff:0000000000000000",
                "CapBnd:0000000000000000",
                "CapAmb:0000000000000000",
                "NoNewPrivs:1",
                "Seccomp:2",
                "no mount",
                "no chroot",
                "no user namespace",
            ],
        );
    });
}

#[test]
fn it_sees_no_process_but_its_own_and_no_file_of_this_machine() {
    with_both(|place| {
        let script = "ls -d /proc/[0-9]* | wc -l; cat /proc/1/environ >/dev/null && cat /proc/1/comm; \
            ls /home /root /work 2>/dev/null | wc -l; ls /dev | tr '\\n' ' '; echo; env | cut -d= -f1 | sort | tr '\\n' ' '; echo";
        let lines = said(place, "sees", &json!({"env": {"OWN": "a b\"$x"}}), script);
        let processes: u32 = lines[0].parse().unwrap();
        assert!(processes < 8, "{lines:?}");
        for device in ["sda", "vda", "kvm", "mem", "fuse", "nvidia"] {
            assert!(!lines.iter().any(|line| line.contains(device)), "{device}: {lines:?}");
        }
        let env = lines.last().unwrap();
        for secret in ["DOCKER_HOST", "CONTAINERS", "WORKER_MARK", "WORKER_BACKEND"] {
            assert!(!env.contains(secret), "{env}");
        }
        assert!(env.contains("OWN") && env.contains("WORKER_OUTPUT_DIR"), "{env}");
    });
}

#[test]
fn it_learns_neither_of_a_proxy_nor_of_what_this_machine_calls_others() {
    with_both(|place| {
        let proxy = "http://someone:pr0xy-pass@192.0.2.1:3128";
        std::fs::create_dir(place.home.path("docker")).unwrap();
        let settings = json!({"proxies": {"default": {
            "httpProxy": proxy, "httpsProxy": proxy, "noProxy": "inside.example", "allProxy": proxy}}});
        place.home.file("docker/config.json", &settings.to_string(), 0o600);
        let config = place.home.path("docker");
        let env = [
            ("HTTPS_PROXY", proxy),
            ("https_proxy", proxy),
            ("HTTP_PROXY", proxy),
            ("NO_PROXY", "inside.example"),
            ("DOCKER_CONFIG", &config),
        ];
        let script = "env; cat /etc/hosts; cat /etc/hosts >&2; exit 9";
        let own = with(shell("proxy", script), json!({"env": {"FTP_PROXY": "its own"}}));
        place.backend.offer(std::slice::from_ref(&own));
        let mut worker = place.worker_by(&[], &env);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        worker.stop();
        let said = body["errorDetails"]["log"].to_string();
        assert!(said.contains("WORKER_OUTPUT_DIR"), "{body}");
        for word in ["pr0xy-pass", "inside.example"] {
            assert!(!said.contains(word), "{}: {said}", place.engine);
        }
        assert!(said.contains("FTP_PROXY=its own"), "{}: {said}", place.engine);
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
        let ours = hosts.lines().filter(|line| !line.starts_with('#') && !line.contains("local"));
        for line in ours.filter(|line| !line.trim().is_empty() && !line.contains("ip6")) {
            assert!(!said.contains(line), "{}: {line} in {said}", place.engine);
        }
    });
}

#[test]
fn its_memory_processes_and_files_are_limited() {
    with_both(|place| {
        let script = "ulimit -n; ulimit -c; ulimit -f; \
            cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
            i=0; while [ $i -lt 5000 ]; do sleep 100 & i=$((i+1)); done";
        let lines = said(place, "limits", &json!({"memoryGb": 4}), script);
        assert_eq!(lines[..4], ["4096", "0", "41943040", "4294967296"], "{}", place.engine);
        assert!(lines.iter().any(|line| line.contains("can't fork")), "{lines:?}");
    });
}

#[test]
fn what_an_image_calls_its_volume_is_no_way_to_the_disk() {
    with_both(|place| {
        let script = "grep -q ' /data tmpfs ' /proc/mounts";
        let wanted = json!({"image": "localhost/volumes", "command": ["/bin/sh", "-c", script]});
        let body = place.run(&job("volumes", wanted), &[]);
        match place.engine {
            "podman" => assert_eq!(body["status"], "completed", "{body}"),
            _ => assert!(body["error"].as_str().unwrap().contains("has volumes"), "{body}"),
        }
    });
}

#[test]
fn its_share_of_the_processors_is_limited() {
    with_both(|place| {
        let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu.max 2>/dev/null | tr ' ' '\\n'";
        let lines = said(place, "cpus", &json!({"cpus": 0.5}), script);
        assert_eq!(lines, ["50000", "100000"], "{}", place.engine);
    });
}

#[test]
fn a_job_that_takes_more_memory_than_it_may_is_killed_and_told_why() {
    with_both(|place| {
        let hog = with(shell("hog", "tail /dev/zero"), json!({"memoryGb": 0.0625}));
        let body = place.run(&hog, &[]);
        assert_eq!(body["error"], "killed: memory limit of 64 MiB", "{}: {body}", place.engine);
        assert_eq!(
            (&body["errorDetails"]["reason"], &body["errorDetails"]["blame"]),
            (&json!("out_of_memory"), &json!("job"))
        );
    });
}
