//! Takes a job's result: `result.json` in the work folder's `out`, or what it printed.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::transfer::Artefact;
use crate::beneath::Folder;
use crate::cid::Address;
use crate::text;
use crate::work::Object;

/// The largest result that is taken.
const RESULT_MAX: u64 = 8 << 20;

/// How deep it may be nested; a record puts it some levels deeper, and all readers have their limit.
const DEPTH_MAX: usize = 64;

/// What is read of it at once.
const PIECE: usize = 64 << 10;

/// The name of the file that a program renames its result to.
pub(crate) const RESULT: &str = "result.json";

/// A result that is larger, or takes more memory when it is read, is not read: it stays a file. A thousand
/// answers of the engine are read.
const TEXT_MAX: u64 = 256 << 10;
const MEMORY_MAX: u64 = 2 << 20;

/// A program's result, and the file that holds it, put into the store, where it is a large one.
pub(crate) type Collected = (Object, Option<Artefact>);

/// Reads the result. Without a file, what the program printed is it. A large one is put into the store by
/// `keep`.
pub(crate) fn collect(
    out: &Path,
    printed: Option<Object>,
    keep: impl Fn(&Path) -> Result<Address, String>,
) -> Result<Collected, String> {
    let told = |what: String| format!("the program's {RESULT} cannot be taken: {what}");
    // The program may have left anything under that name: a link to somebody else's file, a pipe.
    let result = match Folder::open(out).and_then(|out| out.read(Path::new(RESULT))) {
        Ok(file) => match small(&file).map_err(told)? {
            Some(result) => result,
            None => return large(&file, out, keep).map_err(told),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            printed.ok_or_else(|| "the program ended without a result".to_owned())?
        }
        Err(error) => return Err(told(error.to_string())),
    };
    match clean(Value::Object(result), DEPTH_MAX) {
        Some(Value::Object(result)) => Ok((result, None)),
        _ => Err(told(too_deep())),
    }
}

