//! A library that is loaded in place of `libnvidia-ml.so.1` and answers what a script tells it to.
//!
//! The script is the JSON file that [`VARIABLE`] names. It is read again whenever it has changed, so
//! that a test can take a GPU away from a worker that runs: write the new one beside it, and rename.
//! No file, or no JSON: every function says that the driver is not loaded.
//!
//! ```json
//! {"driver": "580.95.05", "cuda": 13000,
//!  "fail": {"nvmlInit_v2": 9},
//!  "hang": ["nvmlDeviceGetUtilizationRates"],
//!  "gpus": [{
//!    "name": "NVIDIA GeForce RTX 3090", "uuid": "GPU-…", "pci": "00000000:01:00.0",
//!    "cores": 10496, "compute_mode": 0, "util": 97, "mem_util": 40, "temp": 66,
//!    "mem_total": 25769803776, "mem_used": 18438160384,
//!    "power_mw": 341200, "power_limit_mw": 350000, "energy_mj": 123456789, "fans": [55, 57],
//!    "clock_mhz": 1950, "max_clock_mhz": 2100, "mem_clock_mhz": 9751, "throttle": 0,
//!    "compute": [{"pid": 1234, "mem": 1073741824}], "graphics": [],
//!    "mig": [{"uuid": "MIG-…", "name": "…", "mem_total": 5100273664, "mem_used": 0}],
//!    "fail": {"nvmlDeviceGetPowerUsage": 3},
//!    "lost": true}]}
//! ```
//! - Whatever is left out is an idle RTX 3090 with nothing wrong, so `{"gpus": [{}, {}]}` is two.
//! - `fail`: what these functions return, for all GPUs or for this one. `lost`: all of its fail so.
//! - `hang`: these functions do not return until they are no longer listed.
//! - `mig`: MIG is on, with these parts, and the GPU does not tell how busy it is, as a real one.
//! - `mem` left out: a process whose memory the driver does not know.

mod script;

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use nvml_wrapper_sys::bindings::*;

use script::{Answer, Call, Process};
pub use script::{Script, VARIABLE};

/// Of `nvmlMemory_v2_t`, as `NVML_STRUCT_VERSION` makes it.
const MEMORY_V2: u32 = 2 << 24 | size_of::<nvmlMemory_v2_t>() as u32;

/// How many parts a GPU may be cut in.
const MAX_MIG: usize = 7;

/// Exports these functions, and has the compiler compare each with NVML's own declaration.
macro_rules! export {
    ($($function:ident($($argument:ident: $type:ty),*) = |$call:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function($($argument: $type),*) -> nvmlReturn_t {
            answer(stringify!($function), |$call| {
                // SAFETY: as NVML asks of its caller, each pointer is null or may be written to.
                #[allow(unused_unsafe, reason = "some have nothing to write")]
                unsafe { $answer }
            })
        }
        const _: fn(&mut NvmlLib) = |nvml| nvml.$function = Ok($function);
    )*};
}

