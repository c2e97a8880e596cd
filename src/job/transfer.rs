//! What the children are told that fetch a job's inputs and bring its outputs away, and what they answer.
//!
//! A charge is a file in the job's folder and no argument, since a URL may hold a secret; the child removes
//! it as soon as it is read, so that the job's program never finds it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::crash;
use crate::work::{Input, Output};

/// What is laid out at most, downloaded or unpacked, and in how many files.
const INPUT_BYTES: u64 = 10 << 30;
const UNPACKED_BYTES: u64 = 20 << 30;
const INPUT_FILES: u64 = 100_000;

/// What is taken from an output folder at most.
pub(crate) const OUTPUT_BYTES: u64 = 2 << 30;

/// Where the files of Hugging Face are.
const HUGGING_FACE: &str = "https://huggingface.co";

const CHARGE: &str = "charge.json";
const ANSWER: &str = "answer.json";

/// The longest answer: an entry a file.
const ANSWER_MAX: u64 = 8 << 20;

/// Whom the children may talk to, and whom they believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Whether loopback and private addresses will do.
    pub(crate) private: bool,
    pub(crate) ca_cert: Option<PathBuf>,
}

/// What the child for the inputs is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Supply {
    pub(crate) inputs: Vec<Input>,
    /// Where the script itself is, if it did not come with the job: see [`code_file`].
    pub(crate) code: Option<String>,
    pub(crate) network: Network,
    /// Where results of earlier jobs are.
    pub(crate) artefacts: PathBuf,
    pub(crate) hugging_face: String,
    pub(crate) bytes_max: u64,
    pub(crate) unpacked_max: u64,
    pub(crate) files_max: u64,
}

impl Supply {
    pub(crate) fn new(
        inputs: Vec<Input>,
        code: Option<String>,
        network: Network,
        artefacts: PathBuf,
    ) -> Self {
        Self {
            inputs,
            code,
            network,
            artefacts,
            hugging_face: crash::hugging_face().unwrap_or_else(|| HUGGING_FACE.into()),
            bytes_max: INPUT_BYTES,
            unpacked_max: UNPACKED_BYTES,
            files_max: INPUT_FILES,
        }
    }
}

/// What the child for the outputs is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removal {
    /// Without any, all files are to be kept.
    pub(crate) outputs: Vec<Output>,
    pub(crate) network: Network,
    pub(crate) bytes_max: u64,
}

impl Removal {
    pub(crate) fn new(outputs: Vec<Output>, network: Network) -> Self {
        Self { outputs, network, bytes_max: OUTPUT_BYTES }
    }
}

/// What came of an output folder.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Removed {
    pub(crate) artefacts: Vec<Artefact>,
    /// What was no file, and was left where it was.
    pub(crate) skipped: Vec<Skipped>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Artefact {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) cid: Cid,
    /// How many files are in it, where it is an archive of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) files: Option<usize>,
    /// Where there is none, it is in the folder for what is kept, under its address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) upload: Option<Uploaded>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    /// Without what may be a secret.
    pub(crate) url: String,
    /// What the server answered.
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// Where in a job's folder a script is put that did not come with the job.
pub(crate) fn code_file(work: &Path) -> PathBuf {
    work.join("code/script")
}

/// Where in a job's folder that is put which is to be kept.
pub(crate) fn kept_dir(work: &Path) -> PathBuf {
    work.join("kept")
}

/// Leaves the charge for the child.
pub(crate) fn charge(work: &Path, charge: &impl Serialize) -> Result<(), String> {
    leave(&work.join(CHARGE), charge)
}

/// Takes the charge, in the child.
pub(crate) fn take_charge<C: DeserializeOwned>(work: &Path) -> Result<C, String> {
    take(&work.join(CHARGE), u64::MAX)
}

/// Leaves the answer for the agent.
pub(crate) fn answer(work: &Path, removed: &Removed) -> Result<(), String> {
    leave(&work.join(ANSWER), removed)
}

/// Not synced: whoever takes it is there already, or the job is lost with all that is in its folder.
fn leave(path: &Path, what: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_vec(what).map_err(|error| error.to_string())?;
    let mut options = File::options();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    let left = made.and_then(|mut file| file.write_all(&text));
    left.map_err(|error| format!("cannot leave {}: {error}", path.display()))
}

/// Takes the answer, in the agent. There is none of a child that was not needed.
pub(crate) fn take_answer(work: &Path) -> Result<Removed, String> {
    let path = work.join(ANSWER);
    if path.exists() { take(&path, ANSWER_MAX) } else { Ok(Removed::default()) }
}

fn take<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T, String> {
    let told = |error: String| format!("cannot take {}: {error}", path.display());
    let size = fs::metadata(path).map_err(|error| told(error.to_string()))?.len();
    if size > most {
        return Err(told("it is too long".into()));
    }
    let text = fs::read(path).map_err(|error| told(error.to_string()))?;
    fs::remove_file(path).map_err(|error| told(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| told(error.to_string()))
}
