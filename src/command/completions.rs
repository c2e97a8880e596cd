//! `worker completions`: what a shell needs to complete the command line.

use std::io::{self, Write as _};

use clap::ArgMatches;
use clap_complete::{Shell, generate};

use crate::cli;
use crate::exit::Exit;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let shell = match args.get_one::<String>("shell").map(String::as_str) {
        Some("fish") => Shell::Fish,
        Some("zsh") => Shell::Zsh,
        // The third of those that the command line takes.
        _ => Shell::Bash,
    };
    let mut script = vec![];
    generate(shell, &mut cli::shown(), "worker", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Stopped)
}