export! {
    nvmlInit_v2() = |_| Ok(());
    nvmlShutdown() = |_| Ok(());
    nvmlSystemGetDriverVersion(out: *mut c_char, room: c_uint) =
        |call| put_text(out, room, &call.script.driver);
    nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) = |call| put(out, call.script.cuda);
    nvmlDeviceGetCount_v2(out: *mut c_uint) = |call| put(out, number(call.script.gpus.len()));
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nvmlDevice_t) = |call| {
        let handle = script::handle(index as usize, None);
        call.gpu(handle)?;
        put(out, handle)
    };

    nvmlDeviceGetName(device: nvmlDevice_t, out: *mut c_char, room: c_uint) =
        |call| put_text(out, room, call.part(device)?.name);
    nvmlDeviceGetUUID(device: nvmlDevice_t, out: *mut c_char, room: c_uint) =
        |call| put_text(out, room, call.part(device)?.uuid);
    nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) = |call| {
        let part = call.part(device)?;
        if out.is_null() || (*out).version != MEMORY_V2 {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = (part.mem_total, part.mem_used);
        let free = total.saturating_sub(used);
        put(out, nvmlMemory_v2_t { version: MEMORY_V2, total, reserved: 0, free, used })
    };

    nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, out: *mut nvmlPciInfo_t) =
        |call| put(out, pci(&call.gpu(device)?.pci)?);
    nvmlDeviceGetNumGpuCores(device: nvmlDevice_t, out: *mut c_uint) =
        |call| put(out, call.gpu(device)?.cores);
    nvmlDeviceGetComputeMode(device: nvmlDevice_t, out: *mut nvmlComputeMode_t) =
        |call| put(out, call.gpu(device)?.compute_mode);
    nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, out: *mut nvmlUtilization_t) = |call| {
        let gpu = call.gpu(device)?;
        if gpu.mig.is_some() {
            return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        put(out, nvmlUtilization_t { gpu: gpu.util, memory: gpu.mem_util })
    };
    nvmlDeviceGetTemperature(
        device: nvmlDevice_t, _sensor: nvmlTemperatureSensors_t, out: *mut c_uint
    ) = |call| put(out, call.gpu(device)?.temp);
    nvmlDeviceGetPowerUsage(device: nvmlDevice_t, out: *mut c_uint) =
        |call| put(out, call.gpu(device)?.power_mw);
    nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, out: *mut c_uint) =
        |call| put(out, call.gpu(device)?.power_limit_mw);
    nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, out: *mut c_ulonglong) =
        |call| put(out, call.gpu(device)?.energy_mj);
    nvmlDeviceGetNumFans(device: nvmlDevice_t, out: *mut c_uint) =
        |call| put(out, number(call.gpu(device)?.fans.len()));
    nvmlDeviceGetFanSpeed_v2(device: nvmlDevice_t, fan: c_uint, out: *mut c_uint) = |call| {
        let speed = call.gpu(device)?.fans.get(fan as usize);
        put(out, *speed.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?)
    };
    nvmlDeviceGetClockInfo(device: nvmlDevice_t, clock: nvmlClockType_t, out: *mut c_uint) =
        |call| {
            let gpu = call.gpu(device)?;
            put(out, if is_of_memory(clock) { gpu.mem_clock_mhz } else { gpu.clock_mhz })
        };
    nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, clock: nvmlClockType_t, out: *mut c_uint) =
        |call| {
            let gpu = call.gpu(device)?;
            put(out, if is_of_memory(clock) { gpu.mem_clock_mhz } else { gpu.max_clock_mhz })
        };
    nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, out: *mut c_ulonglong) =
        |call| put(out, call.gpu(device)?.throttle);

    nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) =
        |call| {
            let mode = u32::from(call.gpu(device)?.mig.is_some());
            put(current, mode)?;
            put(pending, mode)
        };
    nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, out: *mut c_uint) = |call| {
        // How many there can be, not how many there are.
        put(out, call.gpu(device)?.mig.as_ref().map_or(0, |_| number(MAX_MIG)))
    };
    nvmlDeviceGetMigDeviceHandleByIndex(
        device: nvmlDevice_t, index: c_uint, out: *mut nvmlDevice_t
    ) = |call| {
        call.gpu(device)?;
        let handle = script::handle(script::place(device)?.0, Some(index as usize));
        call.part(handle)?;
        put(out, handle)
    };

    nvmlDeviceGetComputeRunningProcesses_v3(
        device: nvmlDevice_t, count: *mut c_uint, out: *mut nvmlProcessInfo_t
    ) = |call| put_processes(count, out, &call.gpu(device)?.compute);
    nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: nvmlDevice_t, count: *mut c_uint, out: *mut nvmlProcessInfo_t
    ) = |call| put_processes(count, out, &call.gpu(device)?.graphics);
}

/// A panic is one more error: the caller is not of this library, so none may unwind into it.
fn answer(function: &'static str, of: impl FnOnce(&Call) -> Answer<()>) -> nvmlReturn_t {
    match panic::catch_unwind(AssertUnwindSafe(|| of(&Call::begin(function)?))) {
        Ok(Ok(())) => nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

/// # Safety
///
/// A value may be written to `out`, unless it is null.
unsafe fn put<T>(out: *mut T, value: T) -> Answer<()> {
    if out.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: it is not null.
    unsafe { out.write(value) };
    Ok(())
}

/// # Safety
///
/// As many bytes as there is room for may be written to `out`, unless it is null.
unsafe fn put_text(out: *mut c_char, room: c_uint, text: &str) -> Answer<()> {
    if out.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    if text.len() >= room as usize {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: there is room for the text and one byte more.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// # Safety
///
/// `count` and so many processes as it says may be written, unless they are null.
unsafe fn put_processes(
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
    processes: &[Process],
) -> Answer<()> {
    if count.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: it is not null.
    let room = unsafe { count.replace(number(processes.len())) };
    if processes.len() > room as usize {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    for (at, process) in processes.iter().enumerate() {
        // SAFETY: there is room for all of them.
        unsafe { put(out.add(at), info(process))? };
    }
    Ok(())
}

fn info(process: &Process) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid: process.pid,
        // NVML's word for memory that it does not know.
        usedGpuMemory: process.mem.unwrap_or(u64::MAX),
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    }
}

/// Of an address such as `00000000:01:00.0`.
fn pci(address: &str) -> Answer<nvmlPciInfo_t> {
    let mut parts = address.split([':', '.']).map(|part| u32::from_str_radix(part, 16).ok());
    let mut part = || parts.next().flatten().ok_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN);
    let (domain, bus, device) = (part()?, part()?, part()?);
    Ok(nvmlPciInfo_t {
        busIdLegacy: text(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        pciDeviceId: 0x2204_10DE,
        pciSubSystemId: 0x1467_10DE,
        busId: text(address),
    })
}

/// The text with zeroes after it; what does not fit is cut.
fn text<const ROOM: usize>(text: &str) -> [c_char; ROOM] {
    let mut room = [0; ROOM];
    let bytes = text.bytes().map(|byte| byte as c_char);
    room[..ROOM - 1].iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    room
}

fn is_of_memory(clock: nvmlClockType_t) -> bool {
    clock == nvmlClockType_enum_NVML_CLOCK_MEM
}

fn number(count: usize) -> c_uint {
    c_uint::try_from(count).unwrap_or(c_uint::MAX)
}
