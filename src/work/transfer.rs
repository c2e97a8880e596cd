//! What another's program is given and what is taken from it: files from elsewhere, files to elsewhere,
//! and how long each stage of its job may last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Stage;
use crate::cid::Cid;

/// What surrounds the run of another's program. Its times are those of the run too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) inputs: Vec<Input>,
    /// Without any, what the program leaves stays in the store.
    pub(crate) outputs: Vec<Output>,
    pub(crate) times: Times,
}

/// One thing to be laid out in the input folder before the program starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) origin: Origin,
    /// Below the input folder, checked; the folder itself is empty. Of an archive and of a repository it
    /// is the folder they are laid out in.
    pub(crate) path: String,
    /// In lower-case hexadecimal; of an archive, of the archive.
    pub(crate) sha256: Option<String>,
    pub(crate) unpack: Option<Archive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    Url(String),
    /// They came with the job, in base64 as they still are: a job's text is in memory once already.
    Inline(String),
    HuggingFace(Repository),
    /// A result of an earlier job, in this worker's store.
    Artefact(Cid),
}

/// Files of a repository on Hugging Face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub(crate) kind: RepositoryKind,
    /// `owner/name`, or a name alone.
    pub(crate) name: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
    /// Names, and patterns as of the shell where `*` goes on over `/`; all of its files if there are none.
    pub(crate) files: Vec<String>,
    /// The job's own, for what is not public.
    pub(crate) token: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RepositoryKind {
    Model,
    Dataset,
    Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Archive {
    Zip,
    Tar,
    TarGz,
}

impl Archive {
    pub(crate) const ALL: [Self; 3] = [Self::Zip, Self::Tar, Self::TarGz];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
        }
    }
}

/// What is to be taken from the output folder, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// A pattern below the output folder, checked: `*` within a name, `**` over folders.
    pub(crate) path: String,
    /// Paths that another output takes, of those that this one's pattern fits.
    pub(crate) except: Vec<String>,
    /// All of them in one archive.
    pub(crate) zip: bool,
    /// If not elsewhere, into the store.
    pub(crate) to: Option<Upload>,
}

/// One request that brings one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// The file is the body.
    Put,
    /// A form with these fields, and the file as its last.
    Post(Vec<(String, String)>),
}

/// How long each stage may last. What one leaves is available to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) inputs: Duration,
    pub(crate) run: Duration,
    pub(crate) outputs: Duration,
}

impl Times {
    pub(crate) fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Inputs => self.inputs,
            Stage::Run => self.run,
            Stage::Outputs => self.outputs,
        }
    }
}
