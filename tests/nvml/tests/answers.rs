//! What the crate that the worker asks gets to hear from the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, ComputeMode, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use scripted_nvml::VARIABLE;
use tempfile::{NamedTempFile, TempDir};

/// The folder of the script, to which the environment of this process points.
static HOME: LazyLock<TempDir> = LazyLock::new(|| {
    let home = tempfile::tempdir().expect("there is room for a script");
    // SAFETY: every test comes here before it asks anything, and waits.
    unsafe { std::env::set_var(VARIABLE, home.path().join("script.json")) };
    home
});

/// One script at a time, as there is one process.
static STAGE: Mutex<()> = Mutex::new(());

struct Stage {
    nvml: Nvml,
    _alone: MutexGuard<'static, ()>,
}

fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a test is a file");
    program.parent().map(|deps| deps.join("libscripted_nvml.so")).expect("and lies in a folder")
}

fn set(script: &str) {
    let home: &Path = HOME.path();
    let mut file = NamedTempFile::new_in(home).expect("there is room for a script");
    file.write_all(script.as_bytes()).expect("there is room for a script");
    file.persist(home.join("script.json")).expect("it takes the place of the last");
}

fn play(script: &str) -> Stage {
    let alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    set(script);
    let nvml = Nvml::builder().lib_path(library().as_os_str()).init().expect("it is loaded");
    Stage { nvml, _alone: alone }
}

impl Stage {
    fn gpu(&self, index: u32) -> Device<'_> {
        self.nvml.device_by_index(index).expect("it has a handle")
    }
}

#[test]
fn every_question_of_the_worker_is_answered() {
    let stage = play(
        r#"{"driver": "580.95.05", "gpus": [{"name": "NVIDIA GeForce RTX 3090", "uuid": "GPU-7",
        "pci": "00000000:0A:00.0", "cores": 10496, "compute_mode": 3, "util": 97, "mem_util": 40,
        "temp": 66, "mem_total": 1000, "mem_used": 400, "power_mw": 341200,
        "power_limit_mw": 350000, "energy_mj": 123456789, "fans": [55, 57], "clock_mhz": 1950,
        "max_clock_mhz": 2100, "mem_clock_mhz": 9751, "throttle": 64,
        "compute": [{"pid": 12, "mem": 34}, {"pid": 13}]}]}"#,
    );
    let gpu = stage.gpu(0);
    assert_eq!(stage.nvml.sys_driver_version().unwrap(), "580.95.05");
    assert_eq!(stage.nvml.sys_cuda_driver_version().unwrap(), 13_000);
    assert_eq!(gpu.name().unwrap(), "NVIDIA GeForce RTX 3090");
    assert_eq!(gpu.uuid().unwrap(), "GPU-7");
    let pci = gpu.pci_info().unwrap();
    assert_eq!((pci.bus_id.as_str(), pci.bus), ("00000000:0A:00.0", 10));
    assert_eq!(gpu.num_cores().unwrap(), 10_496);
    assert_eq!(gpu.compute_mode().unwrap(), ComputeMode::ExclusiveProcess);
    let rates = gpu.utilization_rates().unwrap();
    assert_eq!([rates.gpu, rates.memory], [97, 40]);
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 66);
    let memory = gpu.memory_info().unwrap();
    assert_eq!([memory.total, memory.used, memory.free], [1000, 400, 600]);
    assert_eq!(gpu.power_usage().unwrap(), 341_200);
    assert_eq!(gpu.enforced_power_limit().unwrap(), 350_000);
    assert_eq!(gpu.total_energy_consumption().unwrap(), 123_456_789);
    assert_eq!(gpu.num_fans().unwrap(), 2);
    assert_eq!([gpu.fan_speed(0).unwrap(), gpu.fan_speed(1).unwrap()], [55, 57]);
    assert_eq!(gpu.clock_info(Clock::SM).unwrap(), 1950);
    assert_eq!(gpu.clock_info(Clock::Memory).unwrap(), 9751);
    assert_eq!(gpu.max_clock_info(Clock::SM).unwrap(), 2100);
    assert_eq!(gpu.current_throttle_reasons().unwrap(), ThrottleReasons::HW_THERMAL_SLOWDOWN);
    assert_eq!(gpu.mig_mode().unwrap().current, 0);
    let users = gpu.running_compute_processes().unwrap();
    let users: Vec<_> = users.into_iter().map(|user| (user.pid, user.used_gpu_memory)).collect();
    assert_eq!(users, [(12, UsedGpuMemory::Used(34)), (13, UsedGpuMemory::Unavailable)]);
    assert!(gpu.running_graphics_processes().unwrap().is_empty());
}

