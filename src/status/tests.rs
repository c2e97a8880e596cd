//! What is answered to whom, and that nothing of what jobs say becomes part of the page.

use super::*;
use crate::snapshot::{Gpu, GpuUse, Machine, RunningJob, Usage};

pub(super) fn snapshot() -> Snapshot {
    serde_json::from_value(serde_json::json!({
        "format": 1, "version": "1.2.3", "pid": 7, "workerId": "w-1", "name": "Desk <1>",
        "backend": "https://market.example", "pricePerHour": 2.5,
        "started": "2026-01-15T10:00:00.000Z", "at": "2026-01-15T10:30:00.250Z",
        "state": "busy", "registered": true, "lastHeartbeat": "2026-01-15T10:29:58Z",
        "heartbeatIntervalSeconds": 30.0, "slots": 1, "waitingResults": 2, "jobs": [],
        "sinceStart": {"completed": 3, "failed": 1, "declined": 0, "cancelled": 0,
                       "heartbeats": 60, "heartbeatsFailed": 4, "registrations": 1},
        "machine": {"hostname": "desk", "os": "Debian", "cpuModel": "Abacus", "cpuCores": 4,
                    "ramTotalGb": 16.0, "gpus": []},
    }))
    .unwrap()
}

pub(super) fn with_gpu() -> Snapshot {
    let gpu = Gpu {
        uuid: Some("GPU-1".into()),
        name: Some("RTX \"3090\"".into()),
        driver: Some("580".into()),
        ..Gpu::default()
    };
    let gpu_use = GpuUse {
        percent: Some(97.0),
        temp_celsius: Some(66.0),
        power_watts: Some(341.5),
        memory_used_mb: Some(1024),
        energy_joules: Some(12.5),
        ..GpuUse::default()
    };
    let usage = Usage {
        cpu_percent: Some(12.5),
        ram_percent: 25.0,
        ram_used_gb: 4.0,
        disk_free_gb: Some(100.0),
        gpus: vec![gpu_use],
        ..Usage::default()
    };
    let machine = Machine { gpus: vec![gpu], ..snapshot().machine };
    Snapshot { machine, usage: Some(usage), ..snapshot() }
}

fn with_job() -> Snapshot {
    let job = RunningJob {
        key: "k".into(),
        id: "job-1".into(),
        kind: "compute".into(),
        attempt: 2,
        since: "2026-01-15T10:27:00Z".into(),
        percent: 42,
        operation: "<img src=x>".into(),
        energy_kwh: Some(0.0015),
    };
    Snapshot { jobs: vec![job], ..with_gpu() }
}

/// What a worker in this state, listening there, answers to a request.
fn answer_as(snapshot: Snapshot, bound: &str, method: &str, path: &str, host: &str) -> Response {
    let books = Arc::new(Books {
        recent: vec![Ended { id: "job-0".into(), status: "completed".into(), ..Ended::default() }],
        days: vec![Day { date: "2026-01-15".into(), jobs: 1, amount: 1.5, kwh: 0.25 }],
        tallies: vec![],
    });
    let sources = Sources {
        snapshot: &|| snapshot.clone(),
        log_tail: &|_| vec!["first".into(), "</pre><script>alert(1)</script>".into()],
        books: &|| Arc::clone(&books),
        idle: &|| Duration::from_secs(5),
    };
    let history = History::default();
    let desk = Desk { bound: bound.parse().unwrap(), sources: &sources, history: &history };
    desk.answer(&Request {
        method: method.into(),
        path: path.into(),
        headers: vec![("Host".into(), host.into())],
        body: vec![],
    })
}

fn get(snapshot: Snapshot, path: &str) -> (u16, String) {
    let response = answer_as(snapshot, "127.0.0.1:9200", "GET", path, "127.0.0.1:9200");
    (response.status, String::from_utf8(response.body).unwrap())
}

#[test]
fn every_route_answers_in_its_form() {
    for (path, status, form) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/page.css", 200, "text/css; charset=utf-8"),
        ("/page.js", 200, "text/javascript; charset=utf-8"),
        ("/icon.svg", 200, "image/svg+xml"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/status.json", 200, "application/json"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/readyz", 200, "text/plain; charset=utf-8"),
        ("/favicon.ico", 404, "text/plain; charset=utf-8"),
        ("/../etc/passwd", 404, "text/plain; charset=utf-8"),
    ] {
        let response = answer_as(snapshot(), "127.0.0.1:1", "GET", path, "localhost:1");
        assert_eq!((response.status, response.content_type), (status, form), "{path}");
        let named: Vec<_> = response.headers.iter().map(|(name, _)| *name).collect();
        for wanted in ["Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"] {
            assert!(named.contains(&wanted), "{path} lacks {wanted}");
        }
    }
}

