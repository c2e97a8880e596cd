//! A state directory that another user owns, fills with links, or can enter; and what root gives away in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use rustix::process::geteuid;
use serde_json::json;

use crate::support::{Backend, Home, USER, run};

/// Starts a worker that has to refuse its state directory, and returns what it says.
fn refused(state: &str, what: &str) -> String {
    let (code, _, log) = run(&["run", "--backend", "http://127.0.0.1:9", "--state-dir", state]);
    assert_eq!(code, 4, "{what}: {log}");
    log
}

#[test]
fn a_link_in_it_is_refused_and_nothing_is_written_where_it_leads() {
    for name in [
        "lock",
        "reserve",
        "worker-id",
        "ledger.jsonl",
        "ledger.1.jsonl",
        "status.json",
        "speed.json",
        "pause.json",
        "jobs",
        "logs",
        "artefacts",
        "trash",
        "quarantine",
        "reuse",
        "jobs/0123456789abcdef0123456789abcdef",
        "logs/0123456789abcdef0123456789abcdef.log",
        "artefacts/x",
        "quarantine/x.json",
        "reuse/x.json",
    ] {
        for to_a_folder in [false, true] {
            let home = Home::unmeasured();
            fs::create_dir_all(home.path("folder")).unwrap();
            home.file("folder/file", "secret", 0o600);
            let planted = home.path(&format!("state/{name}"));
            fs::create_dir_all(std::path::Path::new(&planted).parent().unwrap()).unwrap();
            let target = home.path(if to_a_folder { "folder" } else { "folder/file" });
            symlink(target, &planted).unwrap();
            let said = refused(&home.path("state"), name);
            assert!(said.contains(&format!("{name} in it is a link: remove that")), "{said}");
            assert_eq!(fs::read_to_string(home.path("folder/file")).unwrap(), "secret");
            assert_eq!(fs::read_dir(home.path("folder")).unwrap().count(), 1, "{name}");
        }
    }
}

#[test]
fn another_users_is_refused_and_so_is_what_another_user_has_put_into_it() {
    if !geteuid().is_root() {
        // Nobody else can make a file another user's: root's own will do.
        assert!(refused("/root", "root's").contains("state directory /root "));
        return;
    }
    for (whose, said) in [
        ("state", "it belongs to the user 54321"),
        ("state/lock", "lock in it belongs to the user 54321"),
    ] {
        let home = Home::unmeasured();
        fs::create_dir(home.path("state")).unwrap();
        home.file("state/lock", "", 0o600);
        chown(home.path(whose), Some(USER), Some(USER)).unwrap();
        let log = refused(&home.path("state"), whose);
        assert!(log.contains(said) && log.contains("is not safe to use"), "{log}");
    }
}

#[test]
fn one_that_others_can_enter_is_closed_to_them() {
    let backend = Backend::start();
    for (start, mode) in [0o755, 0o777, 0o750, 0o701].into_iter().enumerate() {
        let home = Home::new();
        fs::set_permissions(home.path("state"), Permissions::from_mode(mode)).unwrap();
        let mut worker = home.worker(&backend.url(), &[]);
        backend.wait_for("POST /api/providers/register", start + 1);
        worker.kill();
        assert_eq!(worker.count(&format!("could be entered by others (mode {mode:04o})")), 1);
        let mode = fs::metadata(home.path("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}

#[test]
fn an_owners_own_link_to_it_is_followed() {
    let (home, backend) = (Home::new(), Backend::start());
    fs::create_dir(home.path("disk")).unwrap();
    fs::set_permissions(home.path("disk"), Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(home.path("state")).unwrap();
    symlink(home.path("disk"), home.path("state")).unwrap();
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/providers/register", 1);
    worker.kill();
    assert!(fs::exists(home.path("disk/worker-id")).unwrap());
}

#[test]
fn a_sandbox_is_tried_where_nobody_else_can_enter() {
    let (home, backend) = (Home::new(), Backend::start());
    // Where everybody may wait for what is given away.
    let env = [("TMPDIR", "/nowhere")];
    let _worker = home.worker_with(&backend.url(), &["--allow", "script"], &env);
    let registered = backend.wait_for("POST /api/providers/register", 1).body;
    assert_eq!(registered["specs"]["job_kinds"][4], json!("script"));
}
