//! What a job asks for, by kind, checked. The engine's child is told it as JSON.

use serde::{Deserialize, Serialize};

use crate::cid::Cid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Task {
    Training(Training),
    Inference(Inference),
    FineTuning(FineTuning),
    Compute(Compute),
    Script(Script),
    Container(Container),
}

impl Task {
    /// Where its program is, if it did not come with the job.
    pub(crate) fn code_url(&self) -> Option<&str> {
        match self {
            Self::Script(Script { code: Code::Url(url), .. }) => Some(url),
            _ => None,
        }
    }
}

/// Where bytes come from that a job needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// A dataset that is part of this program.
    Embedded(String),
    /// They came with the job.
    #[serde(skip)]
    Inline(Vec<u8>),
    /// A result of an earlier job, in this worker's store.
    #[serde(skip)]
    Artefact(Cid),
    Url {
        url: String,
        sha256: Option<String>,
    },
    /// A file in the job's input folder: what inline bytes and artefacts are staged as.
    File(String),
}

/// How a network learns, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Training {
    /// One file, or the two of IDX.
    pub(crate) dataset: Vec<Source>,
    /// The column of the label.
    pub(crate) label: Option<String>,
    pub(crate) epochs: u32,
    pub(crate) batch_size: usize,
    pub(crate) learning_rate: f64,
    /// Widths of the hidden layers.
    pub(crate) hidden: Vec<usize>,
    pub(crate) seed: u64,
    pub(crate) test_fraction: f64,
}

/// A training that begins with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FineTuning {
    pub(crate) base_model: Source,
    /// So many layers stay as they are.
    pub(crate) freeze: usize,
    /// Its `hidden` does not matter.
    pub(crate) training: Training,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inference {
    pub(crate) model: Source,
    /// Rows of numbers, as JSON or CSV.
    pub(crate) input: Source,
}

/// What a compute job computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kernel {
    Matmul,
    Sha256,
    Primes,
}

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::Matmul, Self::Sha256, Self::Primes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Matmul => "matmul",
            Self::Sha256 => "sha256",
            Self::Primes => "primes",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name() == name)
    }
}

/// A compute job: which kernel, on what, how much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compute {
    pub(crate) kernel: Kernel,
    pub(crate) seed: u64,
    /// 1.0 is 10¹² floating-point operations, 1 GiB, or the primes below 10⁹.
    pub(crate) amount: f64,
}

/// Somebody else's program, for an interpreter that the provider allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) code: Code,
    /// Its name on the provider's list.
    pub(crate) interpreter: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) share: Share,
}

/// Where a script's text is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Code {
    Text(String),
    Url(String),
}

/// Somebody else's image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) image: String,
    /// In place of the image's own, with the arguments behind it; the image's own if empty.
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) gpus: u32,
    pub(crate) share: Share,
    /// What else holds where a job is written as ComputeHorde writes it.
    pub(crate) horde: Option<Horde>,
}

/// ComputeHorde's own places in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Horde {
    /// `raw_script`: a Python program, put in at `/script.py`, and run where no command is given.
    pub(crate) script: Option<String>,
    /// `artifacts_dir`: an absolute path, where the output folder is seen too.
    pub(crate) artifacts: Option<String>,
}

/// The most that a job wants for itself; never more than the provider gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) cpus: Option<f64>,
}