#[test]
fn nothing_can_be_changed() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "TRACE"] {
        let response = answer_as(snapshot(), "127.0.0.1:1", method, "/", "localhost");
        assert_eq!(response.status, 405, "{method}");
        assert!(response.headers.contains(&("Allow", "GET, HEAD".to_owned())));
    }
}

#[test]
fn a_name_that_somebody_else_can_make_lead_here_gets_nothing() {
    let status = |bound, host| answer_as(snapshot(), bound, "GET", "/", host).status;
    let (local, lan, any) = ("127.0.0.1:9200", "192.168.1.20:9200", "0.0.0.0:9200");
    for (bound, host, wanted) in [
        (local, "127.0.0.1:9200", 200),
        (local, "localhost:9200", 200),
        (local, "LOCALHOST", 200),
        (local, "[::1]:9200", 200),
        (local, "evil.example:9200", 421),
        (local, "127.0.0.1.evil.example", 421),
        (local, "localhost.evil.example:9200", 421),
        (local, "", 421),
        (local, "10.0.0.7:9200", 421),
        // A page of the loopback is not known by the machine's name.
        (local, "desk:9200", 421),
        (lan, "192.168.1.20:9200", 200),
        (lan, "desk:9200", 200),
        (lan, "Desk", 200),
        (lan, "desk.evil.example", 421),
        (lan, "192.168.1.21", 421),
        (any, "10.0.0.7:9200", 200),
        (any, "evil.example", 421),
    ] {
        assert_eq!(status(bound, host), wanted, "{bound} asked as {host:?}");
    }
    assert!(!is_our_name(None, local.parse().unwrap(), String::new));
}

#[test]
fn the_status_is_the_snapshot_itself() {
    let (_, json) = get(with_job(), "/status.json");
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), with_job());
}

#[test]
fn health_is_of_the_loop() {
    assert_eq!(health(Duration::from_secs(59)).status, 200);
    let stuck = health(Duration::from_secs(61));
    assert_eq!(stuck.status, 503);
    assert_eq!(stuck.body, b"the agent's loop has not turned for 61 s\n");
}

#[test]
fn it_is_ready_when_registered_and_not_paused() {
    let of = |state, registered, why: Option<&str>| {
        get(Snapshot { state, registered, why: why.map(Into::into), ..snapshot() }, "/readyz")
    };
    let refused = |why: &str| (503, format!("{why}\n"));
    assert_eq!(of(State::Online, true, None), (200, "ready\n".into()));
    assert_eq!(of(State::Busy, true, None), (200, "ready\n".into()));
    let why = Some("the backend refuses: 503");
    assert_eq!(
        of(State::Starting, false, why),
        refused("not registered: the backend refuses: 503")
    );
    assert_eq!(of(State::Paused, true, Some("by hand")), refused("paused: by hand"));
    assert_eq!(of(State::Stopping, true, None), refused("stopping"));
}

#[test]
fn what_jobs_and_owners_say_is_text_and_nothing_else() {
    let (_, page) = get(with_job(), "/");
    for shown in [
        "Desk &lt;1&gt;",
        "RTX &quot;3090&quot;",
        "&lt;img src=x&gt;",
        "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    // The one that renews the page.
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("<img src=x") && !page.contains("style="), "{page}");
}

#[test]
fn each_number_of_the_page_stands_in_the_status_where_it_says() {
    let (_, page) = get(with_job(), "/");
    let status = serde_json::to_value(with_job()).unwrap();
    let numbers = page.split("<data value=\"").skip(1).map(|rest| {
        let (value, rest) = rest.split_once("\" data-json=\"").unwrap();
        (value, rest.split_once('"').unwrap().0)
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.len() >= 15, "{numbers:?}");
    for (value, path) in numbers {
        let there = status.pointer(path).unwrap_or_else(|| panic!("{path} is not in the status"));
        assert_eq!(value.parse::<f64>().unwrap(), there.as_f64().unwrap(), "{path}");
    }
}

#[test]
fn a_machine_without_a_gpu_says_why() {
    let mut alone = snapshot();
    alone.machine.gpu_absence = Some("no NVIDIA driver".into());
    assert!(get(alone, "/").1.contains("no NVIDIA driver"));
    assert!(get(snapshot(), "/").1.contains("This machine has no GPU."));
}
