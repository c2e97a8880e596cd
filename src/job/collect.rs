//! Takes a job's result: `result.json` in the work folder's `out`, or what it printed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::work::Object;

/// The largest result that is taken.
const RESULT_MAX: u64 = 8 << 20;

/// The name of the file that a program renames its result to.
pub(crate) const RESULT: &str = "result.json";

/// Reads the result. Without a file, what the program printed is it.
pub(crate) fn collect(out: &Path, printed: Option<Object>) -> Result<Object, String> {
    let path = out.join(RESULT);
    let told = |what: String| format!("the program's {RESULT} cannot be taken: {what}");
    let mut text = vec![];
    match File::open(&path) {
        Ok(file) => file.take(RESULT_MAX + 1).read_to_end(&mut text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return printed.ok_or_else(|| "the program ended without a result".to_owned());
        }
        Err(error) => Err(error),
    }
    .map_err(|error| told(error.to_string()))?;
    if text.len() as u64 > RESULT_MAX {
        return Err(told("it is over 8 MiB".into()));
    }
    serde_json::from_slice(&text).map_err(|error| told(format!("it is no JSON object ({error})")))
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test plays the program, which may write as it likes"
)]
mod tests {
    use super::*;

    #[test]
    fn a_result_file_is_taken_and_a_bad_one_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let taken = |text: &[u8]| {
            std::fs::write(dir.path().join(RESULT), text).unwrap();
            collect(dir.path(), None).map(|object| object.len())
        };
        assert_eq!(taken(br#"{"a":1}"#), Ok(1));
        let problem = |text: &[u8]| taken(text).unwrap_err();
        assert!(problem(b"[]").contains("it is no JSON object"));
        assert!(problem(&vec![b' '; 9 << 20]).contains("it is over 8 MiB"));
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        assert!(problem(&deep).contains("it is no JSON object"));
    }

    #[test]
    fn without_a_file_the_printed_result_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(collect(dir.path(), Some(Object::new())), Ok(Object::new()));
        assert_eq!(collect(dir.path(), None), Err("the program ended without a result".into()));
    }
}
