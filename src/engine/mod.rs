//! The embedded compute, run in a child process of this same binary: work that needs nothing
//! installed, and whose result anyone can check by running the same thing again.
//!
//! Nothing here reads a file, the environment or the clock of the wall, and nothing can be
//! cancelled: whoever wants it to stop ends the process.

mod answer;
mod compute;
mod data;
mod gemm;
mod imprint;
mod matmul;
mod model;
mod net;
mod primes;
mod sha256;
mod speed;
mod split;
mod splitmix;
mod tile;
mod train;
mod vector;

pub(crate) use answer::{Answer, answer};
pub(crate) use compute::{Computed, run};
pub(crate) use data::embedded::{ATTRIBUTION, NAMES as DATASETS, embedded};
pub(crate) use data::rows::rows;
pub(crate) use data::{Dataset, Error as DataError, Input, read, read_pair};
pub(crate) use model::{Limits as ModelLimits, Model, from_bytes, to_bytes};
pub(crate) use speed::{Sustained, measure};
pub(crate) use train::{Epoch, Learned, Lesson, Start, train};

use crate::text;

/// How far a piece of work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// 0 to 100, never going back; 100 once, at the end.
    pub(crate) percent: u8,
    /// Such as `matmul 1200/3726`.
    pub(crate) operation: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The check of a product against its factors failed.
    #[error("product {0} failed its check: this machine's memory or processor gives wrong results")]
    WrongProduct(u64),
    /// A dataset whose classes have one row each.
    #[error("no class has two rows, so that none could be kept for the test: give more rows")]
    NothingToTest,
    #[error(
        "learning diverged in epoch {epoch}: the loss is no number any more; \
         a learningRate below {rate} would help"
    )]
    Diverged { epoch: u32, rate: f64 },
    #[error("the model takes {model} numbers a row, and the data has {data}")]
    Inputs { model: usize, data: usize },
    #[error(
        "the data has the model's columns in another order, `{data}` where the model has `{model}`: \
         put them into the model's order"
    )]
    Order { model: String, data: String },
    #[error("row {row}: its numbers are too large for this model, which would answer nonsense")]
    Overflow { row: usize },
    #[error("freeze is {frozen}, but the model has {layers} layers and the last one has to learn")]
    Frozen { frozen: usize, layers: usize },
    #[error(
        "this network with its data needs about {}, this job may use {}: \
         take fewer rows or narrower layers", text::size(*.needs), text::size(*.allowed)
    )]
    TooLarge { needs: u64, allowed: u64 },
    #[error("cannot start threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The system has no room for another thread.
    #[error("cannot start thread {name}")]
    Thread { name: String, source: std::io::Error },
}
