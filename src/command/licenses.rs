//! `worker --licenses`: under which terms this program and the data in it are given.

use std::io::{self, Write as _};

use crate::engine::ATTRIBUTION;
use crate::exit::Exit;

const OURS: &str = include_str!("../../LICENSE");

pub(crate) fn run() -> anyhow::Result<Exit> {
    write!(
        io::stdout(),
        "The datasets in this program:\n\n{ATTRIBUTION}\nThis program:\n\n{OURS}"
    )?;
    Ok(Exit::Stopped)
}
