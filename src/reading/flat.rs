//! All GPUs as one, for backends that know of one: mean utilisation, hottest temperature, sums of
//! memory and power.
//!
//! A GPU that did not answer a question has no part in that figure; what none answered is absent.

use super::{GpuUsage, percent};

/// What several GPUs come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FlatGpu {
    pub(crate) percent: Option<f64>,
    /// Of the summed memory, so that it agrees with the two sums.
    pub(crate) memory_percent: Option<f64>,
    pub(crate) temp_c: Option<f64>,
    pub(crate) mem_used_mb: Option<u64>,
    pub(crate) mem_total_mb: Option<u64>,
    pub(crate) power_w: Option<f64>,
    pub(crate) power_limit_w: Option<f64>,
}

pub(crate) fn flatten(gpus: &[GpuUsage]) -> FlatGpu {
    let memory = memory(gpus);
    FlatGpu {
        percent: mean(gpus.iter().filter_map(|gpu| gpu.percent)),
        memory_percent: memory.and_then(|(used, total)| percent(used, total)),
        temp_c: gpus.iter().filter_map(|gpu| gpu.temp_c).reduce(f64::max),
        mem_used_mb: memory.map(|(used, _)| used),
        mem_total_mb: memory.map(|(_, total)| total),
        power_w: sum(gpus.iter().filter_map(|gpu| gpu.power_w)),
        power_limit_w: sum(gpus.iter().filter_map(|gpu| gpu.power_limit_w)),
    }
}

/// Used and total, of the GPUs that told both: what one uses of what another has is no share.
fn memory(gpus: &[GpuUsage]) -> Option<(u64, u64)> {
    gpus.iter()
        .filter_map(|gpu| gpu.mem_used_mb.zip(gpu.mem_total_mb))
        .reduce(|(used, total), (more_used, more_total)| (used + more_used, total + more_total))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn sum(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> GpuUsage {
        GpuUsage::default()
    }

    fn busy() -> GpuUsage {
        GpuUsage {
            index: 1,
            percent: Some(90.0),
            memory_percent: Some(75.0),
            temp_c: Some(66.0),
            mem_used_mb: Some(18_432),
            mem_total_mb: Some(24_576),
            power_w: Some(341.5),
            power_limit_w: Some(350.0),
            ..GpuUsage::default()
        }
    }

    fn cool() -> GpuUsage {
        GpuUsage {
            index: 2,
            percent: Some(30.0),
            memory_percent: Some(0.0),
            temp_c: Some(41.0),
            mem_used_mb: Some(0),
            mem_total_mb: Some(8_192),
            power_limit_w: Some(150.0),
            ..GpuUsage::default()
        }
    }

    const NOTHING: FlatGpu = FlatGpu {
        percent: None,
        memory_percent: None,
        temp_c: None,
        mem_used_mb: None,
        mem_total_mb: None,
        power_w: None,
        power_limit_w: None,
    };

    const BUSY_ALONE: FlatGpu = FlatGpu {
        percent: Some(90.0),
        memory_percent: Some(75.0),
        temp_c: Some(66.0),
        mem_used_mb: Some(18_432),
        mem_total_mb: Some(24_576),
        power_w: Some(341.5),
        power_limit_w: Some(350.0),
    };

    const BUSY_AND_COOL: FlatGpu = FlatGpu {
        percent: Some(60.0),
        memory_percent: Some(56.25),
        temp_c: Some(66.0),
        mem_used_mb: Some(18_432),
        mem_total_mb: Some(32_768),
        power_w: Some(341.5),
        power_limit_w: Some(500.0),
    };

    #[test]
    fn a_gpu_has_a_part_only_in_what_it_answered() {
        for (gpus, flat) in [
            (vec![], NOTHING),
            (vec![silent()], NOTHING),
            (vec![busy()], BUSY_ALONE),
            (vec![silent(), busy()], BUSY_ALONE),
            (vec![busy(), cool()], BUSY_AND_COOL),
            (vec![cool(), silent(), busy()], BUSY_AND_COOL),
        ] {
            assert_eq!(flatten(&gpus), flat, "{gpus:?}");
        }
    }

    #[test]
    fn half_an_answer_about_memory_is_none() {
        let half = GpuUsage { mem_used_mb: Some(99_999), ..silent() };
        assert_eq!(flatten(&[half, busy()]), BUSY_ALONE);
        let empty = GpuUsage { mem_used_mb: Some(0), mem_total_mb: Some(0), ..silent() };
        assert_eq!(flatten(&[empty]).memory_percent, None);
    }
}
