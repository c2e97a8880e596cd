//! `worker specs`: prints what would be registered.

use std::io::{self, Write as _};

use clap::ArgMatches;

use crate::backend::wire::Register;
use crate::config::identity_from_args;
use crate::exit::Exit;
use crate::{agent, logging, machine};

/// The one look at the GPUs is all there is.
const ONCE: std::time::Duration = std::time::Duration::from_secs(3600);

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (identity, rules, log) = identity_from_args(args)?;
    logging::start(log);
    let facts = agent::facts(&identity, rules.slots, &machine::watch(ONCE))?;
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &Register::new(&facts))?;
    writeln!(stdout)?;
    Ok(Exit::Stopped)
}
