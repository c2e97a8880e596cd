//! The service: whether there is one, whether what it starts is there, and whether what runs is this version.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Check;
use crate::config::user_units;
use crate::store::{STATUS, is_held, read_small};

const UNIT: &str = "qubix-worker.service";

/// What is looked for in `status.json`.
#[derive(Deserialize)]
struct Running {
    version: String,
    pid: u32,
}

pub(super) fn checks(state_dir: &Path, root: &Path) -> [Check; 2] {
    let system = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    let system = system.iter().map(|dir| root.join(dir));
    [unit(system.chain(user_units()), root), version(state_dir, env!("CARGO_PKG_VERSION"))]
}

fn unit(mut dirs: impl Iterator<Item = PathBuf>, root: &Path) -> Check {
    let name = "unit";
    let found = dirs.find_map(|dir| {
        let file = dir.join(UNIT);
        Some((fs::read_to_string(&file).ok()?, file))
    });
    let Some((text, file)) = found else {
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
    let line =
        unit.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")).next_back()?;
    let program = line.trim_start_matches(['@', '-', ':', '+', '!']).split_whitespace().next()?;
    Some(PathBuf::from(program))
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
