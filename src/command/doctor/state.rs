//! The state directory: whether it is there, ours, writable, with room, and of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::statvfs;

use super::Check;
use crate::config::{Config, Identity};
use crate::store::read_worker_id;
use crate::{machine, text};

/// A job needs some files, and each of its results one.
const INODES_MIN: u64 = 1000;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let dir = &config.identity.state_dir;
    let is_writable = writable(dir);
    let is_closed = matches!(is_writable.verdict, super::Verdict::Fail { .. });
    let mut checks = vec![is_writable];
    if !is_closed {
        checks.push(space(dir, config.rules.min_free));
        checks.push(worker_id(&config.identity, machine::read_machine_id().as_deref()));
    }
    checks
}

fn writable(dir: &Path) -> Check {
    let (name, shown) = ("state", dir.display());
    // The nearest that is there: the rest is made at the first start.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    let try_it = || -> io::Result<u32> {
        tempfile::Builder::new().prefix(".tmp").tempfile_in(there)?;
        Ok(fs::metadata(there)?.permissions().mode())
    };
    match try_it() {
        Ok(mode) if there == dir && mode & 0o077 != 0 => Check::warn(
            name,
            format!("{shown} can be entered by others (mode {:04o})", mode & 0o7777),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) if there == dir => Check::ok(name, shown.to_string()),
        Ok(_) => Check::ok(name, format!("{shown}, which is made at the first start")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::fail(
            name,
            format!("{} cannot be written by this user", there.display()),
            format!(
                "run this as the worker's user (sudo), chown {shown} to it, or give another --state-dir"
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Check::fail(
            name,
            format!("nothing can be written to {}: {error}", there.display()),
            "make room on that disk (df -h, df -i), or give another --state-dir",
        ),
        Err(error) => Check::fail(
            name,
            format!("nothing can be written to {}: {error}", there.display()),
            "give a directory on a disk that can be written as --state-dir",
        ),
    }
}

fn space(dir: &Path, min_free: u64) -> Check {
    let name = "space";
    let Some(disk) = machine::disk(dir) else { return Check::ok(name, "the disk does not tell") };
    let free = text::size(disk.free);
    if disk.free < min_free {
        return Check::fail(
            name,
            format!(
                "{free} are free, less than --min-free {}: no job is taken",
                text::size(min_free)
            ),
            "make room on that disk (df -h), or lower --min-free and --artefact-space",
        );
    }
    let there = dir.ancestors().find_map(|dir| statvfs(dir).ok());
    // Some file systems do not count them, and say 0.
    match there.filter(|told| told.f_files > 0 && told.f_favail < INODES_MIN) {
        Some(told) => Check::fail(
            name,
            format!("{free} are free, but only {} files can be made", told.f_favail),
            "remove files on that disk: df -i, du --inodes -x -d 2 /",
        ),
        None => Check::ok(name, format!("{free} of {} are free", text::size(disk.total))),
    }
}

/// An id is made from the machine's and the directory's. Two workers of one id take each other's jobs.
fn worker_id(identity: &Identity, machine_id: Option<&str>) -> Check {
    let name = "worker-id";
    if let Some(id) = &identity.worker_id {
        return Check::ok(name, format!("{id}, as --worker-id says"));
    }
    let dir = &identity.state_dir;
    let kept = match read_worker_id(dir) {
        Ok(Some(kept)) => kept,
        Ok(None) => return Check::ok(name, "made at the first start"),
        Err(error) => {
            let fix = format!("remove {}: it gets a new id", dir.join("worker-id").display());
            return Check::fail(name, error.to_string(), fix);
        }
    };
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    let Some(machine_id) = machine_id else {
        return Check::ok(name, format!("{kept}, by chance: this machine has no id"));
    };
    if kept == machine::worker_id(Some(machine_id), &dir, 0) {
        return Check::ok(name, kept);
    }
    Check::fail(
        name,
        format!(
            "the id {kept} was not made by this machine for this directory: it was copied or moved"
        ),
        format!(
            "rm {} if another machine works under that id; if none does, keep it: --worker-id {kept}",
            dir.join("worker-id").display()
        ),
    )
}
