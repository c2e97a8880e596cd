//! The hidden subcommand that limits itself and then becomes another program, a job's: no limits can
//! be set on a child between its fork and its program without `unsafe`.
//!
//! Like every program the agent starts it waits for one byte on stdin, and ends with the end of stdin;
//! so that the program need not.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use clap::ArgMatches;
use rustix::fs::{Mode, OFlags};

use crate::cli;
use crate::exit::Exit;
use crate::process::{Bounds, FILTER, STATUS, filter};
use crate::runner::STATUS_FILE;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let words: Vec<&OsString> = args.get_many(cli::BOUNDS).into_iter().flatten().collect();
    let [bounds, program @ ..] = words.as_slice() else {
        anyhow::bail!("this subcommand is for the agent's use");
    };
    let bounds: Bounds = bounds.to_string_lossy().parse().map_err(anyhow::Error::msg)?;
    bounds.apply().context("cannot set limits")?;
    if !let_go()? {
        return Ok(Exit::Stopped);
    }
    let mut line: Vec<OsString> = program.iter().copied().cloned().collect();
    // Open until the program is another.
    let _filter = line.iter_mut().find(|word| *word == FILTER).map(put_filter).transpose()?;
    let _status = line.iter_mut().find(|word| *word == STATUS).map(put_status).transpose()?;
    let (first, args) = line.split_first().context("no program is named")?;
    let error = Command::new(first).args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", first.display()))
}

/// Puts the number of a pipe, in which the filter of system calls is, into its place.
fn put_filter(place: &mut OsString) -> anyhow::Result<OwnedFd> {
    let filter = filter().context("there is no filter of system calls")?;
    // Unlike the standard library's it stays open in the program.
    let (reader, writer) = rustix::pipe::pipe().context("cannot make a pipe")?;
    // Far less than a pipe holds.
    File::from(writer).write_all(&filter).context("cannot hand over the filter")?;
    *place = reader.as_raw_fd().to_string().into();
    Ok(reader)
}

/// Puts the number of a new file of this folder, which the sandbox does not show, into its place.
fn put_status(place: &mut OsString) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    // Unlike the standard library's it stays open in the program.
    let file = rustix::fs::open(STATUS_FILE, flags, Mode::RUSR | Mode::WUSR);
    let file = file.context("cannot make the file for the sandbox's status")?;
    *place = file.as_raw_fd().to_string().into();
    Ok(file)
}

/// Reads the one byte and no more: what follows is the program's.
fn let_go() -> io::Result<bool> {
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok(stdin.read(&mut [0])? == 1)
}
