//! One job: from the text of an offer to an outcome.
//!
//! `parse` turns what the backend sent into a checked [`Job`](crate::work::Job) or a decline, `stage`
//! lays out what its program needs, `run` watches the program, `collect` takes its result.

mod collect;
mod output;
mod parse;
mod run;
mod stage;

pub(crate) use collect::{RESULT, collect, keep_artefacts};
pub(crate) use parse::{Offer, Terms, parse};
pub(crate) use run::{Limits, Run, Watch, final_metrics, metrics, watch};
pub(crate) use stage::{Charge, Missing, identity, read_charge, stage};
