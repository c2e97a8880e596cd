//! This computer: what it is and how busy it is, asked of the kernel and of the GPU driver.
//!
//! Nothing here decides or logs. What could not be measured is absent, and the GPUs say why.

mod gpu;
mod host;
mod id;

pub(crate) use gpu::{GpuWatch, watch};
pub(crate) use host::{HostMeter, specs};
pub(crate) use id::{read_machine_id, worker_id};

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1_u64 << 30) as f64
}
