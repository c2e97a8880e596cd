//! Lays out what a job's program needs before it starts: its inputs, in the work folder's `in`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::work::{Compute, Job, Kernel, Task};

/// `in/task.json`: what the engine's child process is to compute.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProgramTask {
    kernel: String,
    seed: u64,
    amount: f64,
}

/// Writes the job's inputs.
pub(crate) fn stage(
    job: &Job,
    input: &Path,
    write: impl Fn(&Path, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    match &job.task {
        Task::Compute(Compute { kernel, seed, amount }) => {
            let task =
                ProgramTask { kernel: kernel.name().to_owned(), seed: *seed, amount: *amount };
            let text = serde_json::to_vec(&task).map_err(|error| error.to_string())?;
            write(&input.join("task.json"), &text)
        }
    }
}

/// Reads the task back, in the child.
pub(crate) fn read_task(input: &Path) -> Result<Compute, String> {
    let path = input.join("task.json");
    let told = |error: String| format!("cannot read {}: {error}", path.display());
    let text = std::fs::read(&path).map_err(|error| told(error.to_string()))?;
    let task: ProgramTask =
        serde_json::from_slice(&text).map_err(|error| told(error.to_string()))?;
    let kernel = Kernel::by_name(&task.kernel)
        .ok_or_else(|| told(format!("there is no kernel {}", task.kernel)))?;
    Ok(Compute { kernel, seed: task.seed, amount: task.amount })
}
