//! From what is typed to what is settled, or to the problems with it.

use std::io::Write as _;

use super::*;
use crate::cli;

fn settle(args: &[&str]) -> Result<Config, String> {
    let typed = ["worker", "--state-dir", "/tmp/x"].iter().chain(args);
    let args = cli::command().try_get_matches_from(typed).map_err(|error| error.to_string())?;
    Config::from_args(&args).map_err(|problems| problems.to_string())
}

fn problem(args: &[&str]) -> String {
    settle(args).map(|_| ()).unwrap_err()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix("worker.toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn without_settings_the_documented_defaults_hold() {
    let config = settle(&[]).unwrap();
    assert_eq!(config.connection.backend, value::backend_url("http://127.0.0.1:3001").unwrap());
    assert_eq!(config.identity.price, 5.0);
    assert_eq!(config.identity.location, "Local Network");
    assert_eq!(config.rules.heartbeat_interval, Duration::from_secs(30));
    assert_eq!((config.rules.slots, config.rules.max_failures), (1, 5));
    assert_eq!(config.rules.min_free, 1 << 30);
    assert_eq!(config.artefacts.space, 10 << 30);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = file("backend = \"https://file.example\"\nslots = 3\nprice = 2.5\n");
    let config = settle(&["--config", file.path().to_str().unwrap(), "--slots", "2"]).unwrap();
    assert_eq!(config.connection.backend.base, "https://file.example");
    assert_eq!((config.rules.slots, config.identity.price), (2, 2.5));
}

#[test]
fn a_mistake_in_the_file_names_file_line_key_and_what_was_meant() {
    let file =
        file("backend = \"http://a\"\n\nheartbeat-intervall = \"30s\"\nslots = 0\nname = []\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(
        problem(&["--config", path]),
        format!(
            "{path}:3: heartbeat-intervall: there is no such key; did you mean heartbeat-interval?\n\
             {path}:5: name: takes a text, a number or a boolean, not array\n\
             {path}:4: slots: \"0\" is not between 1 and 1024; the nearest is 1"
        )
    );
}

#[test]
fn the_ipfs_node_is_a_table_of_the_file_or_a_flag() {
    let file = file("[ipfs]\napi = \"http://127.0.0.1:5001/\"\n");
    let path = file.path().to_str().unwrap();
    let base = |args: &[&str]| settle(args).unwrap().artefacts.ipfs_api.map(|api| api.base);
    assert_eq!(base(&[]), None);
    assert_eq!(base(&["--config", path]).as_deref(), Some("http://127.0.0.1:5001"));
    let flag = ["--config", path, "--ipfs-api", "http://b"];
    assert_eq!(base(&flag).as_deref(), Some("http://b"));
}

#[test]
fn a_mistake_in_the_table_names_its_key() {
    let file = file("[ipfs]\napi = \"http://me:secret@a\"\nap = 1\n[job]\nx = 1\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(
        problem(&["--config", path]),
        format!(
            "{path}:3: [ipfs] ap: there is no such key; did you mean ipfs-api?\n\
             {path}:4: job: there is no such key; `worker --help` lists them\n\
             {path}:2: [ipfs] api: \"http://…@a\" holds credentials, which would show in process \
             lists and logs: give the URL of an API that needs none"
        )
    );
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let file = file("slots = 1\nprice = = 3\n");
    let path = file.path().to_str().unwrap();
    let problem = problem(&["--backend", "http://a", "--config", path]);
    assert!(problem.starts_with(&format!("{path}:2: ")), "{problem}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let problem = problem(&["--slots", "x", "--price", "-1", "--heartbeat-interval", "1h"]);
    assert_eq!(
        problem.lines().collect::<Vec<_>>(),
        [
            "--price: \"-1\" is no price: write a number above 0, such as 2.5",
            "--heartbeat-interval: \"1h\" is not between 1s and 10m; the nearest is 10m",
            "--slots: \"x\" is no whole number (invalid digit found in string)",
        ]
    );
}

#[test]
fn a_size_is_a_whole_number_and_a_unit() {
    for (typed, bytes) in [
        ("0", 0),
        ("500MB", 500_000_000),
        ("1GiB", 1 << 30),
        ("2 kib", 2048),
        ("3TB", 3 * 10_u64.pow(12)),
    ] {
        assert_eq!(settle(&["--min-free", typed]).unwrap().rules.min_free, bytes, "{typed}");
    }
    for (typed, told) in [
        ("5", "--min-free: \"5\" has no unit: did you mean 5GiB?"),
        ("1.5GiB", "--min-free: \"1.5GiB\" is no size: write 500MB, 1GiB or 0"),
        ("9 elephants", "--min-free: \"9 elephants\" is no size: write 500MB, 1GiB or 0"),
        ("99999999TiB", "--min-free: \"99999999TiB\" is more than any disk holds"),
    ] {
        assert_eq!(problem(&["--min-free", typed]), told);
    }
    let problem = problem(&["--min-free", "GiB"]);
    assert!(problem.starts_with("--min-free: \"GiB\" is no size ("), "{problem}");
}

#[test]
fn a_backend_that_cannot_be_one_is_refused_with_the_fix() {
    for (typed, fix) in [
        ("market.example", "has no scheme: did you mean http://market.example?"),
        ("http://me:secret@a", "give --token-file"),
        ("ftp://a", "is not an http(s) URL"),
        ("http://", "is no URL"),
        ("http://a?x=1", "leave out everything from ? or # on"),
        ("me:secret@a", "did you mean http://a?"),
        ("http://a:99999", "names no port: it is a number from 1 to 65535"),
        ("http://a:0", "names no port"),
    ] {
        let problem = problem(&["--backend", typed]);
        assert!(problem.contains(fix), "{typed}: {problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[test]
fn one_backend_has_one_origin_however_it_is_written() {
    let origin = |typed| value::backend_url(typed).unwrap().origin;
    assert_eq!(origin("HTTP://Market.Example/"), "http://market.example:80");
    assert_eq!(origin("http://market.example:80"), "http://market.example:80");
    assert_eq!(origin("https://market.example/v1/"), "https://market.example:443/v1");
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = file("s3cret\n");
    assert_eq!(read_token(file.path()).unwrap().expose(), "s3cret");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let problem = read_token(file.path()).map(|_| ()).unwrap_err().to_string();
    assert!(problem.contains("mode 0644 lets others read it: chmod 600"), "{problem}");
}

#[test]
fn the_engines_kinds_are_always_run_and_others_where_they_are_allowed() {
    let kinds = |args: &[&str]| settle(args).unwrap().jobs.kinds;
    assert_eq!(kinds(&[]), Kind::ENGINE);
    assert_eq!(kinds(&["--allow", "script, container"]), Kind::ALL);
    assert!(
        problem(&["--allow", "compute"])
            .contains("is always allowed: name one or more of script, container")
    );
    assert!(problem(&["--allow", "gpt2"]).contains("is no kind that can be allowed"));
    assert!(problem(&["--interpreters", "python3,../sh"]).contains("is no program's name"));
}

#[test]
fn the_limits_are_a_table_of_the_file_or_flags() {
    let file = file("[limits]\nmemory = \"2GiB\"\ncpus = 3\ndisk = \"1GB\"\ntime = \"90m\"\n");
    let given = settle(&["--config", file.path().to_str().unwrap(), "--limit-cpus", "1"]).unwrap();
    let Limits { memory, cpus, disk, time } = given.jobs.limits;
    assert_eq!((memory, cpus), (Some(2 << 30), Some(1)));
    assert_eq!((disk, time), (1_000_000_000, Duration::from_secs(5400)));
}
