//! `worker bench`: measures what this machine's processor can do, and keeps the figure.

use std::io::{self, Write as _};
use std::path::Path;
use std::thread;

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
    let speed = Speed::new(measured?, &machine::specs(&state_dir, vec![]));
    let file = write_speed(&state_dir, &speed).context("the figure cannot be kept")?;
    let mut out = io::stdout();
    if args.get_flag("json") {
        writeln!(out, "{}", serde_json::to_string_pretty(&speed)?)?;
    } else {
        write!(out, "{}", tell(&speed.measured, &file))?;
    }
    Ok(Exit::Stopped)
}

/// On all cores that this process may use.
pub(super) fn measure(report: &mut dyn FnMut(engine::Progress)) -> anyhow::Result<Measured> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let engine::Sustained { gflops, cpu_share, seconds, vectors } =
        engine::measure(threads, report)?;
    let rounded = |value: f64, by: f64| (value * by).round() / by;
    Ok(Measured {
        gflops: rounded(gflops, 10.0),
        cpu_share: rounded(cpu_share, 1000.0),
        seconds: rounded(seconds, 1000.0),
        threads,
        vectors: vectors.to_owned(),
    })
}

fn tell(measured: &Measured, file: &Path) -> String {
    let Measured { gflops, cpu_share, seconds, threads, vectors } = measured;
    let cores = if *threads == 1 { "core" } else { "cores" };
    let busy = if measured.is_quiet() {
        String::new()
    } else {
        let percent = cpu_share * 100.0;
        format!(
            "the machine was busy: the threads got {percent:.0} % of the time, so it can do more than that\n"
        )
    };
    format!(
        "{gflops:.1} GFLOP/s (f32, {threads} {cores}, {vectors}), measured in {seconds:.1} s\n\
         {busy}kept in {}\n",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cpu_share: f64, threads: usize) -> String {
        let vectors = "AVX-512".into();
        let measured = Measured { gflops: 156.3, cpu_share, seconds: 3.5, threads, vectors };
        tell(&measured, Path::new("/state/speed.json"))
    }

    #[test]
    fn the_result_is_one_readable_line_and_where_it_is_kept() {
        assert_eq!(
            told(0.99, 2),
            "156.3 GFLOP/s (f32, 2 cores, AVX-512), measured in 3.5 s\nkept in /state/speed.json\n"
        );
        assert!(told(0.99, 1).contains("1 core,"));
    }

    #[test]
    fn a_busy_machine_is_told() {
        let told = told(0.5, 2);
        assert!(
            told.contains("\nthe machine was busy: the threads got 50 % of the time"),
            "{told}"
        );
    }
}
