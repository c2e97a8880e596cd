//! `worker mock-backend`: a backend to try a worker against.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Problems, log_from_args, read_token};
use crate::exit::Exit;
use crate::logging;
use crate::mock::{Backend, Fault, Options, parse_lines};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let log = log_from_args(args)?;
    let path = |name| args.get_one::<PathBuf>(name);
    let token = path("token-file").map(|file| read_token(file)).transpose()?;
    let options = Options {
        heartbeat_interval: args.get_one::<Duration>("heartbeat-interval").copied(),
        token: token.map(|token| token.expose().to_owned()),
        faults: faults(args)?,
    };
    let jobs = path("jobs").map(read_jobs).transpose()?.unwrap_or_default();
    // There is always one: the argument has a default.
    let listen = args.get_one::<String>("listen").context("--listen is missing")?;
    let listen = address(listen)?;
    logging::start(log);
    // Before the first request, so that a signal from now on is a clean end.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let backend = Backend::start(listen, options)
        .map_err(|error| Problems::of_one(format!("cannot listen on {listen}: {error}")))?;
    for job in jobs {
        backend.submit(job).map_err(|problem| Problems::of_one(format!("--jobs: {problem}")))?;
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}", backend.url())?;
    stdout.flush()?;
    signals.forever().next();
    Ok(Exit::Stopped)
}

fn address(typed: &str) -> Result<SocketAddr, Problems> {
    let told = |what: String| Problems::of_one(format!("--listen: \"{typed}\" {what}"));
    let mut found = typed
        .to_socket_addrs()
        .map_err(|error| told(format!("is no address ({error}): write 127.0.0.1:3001")))?;
    found.next().ok_or_else(|| told("names no host that is known here".into()))
}

fn faults(args: &ArgMatches) -> Result<Vec<Fault>, Problems> {
    let bad = |error: crate::mock::BadFault| Problems::of_one(error.to_string());
    let mut faults = vec![];
    for spec in args.get_many::<String>("faults").unwrap_or_default() {
        faults.push(spec.parse().map_err(bad)?);
    }
    if let Some(file) = args.get_one::<PathBuf>("faults-file") {
        let text = read(file)?;
        faults.extend(parse_lines(&text).map_err(bad)?);
    }
    Ok(faults)
}

fn read_jobs(file: &PathBuf) -> Result<Vec<Value>, Problems> {
    serde_json::from_str(&read(file)?).map_err(|error| {
        Problems::of_one(format!("{}: not a JSON list of jobs: {error}", file.display()))
    })
}

fn read(file: &PathBuf) -> Result<String, Problems> {
    fs::read_to_string(file)
        .map_err(|error| Problems::of_one(format!("cannot read {}: {error}", file.display())))
}