#[test]
fn a_gpu_in_parts_tells_of_its_parts_and_not_how_busy_it_is() {
    let stage = play(
        r#"{"gpus": [{"mig": [{"uuid": "MIG-1", "name": "A100 MIG 1g.10gb", "mem_total": 10,
        "mem_used": 2}]}]}"#,
    );
    let gpu = stage.gpu(0);
    assert_eq!(gpu.mig_mode().unwrap().current, 1);
    assert_eq!(gpu.mig_device_count().unwrap(), 7);
    let part = gpu.mig_device_by_index(0).unwrap();
    assert_eq!([part.uuid().unwrap(), part.name().unwrap()], ["MIG-1", "A100 MIG 1g.10gb"]);
    assert_eq!(part.memory_info().unwrap().total, 10);
    assert!(matches!(gpu.mig_device_by_index(1), Err(NvmlError::NotFound)));
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::NotSupported)));
    assert!(matches!(part.temperature(TemperatureSensor::Gpu), Err(NvmlError::NotSupported)));
}

#[test]
fn a_new_script_is_heard_through_old_handles() {
    let stage = play(r#"{"gpus": [{"temp": 50}, {"temp": 60}]}"#);
    let (first, second) = (stage.gpu(0), stage.gpu(1));
    set(r#"{"gpus": [{"fail": {"nvmlDeviceGetPowerUsage": 3}, "temp": 51}, {"lost": true}]}"#);
    assert_eq!(first.temperature(TemperatureSensor::Gpu).unwrap(), 51);
    assert!(matches!(first.power_usage(), Err(NvmlError::NotSupported)));
    assert!(matches!(second.uuid(), Err(NvmlError::GpuLost)));
    assert!(matches!(stage.nvml.device_by_index(1), Err(NvmlError::GpuLost)));
    set(r#"{"fail": {"nvmlDeviceGetTemperature": 4}, "gpus": [{}]}"#);
    assert!(matches!(first.temperature(TemperatureSensor::Gpu), Err(NvmlError::NoPermission)));
    assert!(matches!(second.uuid(), Err(NvmlError::InvalidArg)));
    set("no JSON");
    assert!(matches!(stage.nvml.device_count(), Err(NvmlError::DriverNotLoaded)));
}

#[test]
fn a_function_hangs_until_it_is_no_longer_told_to() {
    let stage = play(r#"{"hang": ["nvmlDeviceGetPowerUsage"], "gpus": [{"power_mw": 7000}]}"#);
    let (gpu, (said, heard)) = (stage.gpu(0), mpsc::channel());
    thread::scope(|scope| {
        scope.spawn(|| said.send(gpu.power_usage()));
        let early = heard.recv_timeout(Duration::from_millis(200));
        assert!(matches!(early, Err(RecvTimeoutError::Timeout)));
        assert_eq!(gpu.num_fans().unwrap(), 1, "the others answer");
        set(r#"{"gpus": [{"power_mw": 8000}]}"#);
        let late = heard.recv_timeout(Duration::from_secs(40));
        assert_eq!(late.expect("it answers").unwrap(), 8000);
    });
}
