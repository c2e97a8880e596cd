//! One job: from the text of an offer to an outcome.
//!
//! `parse` turns what the backend sent into a checked [`Job`](crate::work::Job) or a decline, `stage`
//! lays out what its program needs, `run` watches the program, `collect` takes its result.

mod collect;
mod disk;
mod output;
mod parse;
mod run;
mod stage;
mod transfer;

pub(crate) use collect::{RESULT, collect, keep_artefacts, left_nothing};
pub(crate) use disk::{Disk, Room, held};
pub(crate) use parse::{Offer, Terms, parse};
pub(crate) use run::{Costs, Limits, Run, Span, Watch, final_metrics, metrics, watch};
pub(crate) use stage::{Charge, Missing, identity, read_charge, stage};
pub(crate) use transfer::{
    Artefact, Network, Removal, Removed, Skipped, Supply, Uploaded, answer, charge, code_file,
    kept_dir, take_answer, take_charge,
};
