//! `worker bench`: measures what this machine's processor can do, and keeps the figure.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ArgMatches;

use super::demo::bar;
use crate::config::state_dir_from_args;
use crate::engine;
use crate::exit::Exit;
use crate::reading::{Measured, Speed};
use crate::store::write_speed;
use crate::{logging, machine};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (state_dir, log) = state_dir_from_args(args)?;
    logging::start(log);
    // On stderr, and only where that is a terminal.
    let bar = bar("bench");
    let measured = measure(&mut |progress| {
        bar.set_position(progress.percent.into());
        bar.set_message(progress.operation);
    });
    bar.finish_and_clear();
    let measured = measured?;
    let file = keep(&measured, &state_dir)?;
    let mut out = io::stdout();
    if args.get_flag("json") {
        writeln!(out, "{}", serde_json::to_string_pretty(&measured)?)?;
    } else {
        write!(out, "{}", tell(&measured, file.as_deref()))?;
    }
    Ok(Exit::Stopped)
}

/// Keeps the figure, unless others had so much of the processor that it would be sold too low.
fn keep(measured: &Measured, state_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !measured.is_quiet() {
        return Ok(None);
    }
    let speed = Speed::new(measured.clone(), &machine::specs(state_dir, vec![]));
    Ok(Some(write_speed(state_dir, &speed).context("the figure cannot be kept")?))
}

/// On all cores that this process may use.
pub(super) fn measure(report: &mut dyn FnMut(engine::Progress)) -> anyhow::Result<Measured> {
    let threads = machine::threads();
    let engine::Sustained { gflops, cpu_share, seconds, vectors } =
        engine::measure(threads, report)?;
    // A quota of less than a core is all that there is to measure.
    let allowed = machine::cpu_quota().map_or(1.0, |quota| (quota / threads as f64).min(1.0));
    let rounded = |value: f64, by: f64| (value * by).round() / by;
    Ok(Measured {
        gflops: rounded(gflops, 10.0),
        cpu_share: rounded((cpu_share / allowed).min(1.0), 1000.0),
        seconds: rounded(seconds, 1000.0),
        threads,
        vectors: vectors.to_owned(),
    })
}

fn tell(measured: &Measured, file: Option<&Path>) -> String {
    let Measured { gflops, cpu_share, seconds, threads, vectors } = measured;
    let cores = if *threads == 1 { "core" } else { "cores" };
    let kept = match file {
        Some(file) => format!("kept in {}", file.display()),
        None => format!(
            "not kept: others use the machine, and left {:.0} % of the time to this; measure when nothing else runs",
            cpu_share * 100.0
        ),
    };
    format!(
        "{gflops:.1} GFLOP/s (f32, {threads} {cores}, {vectors}), measured in {seconds:.1} s\n{kept}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(threads: usize, file: Option<&str>) -> String {
        let vectors = "AVX-512".into();
        let measured = Measured { gflops: 156.3, cpu_share: 0.5, seconds: 3.5, threads, vectors };
        tell(&measured, file.map(Path::new))
    }

    #[test]
    fn the_result_is_one_readable_line_and_where_it_is_kept() {
        assert_eq!(
            told(2, Some("/state/speed.json")),
            "156.3 GFLOP/s (f32, 2 cores, AVX-512), measured in 3.5 s\nkept in /state/speed.json\n"
        );
        assert!(told(1, None).contains("1 core,"));
    }

    #[test]
    fn the_figure_of_a_busy_machine_is_told_and_not_kept() {
        let told = told(2, None);
        assert!(told.contains("\nnot kept: others use the machine, and left 50 % "), "{told}");
        let home = tempfile::tempdir().unwrap();
        let vectors = "AVX2".to_owned();
        let busy = Measured { gflops: 1.0, cpu_share: 0.89, seconds: 3.0, threads: 1, vectors };
        assert_eq!(keep(&busy, home.path()).unwrap(), None);
        let quiet = Measured { cpu_share: 0.91, ..busy };
        assert_eq!(keep(&quiet, home.path()).unwrap(), Some(home.path().join("speed.json")));
    }
}
