//! `worker specs`: prints what would be registered.

use std::fmt::{self, Display};
use std::io::{self, Write as _};

use clap::ArgMatches;

use crate::backend::Facts;
use crate::backend::wire::Register;
use crate::config::facts_from_args;
use crate::exit::Exit;
use crate::reading::{GpuSpecs, MigSpecs, Specs};
use crate::{agent, logging, text};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (identity, rules, jobs, log) = facts_from_args(args)?;
    logging::start(log);
    let (facts, gpu_absence) = agent::facts_without_agent(&identity, rules.slots, &jobs);
    let mut stdout = io::stdout().lock();
    if args.get_flag("human") {
        write!(stdout, "{}", Card { facts: &facts, gpu_absence: gpu_absence.as_deref() })?;
    } else {
        let json = serde_json::to_string_pretty(&Register::new(&facts))?;
        writeln!(stdout, "{}", text::visible_json(&json))?;
    }
    Ok(Exit::Stopped)
}

/// What would be registered, for people to read.
struct Card<'a> {
    facts: &'a Facts,
    gpu_absence: Option<&'a str>,
}

impl Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { name, worker_id, price, location, specs, .. } = self.facts;
        let mut line = |what: &str, told: String| writeln!(f, "{what:8} {}", text::shown(&told));
        line("name", format!("{name}, {location}, {price:.2} an hour"))?;
        line("worker", worker_id.clone())?;
        line("machine", format!("{}, {}", specs.hostname, specs.os))?;
        line("CPU", cpu(specs))?;
        line("speed", speed(self.facts.gflops))?;
        line("memory", memory(specs))?;
        line("disk", disk(specs))?;
        for gpu in &specs.gpus {
            line(&format!("GPU {}", gpu.index), gpu_line(gpu))?;
            for mig in &gpu.mig {
                line("", instance_line(mig))?;
            }
        }
        let Some(reason) = self.gpu_absence else { return Ok(()) };
        let what = if specs.gpus.is_empty() { "none" } else { "not all" };
        line("GPU", format!("{what}: {reason}"))
    }
}

fn cpu(specs: &Specs) -> String {
    let frequency = specs.cpu_freq_ghz.map(|ghz| format!(" at {ghz:.2} GHz"));
    let of = specs.host_cpu_cores.map(|host| format!(" of {host}")).unwrap_or_default();
    let frequency = frequency.unwrap_or_default();
    let cores = if specs.cpu_cores == 1 && of.is_empty() { "core" } else { "cores" };
    format!("{}, {}{of} {cores}{frequency}", specs.cpu_model, specs.cpu_cores)
}

fn speed(gflops: Option<f64>) -> String {
    match gflops {
        Some(gflops) => format!("{gflops:.1} GFLOP/s on all cores, measured"),
        None => "not measured yet: worker bench".to_owned(),
    }
}

fn memory(specs: &Specs) -> String {
    let of = specs.host_ram_total_gb.map(|host| format!(" of {host:.1}")).unwrap_or_default();
    format!("{:.1}{of} GB, {:.1} GB available", specs.ram_total_gb, specs.ram_available_gb)
}

fn disk(specs: &Specs) -> String {
    match specs.storage_total_gb.zip(specs.storage_free_gb) {
        Some((total, free)) => format!("{total:.1} GB, {free:.1} GB free"),
        None => "of unknown size".to_owned(),
    }
}

fn gpu_line(gpu: &GpuSpecs) -> String {
    let parts = [
        Some(gpu.name.clone().unwrap_or_else(|| "of no name".to_owned())),
        gpu.vram_gb.map(|gb| format!("{gb:.1} GB")),
        gpu.theoretical_gflops.map(|gflops| format!("{:.1} TFLOP/s in theory", gflops / 1e3)),
        gpu.power_limit_w.map(|watts| format!("up to {watts:.0} W")),
        gpu.driver.as_ref().map(|driver| format!("driver {driver}")),
        gpu.compute_mode.map(|mode| format!("compute mode {mode}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn instance_line(mig: &MigSpecs) -> String {
    let name = mig.name.clone().unwrap_or_else(|| "MIG instance".to_owned());
    mig.vram_gb.map(|gb| format!("{name}, {gb:.1} GB")).unwrap_or(name)
}
