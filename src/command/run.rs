//! `worker [run]`: works for a backend.

use clap::ArgMatches;

use crate::config::Config;
use crate::exit::Exit;
use crate::{agent, logging};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let config = Config::from_args(args)?;
    logging::start(config.log);
    Ok(agent::run(config, &|| Config::from_args(args))?)
}
