//! The service: whether there is one, whether what it starts is there, and whether what runs is this version.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde::Deserialize;

use super::Check;
use crate::config::user_units;
use crate::process::Groups;
use crate::store::{STATUS, is_held, read_small};

const UNIT: &str = "qubix-worker.service";

/// What is looked for in `status.json`.
#[derive(Deserialize)]
struct Running {
    version: String,
    pid: u32,
}

pub(super) fn checks(state_dir: &Path, root: &Path) -> [Check; 2] {
    [unit(root), version(state_dir, env!("CARGO_PKG_VERSION"))]
}

/// The unit's text, and where it is.
fn installed(root: &Path) -> Option<(String, PathBuf)> {
    let system = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    let mut dirs = system.iter().map(|dir| root.join(dir)).chain(user_units());
    dirs.find_map(|dir| {
        let file = dir.join(UNIT);
        Some((fs::read_to_string(&file).ok()?, file))
    })
}

/// Whether control groups are handed to the service; to a worker that is started by hand, whether it could
/// make some where this process is.
pub(super) fn groups(root: &Path) -> Result<(), String> {
    let Some((text, file)) = installed(root) else { return Groups::look(root) };
    let is_users = user_units().is_some_and(|dir| file.starts_with(dir));
    handed_over(&text, is_users.then(|| geteuid().as_raw()), root)
        .map_err(|why| format!("{why} ({})", file.display()))
}

fn handed_over(unit: &str, user: Option<u32>, root: &Path) -> Result<(), String> {
    let groups = root.join("sys/fs/cgroup");
    if !groups.join("cgroup.controllers").exists() {
        return Err("control groups of version 1 cannot be handed to the service: boot with \
                    systemd.unified_cgroup_hierarchy=1"
            .to_owned());
    }
    let delegate = last(unit, "Delegate=").unwrap_or("no");
    if !matches!(delegate, "yes" | "true" | "on" | "1") && !delegate.contains("memory") {
        return Err(
            "no control group is handed to the service: add Delegate=yes to its [Service], then \
                    systemctl daemon-reload, and restart it"
                .to_owned(),
        );
    }
    let Some(user) = user else { return Ok(()) };
    let manager = format!("user.slice/user-{user}.slice/user@{user}.service/cgroup.controllers");
    let given = fs::read_to_string(groups.join(manager)).unwrap_or_default();
    let is_given = |name: &&str| given.split_whitespace().any(|given| given == *name);
    match ["memory", "pids"].into_iter().find(|name| !is_given(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "your systemd cannot limit {name}, which it was not given: sudo systemctl edit user@.service, add \
             [Service] and Delegate=cpu io memory pids, and log in again"
        )),
    }
}

fn unit(root: &Path) -> Check {
    let name = "unit";
    let Some((text, file)) = installed(root) else {
        return Check::ok(name, "none is installed: the worker is started by hand");
    };
    let shown = file.display();
    match started(&text) {
        Some(program) if program.is_absolute() && !root.join(strip(&program)).exists() => {
            Check::fail(
                name,
                format!("{shown} starts {}, which is not there", program.display()),
                "install the worker again (install.sh, or the package), or correct ExecStart= and systemctl daemon-reload",
            )
        }
        _ => Check::ok(name, shown.to_string()),
    }
}

fn strip(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The program of the last `ExecStart=`, without the signs that may stand before it.
fn started(unit: &str) -> Option<PathBuf> {
    let line = last(unit, "ExecStart=")?;
    let program = line.trim_start_matches(['@', '-', ':', '+', '!']).split_whitespace().next()?;
    Some(PathBuf::from(program))
}

/// The last value that the unit gives to a key.
fn last<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    unit.lines().filter_map(|line| line.trim().strip_prefix(key)).next_back().map(str::trim)
}

/// An agent goes on with the file that it was started from, whatever was installed since.
fn version(state_dir: &Path, ours: &str) -> Check {
    let name = "version";
    let status = read_small(&state_dir.join(STATUS)).ok();
    let running = status.and_then(|text| serde_json::from_slice::<Running>(&text).ok());
    // Not by its pid, which may be another program's by now.
    match running.filter(|_| is_held(state_dir).unwrap_or(false)) {
        Some(Running { version, pid }) if version != ours => Check::fail(
            name,
            format!(
                "the worker that runs (pid {pid}) is version {}, this is {ours}",
                crate::text::one_line(&version, 40)
            ),
            "systemctl restart qubix-worker, or stop that worker and start it again",
        ),
        Some(Running { pid, .. }) => Check::ok(name, format!("{ours}, as pid {pid} runs it")),
        None => Check::ok(name, format!("{ours}; no worker runs with this state directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Verdict;

    #[test]
    fn the_program_of_a_unit_is_the_last_one_that_it_names() {
        let unit = "[Service]\nExecStart=\nExecStart=-/usr/bin/worker run --slots 2\n";
        assert_eq!(started(unit), Some("/usr/bin/worker".into()));
        assert_eq!(started("[Unit]\n"), None);
    }

    #[test]
    fn whether_the_service_can_limit_scripts_is_told_by_its_unit_and_by_what_its_manager_was_given()
    {
        let root = tempfile::tempdir().unwrap();
        let told = |unit: &str, user| handed_over(unit, user, root.path()).unwrap_err();
        assert!(told("Delegate=yes", None).contains("version 1"));
        let groups = root.path().join("sys/fs/cgroup");
        let manager = groups.join("user.slice/user-7.slice/user@7.service");
        fs::create_dir_all(&manager).unwrap();
        let put =
            |path: PathBuf, text: &str| crate::store::replace(&path, text.as_bytes()).unwrap();
        put(groups.join("cgroup.controllers"), "cpu memory pids\n");
        for unit in ["[Service]", "Delegate=no", "Delegate=yes\nDelegate=no", "Delegate=pids"] {
            assert!(told(unit, None).contains("add Delegate=yes"), "{unit}");
        }
        for unit in ["Delegate=yes", "Delegate=cpu memory pids", " Delegate=true\n"] {
            assert_eq!(handed_over(unit, None, root.path()), Ok(()), "{unit}");
        }
        assert!(told("Delegate=yes", Some(7)).contains("cannot limit memory"));
        put(manager.join("cgroup.controllers"), "memory\n");
        assert!(told("Delegate=yes", Some(7)).contains("cannot limit pids"));
        put(manager.join("cgroup.controllers"), "memory pids\n");
        assert_eq!(handed_over("Delegate=yes", Some(7), root.path()), Ok(()));
    }

    #[test]
    fn a_worker_that_has_ended_is_of_no_version() {
        let root = tempfile::tempdir().unwrap();
        crate::store::replace(
            &root.path().join("status.json"),
            // Somebody has this pid.
            br#"{"version":"0.0.1","pid":1,"more":1}"#,
        )
        .unwrap();
        let check = || version(root.path(), "0.1.0");
        assert_eq!(
            check().verdict,
            Verdict::Ok("0.1.0; no worker runs with this state directory".into())
        );
        let lock = fs::File::create(root.path().join("lock")).unwrap();
        lock.lock().unwrap();
        assert!(matches!(check().verdict, Verdict::Fail { .. }));
    }
}
