//! The computer without its GPUs: what it is, once at the start, and how busy it is, at every beat.
//!
//! Both are cheap: processes, other disks and whatever else takes time to list are not looked at.

use std::fs::{self, File};
use std::io::Read as _;
use std::mem;
use std::path::{Path, absolute};
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::thread::sched_getaffinity;
use sysinfo::{CpuRefreshKind, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use crate::clock;
use crate::reading::{GpuSpecs, HostUsage, Specs, percent};

use super::cgroup::{self, CpuLimit, Limits, MemoryLimit};
use super::gib;

/// Returns what this machine is, as far as it is ours; `state_dir` need not exist yet.
pub(crate) fn specs(state_dir: &Path, gpus: Vec<GpuSpecs>) -> Specs {
    let mut system = system();
    // The first refresh lists the CPUs, whatever is asked for.
    system.refresh_cpu_specifics(CpuRefreshKind::nothing());
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let disk = disk(state_dir);
    let limits = limits(&system);
    let memory = Memory::now(&system, limits.memory.as_ref());
    let host_cores = host_cores(&system);
    let cores = usable(host_cores, affinity(), limits.cpu.as_ref().map(|cpu| cpu.cores));
    Specs {
        hostname: host_name(),
        os: os(),
        cpu_model: cpu_model(&system),
        cpu_cores: cores,
        host_cpu_cores: (cores < host_cores).then_some(host_cores),
        cpu_freq_ghz: cpu_freq_ghz(),
        ram_total_gb: gib(memory.total),
        host_ram_total_gb: limits.memory.map(|_| gib(system.total_memory())),
        ram_available_gb: gib(memory.available),
        storage_total_gb: disk.as_ref().map(|disk| gib(disk.total)),
        storage_free_gb: disk.as_ref().map(|disk| gib(disk.free)),
        gpus,
    }
}

/// How many threads can compute at once, as far as the machine is ours.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How many cores' worth of time this process may have, if that is limited.
pub(crate) fn cpu_quota() -> Option<f64> {
    let mut system = system();
    system.refresh_cpu_specifics(CpuRefreshKind::nothing());
    limits(&system).cpu.map(|cpu| cpu.cores)
}

/// The memory of this machine in bytes, or what of it this process may have.
pub(crate) fn memory() -> u64 {
    let mut system = system();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    limits(&system).memory.map_or_else(|| system.total_memory(), |limit| limit.bytes)
}

fn system() -> System {
    // It fails only on an operating system unknown to sysinfo, and this program is for Linux.
    System::new().expect("sysinfo knows Linux")
}

fn host_name() -> String {
    System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

fn os() -> String {
    System::kernel_long_version().unwrap_or_else(|_| "Linux".to_owned())
}

fn cpu_model(system: &System) -> String {
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
    if brand.is_empty() { System::cpu_arch() } else { brand.to_owned() }
}

fn limits(system: &System) -> Limits {
    cgroup::limits(Path::new("/"), host_cores(system), system.total_memory())
}

fn host_cores(system: &System) -> usize {
    match system.cpus().len() {
        // What may be used is the least that there can be.
        0 => affinity().unwrap_or(1),
        cores => cores,
    }
}

/// How many of the cores this process may run on; not known on hosts of more than 1024.
fn affinity() -> Option<usize> {
    let cores = sched_getaffinity(None).ok()?.count();
    usize::try_from(cores).ok()
}

/// Part of a core is no core, but without any nothing would run.
fn usable(host: usize, affinity: Option<usize>, quota: Option<f64>) -> usize {
    let most = affinity.map_or(host, |affinity| host.min(affinity));
    let whole = |quota: f64| (1..most).rev().find(|cores| *cores as f64 <= quota).unwrap_or(1);
    quota.filter(|quota| *quota < most as f64).map_or(most, whole)
}

/// What there is of memory, and what of it nobody uses.
struct Memory {
    total: u64,
    available: u64,
}

impl Memory {
    fn now(system: &System, limit: Option<&MemoryLimit>) -> Self {
        let host = Self { total: system.total_memory(), available: system.available_memory() };
        let Some(limit) = limit else { return host };
        let left = limit.used().map_or(limit.bytes, |used| limit.bytes.saturating_sub(used));
        // A limit is no promise: the host may have less than that left.
        Self { total: limit.bytes, available: host.available.min(left) }
    }

    /// A container may show more available than total.
    fn used(&self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

/// The highest frequency, not the one of this moment: a machine that idles at 800 MHz is not slow.
///
/// sysinfo is not asked: it tells this moment's, reads all of /proc/cpuinfo for each CPU where
/// there is no cpufreq, and takes BogoMIPS for a frequency where ARM tells none.
fn cpu_freq_ghz() -> Option<f64> {
    let highest_khz = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
    // Many virtual machines have no such file, but tell what they run at.
    let ghz = match highest_khz.ok().and_then(|khz| khz.trim().parse::<f64>().ok()) {
        Some(khz) => khz / 1e6,
        None => first_cpu_mhz(&start_of_cpuinfo()?)? / 1e3,
    };
    (ghz.is_finite() && ghz > 0.0).then_some(ghz)
}

/// Not the whole file, which the kernel writes anew for each CPU.
fn start_of_cpuinfo() -> Option<String> {
    let mut start = Vec::new();
    File::open("/proc/cpuinfo").ok()?.take(4096).read_to_end(&mut start).ok()?;
    Some(String::from_utf8_lossy(&start).into_owned())
}

fn first_cpu_mhz(cpuinfo: &str) -> Option<f64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

/// A disk, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) total: u64,
    /// What we may still write there.
    pub(crate) free: u64,
}

/// The disk that holds `path`, or will once it is made; unknown where a file system does not tell.
///
/// The file system is asked, not sysinfo's list of mounts: that lacks tmpfs and NFS, in whose place
/// the disk below would be told, and making it touches every mount, of which any may hang.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let told = absolute(path).ok()?.ancestors().find_map(|path| statvfs(path).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    let disk = Disk { total: bytes(told.f_blocks), free: bytes(told.f_bavail) };
    // Some file systems do not tell their size, and say 0.
    Some(disk).filter(|disk| disk.total > 0)
}

/// Measures the CPU over the time from one reading to the next, and the memory of the moment: the
/// machine's, or what our control group has of them.
pub(crate) struct HostMeter {
    system: System,
    /// Since boot, when the CPU was last measured.
    measured_at: Duration,
    /// What to tell while there is nothing newer.
    since_boot: Option<f64>,
    counts: bool,
    quota: Option<Quota>,
    memory: Option<MemoryLimit>,
}

impl HostMeter {
    /// Starts the first interval. Limits that are set later are not seen.
    pub(crate) fn new() -> Self {
        let mut system = system();
        system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let limits = limits(&system);
        Self::within(limits, system)
    }

    fn within(limits: Limits, system: System) -> Self {
        // The first refresh gives the share since boot. No machine has booted on none at all: where
        // it is zero, the kernel (a sandbox's) does not count.
        let counts = limits.cpu.is_some() || system.global_cpu_usage() > 0.0;
        let quota = limits.cpu.map(Quota::new);
        let measured_at = clock::since_boot();
        Self { system, measured_at, since_boot: None, counts, quota, memory: limits.memory }
    }

    /// The same, but the time since boot counts as an interval of its own, for a first heartbeat
    /// that follows the start at once. What a group with a quota did before is not told by it.
    pub(crate) fn with_boot() -> Self {
        let meter = Self::new();
        let percent = f64::from(meter.system.global_cpu_usage());
        let tells = meter.counts && meter.quota.is_none();
        Self { since_boot: Some(percent).filter(|_| tells), ..meter }
    }

    /// Returns the CPU use since the reading before this one, or since `new`.
    ///
    /// Within 200 ms there is none to tell, as the kernel counts in hundredths of a second; the
    /// interval then goes on to the next reading, and nothing is lost.
    pub(crate) fn read(&mut self) -> HostUsage {
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let memory = self.memory_use();
        HostUsage {
            cpu_percent: self.cpu_percent(clock::since_boot()),
            ram_percent: percent(memory.used(), memory.total).unwrap_or(0.0),
            ram_used_gb: gib(memory.used()),
            ram_total_gb: gib(memory.total),
        }
    }

    fn memory_use(&self) -> Memory {
        let group = self.memory.as_ref().and_then(|limit| Some((limit.bytes, limit.used()?)));
        match group {
            Some((total, used)) => Memory { total, available: total.saturating_sub(used) },
            None => Memory::now(&self.system, self.memory.as_ref()),
        }
    }

    fn cpu_percent(&mut self, now: Duration) -> Option<f64> {
        let interval = now.saturating_sub(self.measured_at);
        // sysinfo would skip the refresh, and give the figure of the interval before.
        if !self.counts || interval < MINIMUM_CPU_UPDATE_INTERVAL {
            return self.since_boot.filter(|percent| percent.is_finite());
        }
        self.since_boot = None;
        if let Some(quota) = &mut self.quota {
            self.measured_at = now;
            return quota.percent(interval);
        }
        self.system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        // After the refresh, so that our interval is never longer than sysinfo's.
        self.measured_at = clock::since_boot();
        Some(f64::from(self.system.global_cpu_usage())).filter(|percent| percent.is_finite())
    }
}

/// The CPU time of a group that may not have more than its quota.
struct Quota {
    limit: CpuLimit,
    used: Option<Duration>,
}

impl Quota {
    fn new(limit: CpuLimit) -> Self {
        Self { used: limit.used(), limit }
    }

    /// How much of its quota the group used, in the `interval` since this was last asked.
    fn percent(&mut self, interval: Duration) -> Option<f64> {
        let before = mem::replace(&mut self.used, self.limit.used());
        let used = self.used?.checked_sub(before?)?;
        let most = interval.as_secs_f64() * self.limit.cores;
        // A group may go over its quota for a moment, and make up for it after.
        Some((used.as_secs_f64() / most * 100.0).min(100.0)).filter(|percent| percent.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{put, tree};

    #[test]
    fn the_specs_of_this_machine_are_plausible() {
        let specs = specs(Path::new("/no/such/folder/yet"), Vec::new());
        assert_ne!(specs.hostname, "");
        assert!(specs.os.starts_with("Linux "), "{}", specs.os);
        assert_ne!(specs.cpu_model.trim(), "");
        assert!(specs.cpu_cores >= 1);
        assert!(specs.cpu_freq_ghz.is_none_or(|ghz| (0.1..20.0).contains(&ghz)), "{specs:?}");
        assert!(specs.ram_total_gb > 0.0);
        assert!((0.0..=specs.ram_total_gb).contains(&specs.ram_available_gb), "{specs:?}");
    }

    #[test]
    fn the_disk_is_the_one_that_holds_the_folder_even_before_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let here = disk(folder.path()).unwrap();
        let inside = disk(&folder.path().join("not/made/yet")).unwrap();
        assert_eq!(inside.total, here.total);
        assert!(inside.free <= inside.total);
        assert_eq!(disk(Path::new("/proc/self")), None, "/proc has no size");
    }

    #[test]
    fn the_cpu_is_measured_from_one_reading_to_the_next() {
        let mut meter = HostMeter::new();
        let start = meter.measured_at;
        let too_soon = Duration::from_millis(199);
        assert_eq!(meter.cpu_percent(start + too_soon), None);
        assert_eq!(meter.measured_at, start, "the interval goes on");

        while clock::since_boot() - start < MINIMUM_CPU_UPDATE_INTERVAL {
            std::hint::spin_loop();
        }
        let percent = meter.read().cpu_percent.unwrap();
        assert!(percent > 0.0 && percent <= 100.0, "{percent} % after spinning");
        assert!(meter.measured_at >= start + MINIMUM_CPU_UPDATE_INTERVAL, "a new one has begun");
    }

    #[test]
    fn where_the_kernel_does_not_count_the_cpu_use_is_absent() {
        let mut meter = HostMeter { counts: false, ..HostMeter::new() };
        assert_eq!(meter.cpu_percent(Duration::MAX), None);
    }

    #[test]
    fn the_cores_are_those_that_may_be_used() {
        for (host, affinity, quota, cores) in [
            (64, Some(64), Some(2.0), 2),
            (64, Some(64), Some(2.9), 2),
            (64, Some(64), Some(0.5), 1),
            (64, Some(4), Some(8.0), 4),
            (64, Some(4), None, 4),
            (64, None, None, 64),
            (2, Some(16), None, 2),
            (1, Some(1), Some(0.1), 1),
        ] {
            assert_eq!(usable(host, affinity, quota), cores, "{host} {affinity:?} {quota:?}");
        }
    }

    /// A group of 2 cores and 1 GiB on a host of 64 and 256 GiB.
    fn group() -> tempfile::TempDir {
        tree(&[
            ("proc/self/mountinfo", "35 24 0:30 / /cg rw - cgroup2 cgroup2 rw\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("cg/cpu.max", "200000 100000\n"),
            ("cg/cpu.stat", "usage_usec 5000000\n"),
            ("cg/memory.max", "1073741824\n"),
            ("cg/memory.current", "536870912\n"),
            ("cg/memory.stat", "inactive_file 268435456\n"),
        ])
    }

    fn meter_in(group: &Path) -> HostMeter {
        HostMeter::within(cgroup::limits(group, 64, 256 << 30), HostMeter::new().system)
    }

    #[test]
    fn under_a_quota_the_cpu_is_the_groups_use_of_it() {
        let group = group();
        let mut meter = meter_in(group.path());
        let start = meter.measured_at;
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let mut after = |at, stat: &str| {
            put(group.path(), "cg/cpu.stat", stat);
            meter.cpu_percent(at)
        };
        assert_eq!(after(start + Duration::from_millis(199), "usage_usec 5100000"), None);
        assert_eq!(after(seconds(10), "usage_usec 10000000"), Some(25.0), "5 s of 20");
        assert_eq!(after(seconds(11), "usage_usec 12000000"), Some(100.0));
        assert_eq!(after(seconds(12), "usage_usec 14200000"), Some(100.0), "a little over");
        assert_eq!(after(seconds(13), "usage_usec 7"), None, "another group of that name");
        assert_eq!(after(seconds(14), "usage_usec 1000007"), Some(50.0));
        assert_eq!(after(seconds(15), "nothing"), None);
    }

    #[test]
    fn under_a_limit_the_memory_is_the_groups() {
        let group = group();
        let mut meter = meter_in(group.path());
        let usage = meter.read();
        let told = (usage.ram_total_gb, usage.ram_used_gb, usage.ram_percent);
        assert_eq!(told, (1.0, 0.25, 25.0));
        let memory = Memory::now(&meter.system, meter.memory.as_ref());
        assert_eq!(memory.total, 1 << 30);
        assert!(memory.available <= 3 << 28, "as much as is left of the limit, or on the host");
    }

    #[test]
    fn memory_in_use_is_a_part_of_the_memory() {
        let usage = HostMeter::new().read();
        assert!(usage.ram_used_gb > 0.0 && usage.ram_used_gb <= usage.ram_total_gb, "{usage:?}");
        let percent = usage.ram_used_gb / usage.ram_total_gb * 100.0;
        assert!((usage.ram_percent - percent).abs() < 1e-6, "{usage:?}");
    }

    #[test]
    fn the_frequency_is_what_the_first_cpu_tells() {
        let x86 = "processor\t: 0\ncpu MHz\t\t: 2499.984\n\nprocessor\t: 1\ncpu MHz\t\t: 800.000\n";
        let arm = "processor\t: 0\nBogoMIPS\t: 243.75\n";
        for (cpuinfo, mhz) in [(x86, Some(2499.984)), (arm, None), ("cpu MHz\n", None), ("", None)]
        {
            assert_eq!(first_cpu_mhz(cpuinfo), mhz, "{cpuinfo:?}");
        }
    }
}
