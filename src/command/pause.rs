//! `worker pause` and `worker resume`: whether new jobs are taken is the owner's to say.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::anyhow;
use clap::ArgMatches;

use crate::config::{Place, place_from_args};
use crate::exit::Exit;
use crate::store::{self, FileError, OwnersPause, STATUS};
use crate::{clock, logging};

pub(crate) fn pause(args: &ArgMatches) -> anyhow::Result<Exit> {
    let place = place_from_args(args)?;
    logging::start(place.log);
    let now = clock::wall();
    let length = args.get_one::<Duration>("for");
    if length.is_some_and(|length| length.as_secs() == 0) {
        super::complain(&anyhow!("--for is less than a second: write 30m or 2h"));
        return Ok(Exit::Usage);
    }
    // What is too long to be reckoned with has no end.
    let until = length.and_then(|length| now.checked_add(*length));
    let reason = args.get_one::<String>("reason");
    let pause = OwnersPause::new(now, until, reason.map(String::as_str));
    if !place.state_dir.is_dir() {
        super::complain(&nowhere(&place, "pause"));
        return Ok(Exit::State);
    }
    store::write_pause(&place.state_dir, &pause).map_err(|error| explain(error, "pause"))?;
    let sooner = if until.is_some() { " sooner" } else { "" };
    let mut out = io::stdout();
    writeln!(out, "{}; `worker resume` ends it{sooner}", pause.words())?;
    if store::is_held(&place.state_dir)? {
        writeln!(out, "the agent that runs here takes no new jobs; what runs goes on")?;
    } else {
        writeln!(out, "no agent runs here now: the next one starts paused")?;
    }
    Ok(Exit::Stopped)
}

pub(crate) fn resume(args: &ArgMatches) -> anyhow::Result<Exit> {
    let place = place_from_args(args)?;
    logging::start(place.log);
    if !place.state_dir.is_dir() {
        super::complain(&nowhere(&place, "resume"));
        return Ok(Exit::State);
    }
    let ended = store::remove_pause(&place.state_dir).map_err(|error| explain(error, "resume"))?;
    let runs = store::is_held(&place.state_dir)?;
    let told = match (ended, runs) {
        (true, true) => "resumed: the agent that runs here takes jobs again",
        (true, false) => "resumed; no agent runs here now",
        (false, _) => "there was no pause to end",
    };
    writeln!(io::stdout(), "{told}")?;
    Ok(Exit::Stopped)
}

fn explain(error: FileError, command: &str) -> anyhow::Error {
    if error.is_for_want_of_permission() {
        let fix = format!("try sudo worker {command} --state-dir /var/lib/qubix-worker");
        return anyhow::Error::new(error).context(fix);
    }
    error.into()
}

/// Nobody works with this state directory.
fn nowhere(place: &Place, command: &str) -> anyhow::Error {
    let dir = place.state_dir.display();
    if !place.is_given && place.public_dir.join(STATUS).exists() {
        return anyhow!(
            "the agent of this machine is a service: sudo worker {command} --state-dir /var/lib/qubix-worker"
        );
    }
    anyhow!("no agent has ever run with the state directory {dir}: give its --state-dir")
}