/// The result, if it is a small one.
fn small(file: &File) -> Result<Option<Object>, String> {
    let (mut text, mut shape) = (vec![], Shape::default());
    file.take(TEXT_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    shape.add(&text)?;
    if text.len() as u64 > TEXT_MAX || shape.memory > MEMORY_MAX {
        return Ok(None);
    }
    serde_json::from_slice(&text)
        .map(|given| Some(as_result(given)))
        .map_err(|error| no_json(&error))
}

/// Checks a large result and keeps a copy of it, piece by piece: the file is the program's.
fn large(
    mut file: &File,
    out: &Path,
    keep: impl Fn(&Path) -> Result<Address, String>,
) -> Result<Collected, String> {
    let io = |error: io::Error| error.to_string();
    let mut copy = tempfile::NamedTempFile::new_in(out.parent().unwrap_or(out)).map_err(io)?;
    let (mut piece, mut bytes, mut shape) = (vec![0; PIECE], 0, Shape::default());
    file.rewind().map_err(io)?;
    loop {
        let read = file.read(&mut piece).map_err(io)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes > RESULT_MAX {
            return Err("it is over 8 MiB".into());
        }
        shape.add(&piece[..read])?;
        copy.write_all(&piece[..read]).map_err(io)?;
    }
    copy.rewind().map_err(io)?;
    let reader = BufReader::with_capacity(PIECE, copy.as_file());
    serde_json::from_reader::<_, IgnoredAny>(reader).map_err(|error| no_json(&error))?;
    let Address { cid, sha256, bytes } = keep(copy.path())?;
    let path = RESULT.to_owned();
    Ok((Object::new(), Some(Artefact { path, bytes, sha256, cid, files: None, upload: None })))
}

fn no_json(error: &serde_json::Error) -> String {
    format!("it is not JSON ({error})")
}

fn too_deep() -> String {
    format!("it is nested more than {DEPTH_MAX} deep")
}

/// What a JSON text would take, as far as it was looked at.
#[derive(Debug, Default)]
struct Shape {
    in_text: bool,
    escaped: bool,
    depth: usize,
    /// Of the values that it would be read into, in bytes, rather too much than too little.
    memory: u64,
}

impl Shape {
    fn add(&mut self, text: &[u8]) -> Result<(), String> {
        self.memory += text.len() as u64;
        for byte in text {
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (_, b'"') => self.in_text = !self.in_text,
                (true, _) => {}
                (false, b'[' | b'{') => {
                    self.depth += 1;
                    // An object has room for eleven fields from the first on.
                    self.memory += if *byte == b'{' { 700 } else { 64 };
                    if self.depth > DEPTH_MAX {
                        return Err(too_deep());
                    }
                }
                (false, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
                (false, b',') => self.memory += 64,
                (false, b':') => self.memory += 128,
                (false, _) => {}
            }
        }
        Ok(())
    }
}

/// A result is an object; a text, a number or a list that a program gives for one is told under `value`.
pub(super) fn as_result(given: Value) -> Object {
    match given {
        Value::Object(result) => result,
        value => Object::from_iter([("value".to_owned(), value)]),
    }
}

/// How many files one result may name.
const ARTEFACTS_MAX: usize = 1000;

/// Puts the files that a result names as its `artefacts` into the store, by `keep`, and says in their
/// place what they are called there.
pub(crate) fn keep_artefacts(
    result: &mut Object,
    out: &Path,
    keep: impl Fn(&Path) -> Result<Address, String>,
) -> Result<(), String> {
    let Some(Value::Array(named)) = result.get_mut("artefacts") else { return Ok(()) };
    if named.len() > ARTEFACTS_MAX {
        return Err(format!("the result names more than {ARTEFACTS_MAX} files"));
    }
    for artefact in named {
        let path = artefact.get("path").and_then(Value::as_str).filter(|path| is_plain(path));
        let Some(path) = path else {
            let shown = text::one_line(&artefact.to_string(), 80);
            return Err(format!("the result names a file that is none: {shown}"));
        };
        let Address { cid, sha256, bytes } = keep(&out.join(path))?;
        *artefact = json!({
            "path": path, "bytes": bytes, "sha256": sha256, "cid": cid.to_string(),
        });
    }
    Ok(())
}

/// The name of a file right below the output folder.
fn is_plain(path: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !path.is_empty() && path.len() <= 128 && path.bytes().all(fit) && !path.starts_with('.')
}

/// Whether a program has left nothing but, perhaps, its result.
pub(crate) fn left_nothing(out: &Path) -> bool {
    Folder::open(out).and_then(|out| out.holds_at_most(RESULT)).unwrap_or(false)
}

/// The value without the NULs that a backend's database refuses, if it is not nested too deep.
fn clean(value: Value, depth: usize) -> Option<Value> {
    let without_nul =
        |text: String| if text.contains('\0') { text.replace('\0', "") } else { text };
    let depth = depth.checked_sub(1)?;
    Some(match value {
        Value::String(text) => Value::String(without_nul(text)),
        Value::Array(values) => {
            values.into_iter().map(|value| clean(value, depth)).collect::<Option<Vec<_>>>()?.into()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(key, value)| Some((without_nul(key), clean(value, depth)?)));
            fields.collect::<Option<Object>>()?.into()
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test plays the program, which may write as it likes"
)]
mod tests {
    use rustix::fs::Mode;

    use super::*;

    /// A result that is a small one.
    fn take(out: &Path, printed: Option<Object>) -> Result<Object, String> {
        let keep = |file: &Path| unreachable!("{} was kept", file.display());
        collect(out, printed, keep).map(|(result, _)| result)
    }

    #[test]
    fn a_result_file_is_taken_and_a_bad_one_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let taken = |text: &[u8]| {
            std::fs::write(dir.path().join(RESULT), text).unwrap();
            take(dir.path(), None).map(|object| object.len())
        };
        assert_eq!(taken(br#"{"a":1}"#), Ok(1));
        let problem = |text: &[u8]| taken(text).unwrap_err();
        assert!(problem(b"{").contains("it is not JSON (EOF while parsing an object"));
        assert!(problem(&vec![b' '; 9 << 20]).contains("it is over 8 MiB"));
        let deep = |n| [b"{\"a\":".as_slice(), &vec![b'['; n], &vec![b']'; n], b"}"].concat();
        assert!(problem(&deep(10_000)).contains("it is nested more than 64 deep"));
        assert!(problem(&deep(4 << 20)).contains("it is nested more than 64 deep"));
        assert!(problem(&deep(100)).contains("it is nested more than 64 deep"));
        assert_eq!(taken(&deep(60)), Ok(1));
    }

    #[test]
    fn a_result_that_would_take_much_memory_stays_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let large = |text: &str| {
            std::fs::write(out.join(RESULT), text).unwrap();
            collect(&out, None, |file| {
                let mut file = File::open(file).map_err(|error| error.to_string())?;
                crate::cid::address(&mut file, crate::cid::Version::V1)
                    .map_err(|error| error.to_string())
            })
        };
        for (what, text) in [
            ("a long text", format!("\"{}\"", "x".repeat(300 << 10))),
            ("zeros", format!("[{}0]", "0,".repeat(100 << 10))),
            ("empty objects", format!("[{}{{}}]", "{},".repeat(50 << 10))),
            ("short keys", format!("[{}0]", r#"{"a":1},"#.repeat(20 << 10))),
        ] {
            let (result, kept) = large(&text).unwrap();
            let kept = kept.unwrap_or_else(|| panic!("{what} was read"));
            assert_eq!((result.len(), kept.path.as_str()), (0, RESULT), "{what}");
            assert_eq!(kept.bytes, text.len() as u64, "{what}");
            // And nothing is left beside it.
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{what}");
        }
        let broken = large(&"[0,".repeat(20)).unwrap_err();
        assert!(broken.contains("it is not JSON"), "{broken}");
        let broken = large(&format!("[{}", "0,".repeat(300 << 10))).unwrap_err();
        assert!(broken.contains("it is not JSON"), "{broken}");
        let (_, kept) = large(&format!("\"{}\"", "[{,:\\\"".repeat(20 << 10))).unwrap();
        assert_eq!(kept, None, "what stands in a text is no value");
    }

    #[test]
    fn a_result_file_that_holds_no_object_is_told_under_value() {
        let dir = tempfile::tempdir().unwrap();
        for given in [json!([1, {"a": 2}]), json!("text"), json!(-1.5), json!(true), json!(null)] {
            std::fs::write(dir.path().join(RESULT), given.to_string()).unwrap();
            let told = take(dir.path(), None).map(Value::Object);
            assert_eq!(told, Ok(json!({"value": given})));
        }
    }

    #[test]
    fn nul_is_taken_out_of_every_text() {
        let dir = tempfile::tempdir().unwrap();
        let text = br#"{"a":["b\u0000c",{"d\u0000":1}]}"#;
        std::fs::write(dir.path().join(RESULT), text).unwrap();
        let clean = serde_json::json!({"a": ["bc", {"d": 1}]});
        assert_eq!(take(dir.path(), None).map(Value::Object), Ok(clean));
    }

    #[test]
    fn a_link_or_a_pipe_in_the_results_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESULT);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(take(dir.path(), None).unwrap_err().contains("cannot be taken"));
        std::fs::remove_file(&path).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(take(dir.path(), None).unwrap_err().contains("it is no file"));
    }

    #[test]
    fn the_files_that_a_result_names_are_kept_and_called_by_their_addresses() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.bin"), b"hello world\n").unwrap();
        let named = json!([{"path": "a.bin", "cid": "the program's own idea"}]);
        let mut result = Object::from_iter([("artefacts".to_owned(), named)]);
        keep_artefacts(&mut result, dir.path(), |path| {
            let mut file = File::open(path).map_err(|error| error.to_string())?;
            crate::cid::address(&mut file, crate::cid::Version::V1)
                .map_err(|error| error.to_string())
        })
        .unwrap();
        let cid = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
        let sha256 = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
        let kept = json!([{"path": "a.bin", "bytes": 12, "sha256": sha256, "cid": cid}]);
        assert_eq!(result["artefacts"], kept);
    }

    #[test]
    fn nothing_but_a_file_of_the_output_folder_can_be_named() {
        let refused = |artefacts: Value| {
            let mut result = Object::from_iter([("artefacts".to_owned(), artefacts)]);
            let keep = |path: &Path| -> Result<Address, String> {
                unreachable!("{} was kept", path.display())
            };
            keep_artefacts(&mut result, Path::new("/out"), keep).unwrap_err()
        };
        for path in
            ["", ".", "..", "../a", "/etc/passwd", "a/b", ".hidden", "a\0", "a b", &"a".repeat(129)]
        {
            let told = refused(json!([{"path": path}]));
            assert!(told.starts_with("the result names a file that is none: "), "{path}: {told}");
            assert!(told.len() < 200, "{told}");
        }
        for odd in [json!([1]), json!([{}]), json!([{"path": 1}])] {
            assert!(refused(odd).starts_with("the result names a file that is none: "));
        }
        let many = vec![json!({"path": "a"}); 1001];
        assert_eq!(refused(many.into()), "the result names more than 1000 files");
    }

    #[test]
    fn without_a_file_the_printed_result_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(dir.path(), Some(Object::new())), Ok(Object::new()));
        assert_eq!(take(dir.path(), None), Err("the program ended without a result".into()));
    }
}
