//! The thread that asks the driver: finds it, also late; looks at every GPU; opens the driver anew
//! when it, or a GPU, is gone.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::ask::{self, Answers, Kin};
use super::energy::Energy;
use super::{Absence, Gpus, Seen, Slot};
use crate::clock;
use crate::reading::{GpuSpecs, GpuUsage};

/// What seldom changes is asked so often.
const SPECS_EVERY: Duration = Duration::from_secs(60);

/// Between two attempts to open the driver, doubled from the first to the last: one that comes late
/// is found within a minute.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(45);

/// What the thread knows from one look to the next.
pub(super) struct Sampler<'a> {
    library: &'a OsStr,
    slot: &'a Slot,
    /// A message asks for a look at once; their end ends the thread.
    wishes: &'a Receiver<()>,
    period: Duration,
    /// By index, with the time they were asked.
    specs: BTreeMap<u32, (Duration, GpuSpecs)>,
    /// By index, with the GPU's uuid: another one may have the index when the driver is opened anew.
    energy: BTreeMap<u32, (Option<String>, Energy)>,
    /// Of the newest look.
    kin: Kin,
    /// So many GPUs were there at some time.
    most: u32,
    pause: Duration,
}

/// Why an opened driver is asked no more.
enum Left {
    /// Nobody looks at the samples any longer.
    Ended,
    Absent(Absence),
    /// A GPU is lost, and only a driver opened anew may find it again.
    GpuLost,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(
        library: &'a OsStr,
        slot: &'a Slot,
        wishes: &'a Receiver<()>,
        period: Duration,
    ) -> Self {
        Self {
            library,
            slot,
            wishes,
            period,
            specs: BTreeMap::new(),
            energy: BTreeMap::new(),
            kin: Kin::default(),
            most: 0,
            pause: PAUSE_MIN,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let round = AssertUnwindSafe(|| match open(self.library) {
                Ok(nvml) => self.ask(&nvml),
                Err(absence) => Left::Absent(absence),
            });
            // What a driver answers may be too much for the crate that asks it. All that is left
            // behind are figures of earlier looks.
            let left = catch_unwind(round).unwrap_or_else(|_| {
                let why = "the NVIDIA driver's answers cannot be understood";
                Left::Absent(Absence::Trouble(why.to_owned()))
            });
            let ended = match left {
                Left::Ended => true,
                // The pause was made while the other GPUs were looked at.
                Left::GpuLost => false,
                Left::Absent(absence) => {
                    self.slot.put(Seen::Absent(absence.after(self.most > 0)));
                    self.has_ended_within(self.pause)
                }
            };
            if ended {
                return;
            }
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Looks at the GPUs until there is a reason to leave this driver.
    fn ask(&mut self, nvml: &Nvml) -> Left {
        self.specs.clear();
        let driver = nvml.sys_driver_version().ok();
        let opened = clock::since_boot();
        loop {
            let at = clock::since_boot();
            let gpus = match self.look(nvml, driver.as_deref(), at) {
                Ok(gpus) => gpus,
                Err(absence) => return Left::Absent(absence),
            };
            let all_there = gpus.absence.is_none();
            self.slot.put(Seen::Sample(at, gpus));
            if all_there {
                self.pause = PAUSE_MIN;
            } else if at - opened >= self.pause {
                return Left::GpuLost;
            }
            if self.has_ended_within(self.period) {
                return Left::Ended;
            }
        }
    }

    fn has_ended_within(&self, time: Duration) -> bool {
        matches!(self.wishes.recv_timeout(time), Err(RecvTimeoutError::Disconnected))
    }

    fn look(&mut self, nvml: &Nvml, driver: Option<&str>, at: Duration) -> Result<Gpus, Absence> {
        let count = nvml.device_count().map_err(|error| Absence::of(&error))?;
        if count == 0 {
            return Err(Absence::NoGpu("the NVIDIA driver knows no GPU".to_owned()));
        }
        self.most = self.most.max(count);
        let (mut usage, mut silences, mut missing) = (vec![], vec![], vec![]);
        if count < self.most {
            missing.push(format!("{count} of {} GPUs are there", self.most));
        }
        self.kin = Kin::default();
        for index in 0..count {
            let mut answers = Answers::default();
            let device = answers.ask("handle", || nvml.device_by_index(index));
            let seen = device.map(|device| self.look_at(&device, index, driver, at, &mut answers));
            match (seen, answers.lost) {
                (Some(seen), None) => {
                    usage.push(seen);
                    silences.extend(answers.silent.into_iter().map(|silence| (index, silence)));
                }
                (_, Some(lost)) => missing.push(format!("GPU {index} {lost}")),
                (None, None) => {
                    let why = answers.silent.join(", ");
                    missing.push(format!("GPU {index} cannot be reached: {why}"));
                }
            }
        }
        self.specs.retain(|index, _| usage.iter().any(|gpu| gpu.index == *index));
        Ok(Gpus {
            specs: self.specs.values().map(|(_, specs)| specs.clone()).collect(),
            usage,
            silences,
            absence: (!missing.is_empty()).then(|| Absence::Trouble(missing.join("; "))),
        })
    }

    fn look_at(
        &mut self,
        device: &Device<'_>,
        index: u32,
        driver: Option<&str>,
        at: Duration,
        answers: &mut Answers,
    ) -> GpuUsage {
        let known = self.specs.get(&index).filter(|(asked, _)| at - *asked < SPECS_EVERY);
        if known.is_none() {
            self.specs.insert(index, (at, ask::specs(device, index, driver, answers)));
        }
        let usage = ask::usage(device, index, &mut self.kin, answers);
        let counter = ask::energy_mj(device, answers);
        let uuid = self.specs.get(&index).and_then(|(_, specs)| specs.uuid.clone());
        let (whose, energy) = self.energy.entry(index).or_default();
        if *whose != uuid {
            (*whose, *energy) = (uuid, Energy::default());
        }
        GpuUsage { energy_j: energy.add(at, counter, usage.power_w), ..usage }
    }
}

fn open(library: &OsStr) -> Result<Nvml, Absence> {
    Nvml::builder().lib_path(library).init().map_err(|error| Absence::of(&error))
}

impl Absence {
    fn of(error: &NvmlError) -> Self {
        match error {
            // The loader's own words, which name the library.
            NvmlError::LibloadingError(cause) => Self::NoGpu(format!("no NVIDIA driver: {cause}")),
            // The library alone comes with some containers and images.
            NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound => {
                Self::NoGpu(format!("no NVIDIA driver: {error}"))
            }
            other => Self::Trouble(format!("the NVIDIA driver does not work: {other}")),
        }
    }

    /// What is gone is more than what never was.
    fn after(self, ever_seen: bool) -> Self {
        match self {
            // Without the loader's words, which name folders of this machine: the backend hears this.
            Self::NoGpu(_) if ever_seen => Self::Trouble("the NVIDIA driver is gone".to_owned()),
            absence => absence,
        }
    }
}
