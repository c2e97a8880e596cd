//! How fast the processor is, once measured, and of which machine that holds.

use serde::{Deserialize, Serialize};

use super::Specs;

/// Of the way it is measured: to be raised when the kernel gets faster, so that all measure again.
pub(crate) const METHOD: u32 = 1;

/// The share of processor time below which a figure says more about others than about the machine.
const QUIET: f64 = 0.9;

/// One measurement, on all threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    /// 10⁹ floating-point operations of f32 a second.
    pub(crate) gflops: f64,
    /// Of the time that they may have, which share the threads were really on a processor.
    pub(crate) cpu_share: f64,
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
    /// Such as `AVX-512`.
    pub(crate) vectors: String,
}

impl Measured {
    /// Whether any machine could have measured this. What is read from a file or from another process
    /// may hold anything.
    pub(crate) fn is_plausible(&self) -> bool {
        (1e-3..1e7).contains(&self.gflops) && (0.0..=1.0).contains(&self.cpu_share)
    }

    /// Whether nobody else took so much of the processor that the figure is too low.
    pub(crate) fn is_quiet(&self) -> bool {
        self.cpu_share >= QUIET
    }
}

/// A measurement, and the machine it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Speed {
    pub(crate) measured: Measured,
    pub(crate) cpu_model: String,
    pub(crate) cpu_cores: usize,
    pub(crate) method: u32,
}

impl Speed {
    pub(crate) fn new(measured: Measured, specs: &Specs) -> Self {
        let Specs { cpu_model, cpu_cores, .. } = specs;
        Self { measured, cpu_model: cpu_model.clone(), cpu_cores: *cpu_cores, method: METHOD }
    }

    /// Whether it still holds: of the same processor, measured the same way.
    pub(crate) fn fits(&self, specs: &Specs) -> bool {
        *self == Self::new(self.measured.clone(), specs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Specs {
        Specs { cpu_model: "Abacus".into(), cpu_cores: 2, ..Specs::default() }
    }

    fn measured(cpu_share: f64) -> Measured {
        Measured { gflops: 10.0, cpu_share, seconds: 3.0, threads: 2, vectors: "AVX2".into() }
    }

    #[test]
    fn a_speed_holds_until_processor_or_method_change() {
        let speed = Speed::new(measured(1.0), &specs());
        assert!(speed.fits(&Specs { ram_total_gb: 64.0, hostname: "other".into(), ..specs() }));
        assert!(!speed.fits(&Specs { cpu_model: "Slide rule".into(), ..specs() }));
        assert!(!speed.fits(&Specs { cpu_cores: 4, ..specs() }));
        assert!(!Speed { method: METHOD - 1, ..speed }.fits(&specs()));
    }

    #[test]
    fn a_machine_is_busy_when_a_tenth_goes_to_others() {
        assert!(measured(0.91).is_quiet());
        assert!(!measured(0.89).is_quiet());
    }
}
