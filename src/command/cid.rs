//! `worker cid`: the content addresses of files, to compare with those in a result.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ArgMatches;

use crate::cid::{Version, address};
use crate::exit::Exit;
use crate::text;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let version = if args.get_flag("v0") { Version::V0 } else { Version::V1 };
    for path in args.get_many::<PathBuf>("files").into_iter().flatten() {
        let address = File::open(path).and_then(|mut file| address(&mut file, version));
        let address = address.with_context(|| format!("cannot read {}", path.display()))?;
        let name = text::shown(&path.to_string_lossy());
        writeln!(io::stdout(), "{}  {}  {name}", address.cid, address.bytes)?;
    }
    Ok(Exit::Stopped)
}
