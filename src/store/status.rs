//! The last state, for `worker status`: what is lost with a crash is not worth a sync.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Deserialize;

use super::file::{FileError, TEMPORARY, read_small};
use crate::snapshot::{FORMAT, Snapshot};
use crate::text;

/// The file's name, in the state directory and in the one for everybody.
pub(crate) const STATUS: &str = "status.json";

/// Replaces the whole file: a reader finds the old one or the new one.
pub(crate) fn write_status(path: &Path, snapshot: &Snapshot, mode: u32) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let write = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        temporary.write_all(text::visible_json(&serde_json::to_string(snapshot)?).as_bytes())?;
        temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
        temporary.persist(path)?;
        Ok(())
    };
    write().map_err(|error| FileError::new("write", path, error))
}

/// The last state that an agent left, if one did. Needs no lock.
pub(crate) fn read_status(path: &Path) -> Result<Option<Snapshot>, FileError> {
    let text = match read_small(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new("read", path, error)),
    };
    parse(&text).map(Some).map_err(|problem| {
        FileError::new("use", path, io::Error::new(io::ErrorKind::InvalidData, problem))
    })
}

fn parse(text: &[u8]) -> Result<Snapshot, String> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format > FORMAT {
        let written = format!("a newer version of this program wrote it (format {format})");
        return Err(format!("{written}: use that one's `worker status`"));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
