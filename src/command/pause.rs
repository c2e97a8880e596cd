//! `worker pause` and `worker resume`: whether new jobs are taken is the owner's to say.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::anyhow;
use clap::ArgMatches;

use super::{SERVICE_STATE, with_sudo};
use crate::config::{Place, place_from_args};
use crate::exit::Exit;
use crate::store::{self, OwnersPause, STATUS};
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
    if let Some(why) = elsewhere(&place, "pause")? {
        super::complain(&why);
        return Ok(Exit::State);
    }
    store::write_pause(&place.state_dir, &pause)
        .map_err(|error| with_sudo(error, "pause", &place))?;
    let sooner = if pause.left(now).is_some() { " sooner" } else { "" };
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
    if let Some(why) = elsewhere(&place, "resume")? {
        super::complain(&why);
        return Ok(Exit::State);
    }
    let ended = store::remove_pause(&place.state_dir)
        .map_err(|error| with_sudo(error, "resume", &place))?;
    let runs = store::is_held(&place.state_dir)?;
    let told = match (ended, runs) {
        (true, true) => "resumed: the agent that runs here takes jobs again",
        (true, false) => "resumed; no agent runs here now",
        (false, _) => "there was no pause to end",
    };
    writeln!(io::stdout(), "{told}")?;
    Ok(Exit::Stopped)
}

/// Why this state directory is not the one that is meant, if it is not.
fn elsewhere(place: &Place, command: &str) -> anyhow::Result<Option<anyhow::Error>> {
    let is_there = place.state_dir.is_dir();
    if is_there && (place.is_given || store::is_held(&place.state_dir)?) {
        return Ok(None);
    }
    // One's own may be left from a try before the service came.
    if !place.is_given && place.public_dir.join(STATUS).exists() {
        return Ok(Some(anyhow!(
            "the agent of this machine is a service: sudo worker {command} --state-dir {SERVICE_STATE}"
        )));
    }
    let dir = place.state_dir.display();
    let never = "no agent has ever run with the state directory";
    Ok((!is_there).then(|| anyhow!("{never} {dir}: give its --state-dir")))
}
