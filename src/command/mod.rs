//! The subcommands, one file each. The only place that prints to stdout.

use std::fs;
use std::io;
use std::path::Path;

use crate::config::{Place, Problems};
use crate::store::FileError;
use crate::text;

pub(crate) mod bench;
pub(crate) mod cid;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod earnings;
pub(crate) mod engine;
pub(crate) mod jobs;
mod learn;
pub(crate) mod licenses;
pub(crate) mod limit;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod mock_backend;
pub(crate) mod pause;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod specs;
pub(crate) mod status;
pub(crate) mod supply;
mod table;

/// Where the service of the .deb and of install.sh keeps its state.
const SERVICE_STATE: &str = "/var/lib/qubix-worker";

/// Whether the state directory can be looked into, or else what to do about it.
fn look_into(dir: &Path) -> Result<(), Problems> {
    let Err(error) = fs::read_dir(dir) else { return Ok(()) };
    let shown = dir.display();
    Err(Problems::of_one(match error.kind() {
        io::ErrorKind::NotFound if Path::new(SERVICE_STATE).exists() => format!(
            "no worker has run with the state directory {shown}; the service's is read with sudo and \
             --state-dir {SERVICE_STATE}"
        ),
        io::ErrorKind::NotFound => format!(
            "no worker has run with the state directory {shown}: name another one with --state-dir"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("the state directory {shown} is its owner's alone: put sudo before the command")
        }
        _ => format!("the state directory {shown} cannot be read: {error}"),
    }))
}

/// Where permission is missing, the same command with it.
fn with_sudo(error: FileError, command: &str, place: &Place) -> anyhow::Error {
    if error.is_for_want_of_permission() {
        let dir = place.state_dir.display();
        let fix = format!("try sudo worker {command} --state-dir {dir}");
        return anyhow::Error::new(error).context(fix);
    }
    error.into()
}

/// Whether nobody reads any more what we print, as after `| head`.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells a person why the program failed, cause by cause.
#[expect(clippy::print_stderr, reason = "the log may not have been started")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("worker: {}", text::shown_lines(&format!("{error:#}")));
}
