//! The script: its file, and what it says of a call.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings::*;
use serde::Deserialize;

/// The environment variable that names the script.
pub const VARIABLE: &str = "SCRIPTED_NVML";

/// How often a function that hangs looks whether it still should.
const LOOK: Duration = Duration::from_millis(20);

/// A value, or the code that the function returns instead.
pub(crate) type Answer<T> = Result<T, nvmlReturn_t>;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    pub(crate) driver: String,
    pub(crate) cuda: i32,
    fail: BTreeMap<String, u32>,
    hang: Vec<String>,
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gpu {
    name: String,
    uuid: String,
    pub(crate) pci: String,
    pub(crate) cores: u32,
    pub(crate) compute_mode: u32,
    pub(crate) util: u32,
    pub(crate) mem_util: u32,
    pub(crate) temp: u32,
    mem_total: u64,
    mem_used: u64,
    pub(crate) power_mw: u32,
    pub(crate) power_limit_mw: u32,
    pub(crate) energy_mj: u64,
    pub(crate) fans: Vec<u32>,
    pub(crate) clock_mhz: u32,
    pub(crate) max_clock_mhz: u32,
    pub(crate) mem_clock_mhz: u32,
    pub(crate) throttle: u64,
    pub(crate) compute: Vec<Process>,
    pub(crate) graphics: Vec<Process>,
    pub(crate) mig: Option<Vec<Mig>>,
    fail: BTreeMap<String, u32>,
    lost: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mig {
    uuid: String,
    name: String,
    mem_total: u64,
    mem_used: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) mem: Option<u64>,
}

impl Default for Script {
    fn default() -> Self {
        let driver = "580.95.05".to_owned();
        Self { driver, cuda: 13_000, fail: BTreeMap::new(), hang: vec![], gpus: vec![] }
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            name: "NVIDIA GeForce RTX 3090".to_owned(),
            // These two are set by its place.
            uuid: String::new(),
            pci: String::new(),
            cores: 10_496,
            compute_mode: 0,
            util: 0,
            mem_util: 0,
            temp: 40,
            mem_total: 24 << 30,
            mem_used: 0,
            power_mw: 25_000,
            power_limit_mw: 350_000,
            energy_mj: 0,
            fans: vec![30],
            clock_mhz: 210,
            max_clock_mhz: 2100,
            mem_clock_mhz: 9751,
            throttle: 0,
            compute: vec![],
            graphics: vec![],
            mig: None,
            fail: BTreeMap::new(),
            lost: false,
        }
    }
}

impl Script {
    /// Reads a script; a misspelt field is an error.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let mut script: Self = serde_json::from_str(text)?;
        for (index, gpu) in script.gpus.iter_mut().enumerate() {
            if gpu.uuid.is_empty() {
                gpu.uuid = format!("GPU-00000000-0000-0000-0000-{index:012}");
            }
            if gpu.pci.is_empty() {
                gpu.pci = format!("00000000:{:02X}:00.0", index + 1);
            }
        }
        Ok(script)
    }

    /// The script as its file is now; nothing if there is none that can be read.
    fn current() -> Option<Arc<Self>> {
        static LAST: Mutex<Option<(Stamp, Arc<Script>)>> = Mutex::new(None);
        #[expect(clippy::disallowed_methods, reason = "nobody can give a library an argument")]
        let path = std::env::var_os(VARIABLE)?;
        let stamp = Stamp::of(&fs::metadata(&path).ok()?);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, script)) = &*last
            && *known == stamp
        {
            return Some(Arc::clone(script));
        }
        let script = Arc::new(Self::parse(&fs::read_to_string(&path).ok()?).ok()?);
        *last = Some((stamp, Arc::clone(&script)));
        Some(script)
    }
}

/// The other process that changes the script cannot wake us. Nor may a thread keep anything of this
/// library, as it does of one that parks it: the library may be unloaded before the thread ends.
fn wait(time: Duration) {
    static NOBODY: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    let (mutex, condition) = &NOBODY;
    let waiting = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    drop(condition.wait_timeout(waiting, time));
}

/// What differs between a file and the one that takes its place.
#[derive(PartialEq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        let modified = (file.mtime(), file.mtime_nsec());
        Self { inode: file.ino(), size: file.size(), modified }
    }
}

/// What GPUs and their parts tell alike.
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) uuid: &'a str,
    pub(crate) mem_total: u64,
    pub(crate) mem_used: u64,
}

/// One call of a function, with the script that it answers by.
pub(crate) struct Call {
    function: &'static str,
    pub(crate) script: Arc<Script>,
}

impl Call {
    /// Begins once the function is not told to hang, unless it is told to fail.
    pub(crate) fn begin(function: &'static str) -> Answer<Self> {
        let is_this = |name: &String| name == function;
        loop {
            let script = Script::current().ok_or(nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED)?;
            if !script.hang.iter().any(is_this) {
                fail(&script.fail, function)?;
                return Ok(Self { function, script });
            }
            wait(LOOK);
        }
    }

    /// The GPU of this handle; a part of one is none.
    pub(crate) fn gpu(&self, device: nvmlDevice_t) -> Answer<&Gpu> {
        match place(device)? {
            (index, None) => self.whole(index),
            (_, Some(_)) => Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED),
        }
    }

    /// The GPU or MIG device of this handle.
    pub(crate) fn part(&self, device: nvmlDevice_t) -> Answer<Part<'_>> {
        let (index, part) = place(device)?;
        let Gpu { name, uuid, mem_total, mem_used, mig, .. } = self.whole(index)?;
        let (mem_total, mem_used) = (*mem_total, *mem_used);
        let Some(part) = part else { return Ok(Part { name, uuid, mem_total, mem_used }) };
        let mig = mig.iter().flatten().nth(part);
        let Mig { uuid, name, mem_total, mem_used } =
            mig.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
        Ok(Part { name, uuid, mem_total: *mem_total, mem_used: *mem_used })
    }

    fn whole(&self, index: usize) -> Answer<&Gpu> {
        let gpu = self.script.gpus.get(index);
        let gpu = gpu.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        if gpu.lost {
            return Err(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
        }
        fail(&gpu.fail, self.function)?;
        Ok(gpu)
    }
}

fn fail(told: &BTreeMap<String, u32>, function: &str) -> Answer<()> {
    told.get(function).map_or(Ok(()), |code| Err(*code))
}

/// How far the part is shifted within a handle.
const PART: u32 = 8;

/// A handle says which GPU it is, or which part of it, both from 1: so it outlives the script, and
/// none is null.
pub(crate) fn handle(gpu: usize, part: Option<usize>) -> nvmlDevice_t {
    ptr::without_provenance_mut((gpu + 1) | part.map_or(0, |part| part + 1) << PART)
}

/// Which GPU a handle is of, and which part of it.
pub(crate) fn place(device: nvmlDevice_t) -> Answer<(usize, Option<usize>)> {
    let (gpu, part) = (device.addr() & ((1 << PART) - 1), device.addr() >> PART);
    let gpu = gpu.checked_sub(1).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
    Ok((gpu, part.checked_sub(1)))
}
