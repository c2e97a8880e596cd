//! The last state, for `worker status`: what is lost with a crash is not worth a sync.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::file::{FileError, TEMPORARY};
use crate::snapshot::Snapshot;

/// The file's name, in the state directory and in the one for everybody.
pub(crate) const STATUS: &str = "status.json";

/// Replaces the whole file: a reader finds the old one or the new one.
pub(crate) fn write_status(path: &Path, snapshot: &Snapshot, mode: u32) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        temporary.write_all(&serde_json::to_vec(snapshot)?)?;
        temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
        temporary.persist(path)?;
        Ok(())
    };
    write().map_err(|error| FileError::new("write", path, error))
}
