//! `worker [run]`: works for a backend.

use clap::ArgMatches;

use crate::config::{Config, Log};
use crate::exit::Exit;
use crate::{agent, logging};

pub(crate) fn run(args: &ArgMatches, log: Log) -> anyhow::Result<Exit> {
    let config = Config::from_args(args)?;
    logging::start(log.level, log.format, log.under_journal);
    Ok(agent::run(config)?)
}
