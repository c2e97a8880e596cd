//! `reuse/<name>.json`: results that a later job of the same content may be answered from.
//!
//! Losing one costs nothing but the work of computing it again, so what does not read back is as good as
//! none.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Store;
use super::file::{FileError, read_up_to, replace};
use super::quarantine::thin_out;
use crate::work::Object;

const FORMAT: u64 = 1;
/// More than any of them has.
const MAX_BYTES: u64 = 64 << 20;

const KEEP_FILES: usize = 1000;
const KEEP_BYTES: u64 = 256 << 20;

/// What a job gave, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reusable {
    format: u64,
    pub(crate) result: Object,
    pub(crate) metrics: Object,
}

impl Store {
    /// Keeps a result under the digest of what it was computed from.
    pub(crate) fn keep_reusable(
        &self,
        name: &str,
        result: Object,
        metrics: Object,
    ) -> Result<(), FileError> {
        let path = self.reuse_path(name);
        let reusable = Reusable { format: FORMAT, result, metrics };
        let text = serde_json::to_vec(&reusable)
            .map_err(|error| FileError::new("write", &path, error.into()))?;
        let dir = self.dir.join("reuse");
        super::make_dir(&dir)?;
        replace(&path, &text)?;
        thin_out(&dir, KEEP_FILES, KEEP_BYTES);
        Ok(())
    }

    pub(crate) fn reusable(&self, name: &str) -> Option<Reusable> {
        let text = read_up_to(&self.reuse_path(name), MAX_BYTES).ok()?;
        let found: Reusable = serde_json::from_slice(&text).ok()?;
        (found.format == FORMAT).then_some(found)
    }

    fn reuse_path(&self, name: &str) -> PathBuf {
        self.dir.join("reuse").join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_result_is_found_by_its_name_until_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.reusable("abc"), None);
        let result = serde_json::json!({"modelUrl": "ipfs://x"}).as_object().unwrap().clone();
        store.keep_reusable("abc", result.clone(), Object::new()).unwrap();
        assert_eq!(store.reusable("abc").unwrap().result, result);
        let path = dir.path().join("reuse/abc.json");
        let text = fs::read(&path).unwrap();
        for length in 0..text.len() {
            replace(&path, &text[..length]).unwrap();
            assert_eq!(store.reusable("abc"), None, "cut at {length}");
        }
    }
}
