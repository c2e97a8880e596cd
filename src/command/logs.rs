//! `worker logs`: what a job printed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;

use super::{jobs, look_into};
use crate::config::{Problems, state_dir_from_args};
use crate::exit::Exit;
use crate::store::log_file;
use crate::work::Key;
use crate::{logging, text};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (state_dir, log) = state_dir_from_args(args)?;
    logging::start(log);
    look_into(&state_dir)?;
    // There is one: the argument is required.
    let id = args.get_one::<String>("id").context("no job is named")?;
    let path = find(&state_dir, id)?;
    let mut out = io::stdout().lock();
    if args.get_flag("path") {
        writeln!(out, "{}", path.display())?;
        return Ok(Exit::Stopped);
    }
    print(&path, &mut out).with_context(|| format!("cannot show {}", path.display()))?;
    Ok(Exit::Stopped)
}

/// The same id may have come from several backends: the last one that is still kept.
fn find(state_dir: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let jobs = jobs::all(state_dir)?;
    let named: Vec<_> = jobs.iter().filter(|job| job.id == id).collect();
    let keys = named.iter().filter_map(|job| job.key.as_deref().and_then(Key::from_folder));
    if let Some(path) = keys.map(|key| log_file(state_dir, &key)).find(|path| path.exists()) {
        return Ok(path);
    }
    if !named.is_empty() {
        return Err(anyhow!(
            "the log of {id} is not kept: it printed nothing and never ran, or its log is gone; the newest 1000 \
             are kept for 7 days"
        ));
    }
    let near = text::nearest(id, jobs.iter().map(|job| job.id.as_str()));
    let meant = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let id = text::one_line(id, 100);
    Err(Problems::of_one(format!("no job {id} ran here: `worker jobs` lists them{meant}")).into())
}

/// Line by line, without what a terminal would obey.
fn print(path: &Path, out: &mut impl io::Write) -> io::Result<()> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        writeln!(out, "{}", text::clean(&String::from_utf8_lossy(&line?)))?;
    }
    Ok(())
}
