//! A GPU driver's library that answers what a test scripts; `tests/nvml` says how.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use scripted_nvml::{Script, VARIABLE};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::{Home, Program};

/// The library and its script, in a folder of their own.
pub(crate) struct Driver {
    folder: TempDir,
}

impl Driver {
    /// A driver that is not there yet, but will answer so.
    pub(crate) fn missing(script: &Value) -> Self {
        let driver = Self { folder: tempfile::tempdir().unwrap() };
        driver.set(script);
        driver
    }

    pub(crate) fn new(script: &Value) -> Self {
        let driver = Self::missing(script);
        driver.install();
        driver
    }

    /// A driver so old that it does not have this function.
    pub(crate) fn without(function: &str, script: &Value) -> Self {
        let driver = Self::missing(script);
        let library = without(fs::read(built()).unwrap(), function);
        driver.replace("libnvidia-ml.so.1", &library);
        driver
    }

    pub(crate) fn install(&self) {
        std::os::unix::fs::symlink(built(), self.library()).unwrap();
    }

    /// Answers so from now on, also to workers that run.
    pub(crate) fn set(&self, script: &Value) {
        let script = script.to_string();
        Script::parse(&script).expect("a script has no field that the library does not know");
        self.replace("script.json", script.as_bytes());
    }

    /// Lets every function fail as it does without the kernel's part of the driver.
    pub(crate) fn unload(&self) {
        fs::remove_file(self.path("script.json")).unwrap();
    }

    pub(crate) fn library(&self) -> String {
        self.path("libnvidia-ml.so.1").to_str().unwrap().to_owned()
    }

    /// Starts `worker run` as [`Home::worker`] does, with this driver.
    pub(crate) fn worker(&self, home: &Home, url: &str, more: &[&str]) -> Program {
        let (library, script) = (self.library(), self.path("script.json"));
        let more = [&["--nvml-library", &library], more].concat();
        home.worker_with(url, &more, &[(VARIABLE, script.to_str().unwrap())])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// At once: a worker that looks meanwhile finds all of it, or nothing new.
    fn replace(&self, name: &str, content: &[u8]) {
        let mut file = NamedTempFile::new_in(self.folder.path()).unwrap();
        file.write_all(content).unwrap();
        file.persist(self.path(name)).unwrap();
    }
}

/// Where cargo puts the shared library of a package that these tests depend on.
fn built() -> PathBuf {
    let worker = Path::new(env!("CARGO_BIN_EXE_worker"));
    let library = worker.with_file_name("deps").join("libscripted_nvml.so");
    assert!(library.exists(), "{} is missing: cargo build -p scripted-nvml", library.display());
    library
}

/// The library, with the function's name made another wherever it stands.
fn without(mut library: Vec<u8>, function: &str) -> Vec<u8> {
    let name = format!("\0{function}\0");
    let places = library.windows(name.len()).enumerate();
    let places = places.filter(|(_, bytes)| *bytes == name.as_bytes()).map(|(at, _)| at);
    let places: Vec<usize> = places.collect();
    assert!(!places.is_empty(), "the library has no {function}");
    for at in places {
        library[at + 1] = b'_';
    }
    library
}
