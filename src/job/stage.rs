//! Lays out what a job's program needs before it starts: its inputs, in the work folder's `in`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cid::Cid;
use crate::text;
use crate::work::{FineTuning, Inference, Source, Task, Training, digest};

/// `in/task.json`: what the engine's child process is to do, and what it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) task: Task,
    /// In bytes.
    pub(crate) memory: u64,
    pub(crate) private_downloads: bool,
}

/// What a job names and this worker may not have.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Not in the store, or no longer.
    Artefact(String),
    /// By the fault of this machine.
    Failed(String),
}

/// Writes the job's inputs, and tells the program where they are. `artefact` finds one whose content was
/// checked.
pub(crate) fn stage(
    mut charge: Charge,
    input: &Path,
    write: impl Fn(&Path, &[u8]) -> Result<(), String>,
    artefact: impl Fn(&Cid) -> Option<PathBuf>,
) -> Result<(), Missing> {
    for (n, source) in sources(&mut charge.task).into_iter().enumerate() {
        let name = n.to_string();
        match source {
            Source::Inline(bytes) => {
                write(&input.join(&name), bytes).map_err(Missing::Failed)?;
            }
            Source::Artefact(cid) => lay_out(cid, artefact(cid), &input.join(&name))?,
            Source::Embedded(_) | Source::Url { .. } | Source::File(_) => continue,
        }
        *source = Source::File(name);
    }
    let text = serde_json::to_vec(&charge).map_err(|error| Missing::Failed(error.to_string()))?;
    write(&input.join("task.json"), &text).map_err(Missing::Failed)
}

/// A copy, so that nothing a program does to it changes what the store has.
fn lay_out(cid: &Cid, path: Option<PathBuf>, to: &Path) -> Result<(), Missing> {
    let Some(path) = path else {
        let error = format!("ipfs://{cid} is not among this worker's results: give a url");
        return Err(Missing::Artefact(error));
    };
    match fs::copy(&path, to) {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing::Failed(format!("cannot copy {}: {error}", path.display()))),
    }
}

/// All that a task reads.
fn sources(task: &mut Task) -> Vec<&mut Source> {
    fn of_training(training: &mut Training) -> impl Iterator<Item = &mut Source> {
        training.dataset.iter_mut()
    }
    match task {
        Task::Training(training) => of_training(training).collect(),
        Task::FineTuning(FineTuning { base_model, training, .. }) => {
            [base_model].into_iter().chain(of_training(training)).collect()
        }
        Task::Inference(Inference { model, input }) => vec![model, input],
        // What scripts and containers need is staged before them.
        Task::Compute(_) | Task::Script(_) | Task::Container(_) => vec![],
    }
}

/// A digest of all that a task's result depends on, or nothing where that is not known before: a URL may
/// give something else the next time.
pub(crate) fn identity(task: &Task) -> Option<String> {
    let mut task = task.clone();
    for source in sources(&mut task) {
        let name = match source {
            Source::Inline(bytes) => text::hex(&Sha256::digest(&*bytes)),
            Source::Artefact(cid) => cid.to_string(),
            Source::Url { sha256: Some(sha256), .. } => sha256.clone(),
            Source::Url { sha256: None, .. } => return None,
            Source::Embedded(_) | Source::File(_) => continue,
        };
        *source = Source::File(name);
    }
    let text = serde_json::to_string(&task).ok()?;
    Some(digest(&[env!("CARGO_PKG_VERSION"), &text]))
}

/// Reads the charge back, in the child.
pub(crate) fn read_charge(input: &Path) -> Result<Charge, String> {
    let path = input.join("task.json");
    let told = |error: String| format!("cannot read {}: {error}", path.display());
    let text = fs::read(&path).map_err(|error| told(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| told(error.to_string()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test writes as it likes")]
mod tests {
    use super::*;

    fn training(dataset: Source) -> Task {
        Task::Training(Training {
            dataset: vec![dataset],
            label: None,
            epochs: 10,
            batch_size: 64,
            learning_rate: 0.001,
            hidden: vec![128],
            seed: 0,
            test_fraction: 0.2,
        })
    }

    fn cid() -> Cid {
        "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4".parse().unwrap()
    }

    /// What is in the input folder afterwards, and what the child is told.
    fn staged(task: Task, artefact: Option<&Path>) -> Result<(Vec<String>, Charge), Missing> {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(|error| error.to_string());
        let found = |wanted: &Cid| artefact.filter(|_| *wanted == cid()).map(Path::to_owned);
        let charge = Charge { task, memory: 1, private_downloads: false };
        stage(charge, dir.path(), write, found)?;
        let files = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        Ok((names, read_charge(dir.path()).unwrap()))
    }

    #[test]
    fn what_came_with_the_job_becomes_files_and_the_child_is_told_their_names() {
        let (dir, input) = (tempfile::tempdir().unwrap(), Source::Inline(b"[1]".to_vec()));
        let kept = dir.path().join("kept");
        fs::write(&kept, b"model").unwrap();
        let ask = Task::Inference(Inference { model: Source::Artefact(cid()), input });
        let (files, charge) = staged(ask, Some(&kept)).unwrap();
        assert_eq!(files, ["0", "1", "task.json"]);
        let [model, input] = ["0", "1"].map(|name| Source::File(name.into()));
        assert_eq!(charge.task, Task::Inference(Inference { model, input }));
    }

    #[test]
    fn what_the_child_fetches_itself_is_told_as_it_is() {
        for source in [
            Source::Embedded("iris".into()),
            Source::Url { url: "http://a/b".into(), sha256: None },
        ] {
            let (files, charge) = staged(training(source.clone()), None).unwrap();
            assert_eq!((files.len(), charge.task), (1, training(source)));
        }
    }

    #[test]
    fn a_result_that_is_not_here_is_named_with_what_to_do() {
        let Err(Missing::Artefact(told)) = staged(training(Source::Artefact(cid())), None) else {
            panic!("it was staged")
        };
        let wanted = format!("ipfs://{} is not among this worker's results: give a url", cid());
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_same_task_has_the_same_identity_and_any_other_has_not() {
        let sha256 = text::hex(&Sha256::digest(b"a"));
        let url = |url: &str, sha256: Option<&String>| {
            training(Source::Url { url: url.into(), sha256: sha256.cloned() })
        };
        let inline = |bytes: &[u8]| training(Source::Inline(bytes.to_vec()));
        let a = identity(&inline(b"a"));
        assert!(a.is_some());
        assert_eq!(identity(&inline(b"a")), a);
        assert_eq!(identity(&url("http://x/a", Some(&sha256))), a, "its content is known");
        assert_eq!(identity(&url("http://x/a", None)), None, "it may change");
        let Task::Training(task) = inline(b"a") else { unreachable!("made so above") };
        let others = [
            inline(b"b"),
            training(Source::Embedded("iris".into())),
            training(Source::Artefact(cid())),
            Task::Training(Training { seed: 1, ..task.clone() }),
            Task::Training(Training { label: Some("x".into()), ..task.clone() }),
            Task::FineTuning(FineTuning {
                base_model: Source::Embedded("x".into()),
                freeze: 0,
                training: task,
            }),
        ];
        let mut known: Vec<_> = others.iter().map(identity).chain([a]).collect();
        known.sort();
        known.dedup();
        assert_eq!(known.len(), others.len() + 1);
        assert!(known.iter().all(Option::is_some));
    }
}
