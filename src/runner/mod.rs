//! Where a job's program runs. Today: on this machine, as the engine in a child of this binary.

mod local;

pub(crate) use local::{all_marks, engine, speed};
