//! `worker [run]`: works for a backend.

use clap::ArgMatches;
use indicatif::MultiProgress;
use log::LevelFilter;

use crate::config::{Config, Format, Log};
use crate::exit::Exit;
use crate::{agent, logging};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let config = Config::from_args(args)?;
    let bars = bars(config.log);
    match &bars {
        Some(bars) => logging::start_above(bars.clone(), config.log),
        None => logging::start(config.log),
    }
    Ok(agent::run(config, &|| Config::from_args(args), bars.as_ref())?)
}

/// For a person who looks on, and for nobody else: on a terminal that can move its cursor.
fn bars(log: Log) -> Option<MultiProgress> {
    let is_for_people = log.format == Format::Text && log.level >= LevelFilter::Info;
    is_for_people.then(MultiProgress::new).filter(|bars| !bars.is_hidden())
}
