//! `speed.json`: `{"format":1,"speed":{…}}`, the last measured speed of the processor.
//!
//! It can be measured again at any time, so a file that does not read back is as good as none.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{FileError, read_small, replace};
use crate::reading::Speed;

const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u64,
    speed: T,
}

/// Writes it into the state directory, made where it is missing. Needs no lock. Returns its path.
pub(crate) fn write_speed(dir: &Path, speed: &Speed) -> Result<PathBuf, FileError> {
    super::make_dir(dir)?;
    let path = path(dir);
    let text = serde_json::to_vec(&File { format: FORMAT, speed })
        .map_err(|error| FileError::new("write", &path, error.into()))?;
    replace(&path, &text)?;
    Ok(path)
}

/// The speed kept in a state directory, if one is there and reads back.
pub(crate) fn read_speed(dir: &Path) -> Option<Speed> {
    let path = path(dir);
    let text = match read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log::debug!("cannot read {}: {error}", path.display());
            return None;
        }
    };
    match serde_json::from_slice(&text) {
        Ok(File { format: FORMAT, speed }) => {
            Some(speed).filter(|speed: &Speed| speed.measured.is_plausible())
        }
        Ok(File { format, .. }) => {
            log::debug!("{} has format {format}, not {FORMAT}", path.display());
            None
        }
        Err(error) => {
            log::debug!("{} is damaged: {error}", path.display());
            None
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("speed.json")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::reading::Measured;

    fn speed(gflops: f64) -> Speed {
        let vectors = "AVX2".into();
        let measured = Measured { gflops, cpu_share: 0.99, seconds: 3.0, threads: 2, vectors };
        Speed { measured, cpu_model: "Abacus".into(), cpu_cores: 2, method: 1 }
    }

    #[test]
    fn what_was_written_last_is_read_by_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("made/on/the/way");
        assert_eq!(read_speed(&dir), None);
        for gflops in [100.25, 200.5] {
            let path = write_speed(&dir, &speed(gflops)).unwrap();
            assert_eq!(read_speed(&dir), Some(speed(gflops)));
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_or_newer_file_is_none() {
        let home = tempfile::tempdir().unwrap();
        let path = write_speed(home.path(), &speed(1.0)).unwrap();
        let right = fs::read_to_string(&path).unwrap();
        let newer = right.replace("\"format\":1", "\"format\":2");
        assert_ne!(newer, right);
        let figure = |gflops| right.replace("\"gflops\":1.0", &format!("\"gflops\":{gflops}"));
        let figures = ["-1", "0", "1e308", "1e999", "null"].map(figure);
        assert!(figures.iter().all(|text| *text != right));
        let texts = [newer.as_str(), "", "null", &right[..right.len() / 2]];
        for text in texts.into_iter().chain(figures.iter().map(String::as_str)) {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read_speed(home.path()), None, "{text}");
        }
    }
}
