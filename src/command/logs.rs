//! `worker logs`: what a job printed.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{jobs, look_into};
use crate::config::{Problems, state_dir_from_args};
use crate::exit::Exit;
use crate::store::{is_log_open, log_file, open_to_look};
use crate::work::Key;
use crate::{logging, text};

/// How often a log that is followed is looked at.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// More than any log has.
const LOG_MAX: u64 = 16 << 20;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (state_dir, log) = state_dir_from_args(args)?;
    logging::start(log);
    look_into(&state_dir)?;
    // There is one: the argument is required.
    let id = args.get_one::<String>("id").context("no job is named")?;
    let key = find(&state_dir, id)?;
    let path = log_file(&state_dir, &key);
    let mut out = io::stdout().lock();
    if args.get_flag("path") {
        writeln!(out, "{}", path.display())?;
        return Ok(Exit::Stopped);
    }
    let follows = args.get_flag("follow");
    print(&path, &mut out, || follows && is_log_open(&state_dir, &key))
        .with_context(|| format!("cannot show {}", path.display()))?;
    Ok(Exit::Stopped)
}

/// The same id may have come from several backends: the last one that is still kept.
fn find(state_dir: &Path, id: &str) -> anyhow::Result<Key> {
    let jobs = jobs::all(state_dir)?;
    let named: Vec<_> = jobs.iter().filter(|job| job.id == id).collect();
    let mut keys = named.iter().filter_map(|job| job.key.as_deref().and_then(Key::from_folder));
    if let Some(key) = keys.find(|key| log_file(state_dir, key).exists()) {
        return Ok(key);
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

/// Line by line, without what a terminal would obey; with what is added while the log is open.
fn print(path: &Path, out: &mut io::StdoutLock<'_>, is_open: impl Fn() -> bool) -> io::Result<()> {
    let (mut log, mut line) = (BufReader::new(open_to_look(path)?.take(LOG_MAX)), vec![]);
    loop {
        // Asked before it is read: what came before the end is not missed.
        let may_grow = is_open();
        while log.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            show(&mut line, out)?;
        }
        if !may_grow {
            return if line.is_empty() { Ok(()) } else { show(&mut line, out) };
        }
        let mut reader = [PollFd::new(out, PollFlags::empty())];
        let is_unread = poll(&mut reader, Some(&LOOK_EVERY)).is_ok_and(|gone| gone > 0);
        if is_unread {
            return Ok(());
        }
    }
}

fn show(line: &mut Vec<u8>, out: &mut io::StdoutLock<'_>) -> io::Result<()> {
    writeln!(out, "{}", text::shown(&String::from_utf8_lossy(line)))?;
    line.clear();
    Ok(())
}
