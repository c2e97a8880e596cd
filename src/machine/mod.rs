//! This computer: what it is and how busy it is, asked of the kernel and of the GPU driver.
//!
//! Nothing here decides or logs. What could not be measured is absent, and the GPUs say why.

mod cgroup;
mod energy;
mod gpu;
mod host;
mod id;
mod rapl;
mod vitals;

use std::fs;
use std::path::Path;
use std::str::FromStr;

pub(crate) use energy::EnergyMeter;
pub(crate) use gpu::{Absence, GpuWatch, Gpus, watch};
pub(crate) use host::{Disk, HostMeter, cpu_quota, disk, memory, specs, threads};
pub(crate) use id::{read_machine_id, worker_id};
pub(crate) use vitals::VitalsMeter;

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1_u64 << 30) as f64
}

/// The text of a small file of /proc or /sys, without the line's end.
fn read_line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn read_number<T: FromStr>(path: &Path) -> Option<T> {
    read_line(path)?.parse().ok()
}

/// Files in the place of /proc and /sys.
#[cfg(test)]
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        put(root.path(), path, content);
    }
    root
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the kernel, which keeps none of these")]
fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
