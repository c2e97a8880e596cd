//! How fast this machine multiplies matrices, sustained, on all threads at once.
//!
//! It is the product of the `matmul` kernel without filling and checking: what a BLAS library
//! reports of itself.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::gemm::{FLOP, Matrices};
use super::vector::{Level, compiled_for};
use super::{Error, Progress};

/// Until the clock of the processor has settled to what it can sustain.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(3);
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What all threads reached together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sustained {
    pub(crate) gflops: f64,
    /// Of the time, which share the threads were really on a processor: less than 1.0 if others
    /// took it.
    pub(crate) cpu_share: f64,
    pub(crate) seconds: f64,
    /// Such as `AVX-512`.
    pub(crate) vectors: &'static str,
}

/// What one thread did between the warm-up and the end.
struct Run {
    products: u32,
    wall: f64,
    cpu: f64,
}

/// Measures for 3.5 s, and calls `report` on this thread ten times a second.
pub(crate) fn measure(
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<Sustained, Error> {
    measure_for(threads, WARM_UP, MEASURED, report)
}

fn measure_for(
    threads: usize,
    warm_up: Duration,
    measured: Duration,
    report: &mut dyn FnMut(Progress),
) -> Result<Sustained, Error> {
    let level = Level::best();
    let begin = Instant::now();
    let (from, to) = (begin + warm_up, begin + warm_up + measured);
    let runs: Vec<Run> = thread::scope(|scope| {
        let (send, results) = mpsc::channel();
        for number in 0..threads.max(1) {
            let send = send.clone();
            let name = format!("speed-{number}");
            thread::Builder::new()
                .name(name.clone())
                .spawn_scoped(scope, move || send.send(multiply(level, from, to)))
                .map_err(|source| Error::Thread { name, source })?;
        }
        drop(send);
        tell_until(begin, to, report);
        results.into_iter().collect::<Result<_, _>>()
    })?;
    report(progress(100));
    let wall = runs.iter().map(|run| run.wall).fold(0.0, f64::max);
    let products: f64 = runs.iter().map(|run| f64::from(run.products)).sum();
    let cpu: f64 = runs.iter().map(|run| run.cpu).sum();
    Ok(Sustained {
        gflops: products * FLOP / wall / 1e9,
        cpu_share: (cpu / runs.iter().map(|run| run.wall).sum::<f64>()).min(1.0),
        seconds: wall,
        vectors: level.name(),
    })
}

fn multiply(level: Level, from: Instant, to: Instant) -> Result<Run, Error> {
    let mut matrices = Matrices::new();
    let expected = compiled_for!(level, W => matrices.fill::<W>(0, 0));
    // Always once, or a machine that is very slow would have nothing to check.
    matrices.multiply(level);
    while Instant::now() < from {
        matrices.multiply(level);
    }
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut products = 0;
    while products == 0 || Instant::now() < to {
        matrices.multiply(level);
        products += 1;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    // A machine that multiplies wrongly has no speed.
    matrices.checksums(&expected).ok_or(Error::WrongProduct(0))?;
    Ok(Run { products, wall, cpu })
}

/// Of this thread, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn tell_until(begin: Instant, end: Instant, report: &mut dyn FnMut(Progress)) {
    let all = end.duration_since(begin).as_millis().max(1);
    loop {
        let percent = begin.elapsed().as_millis() * 100 / all;
        if percent >= 100 {
            return;
        }
        report(progress(u8::try_from(percent).unwrap_or(100)));
        // Nobody wakes us: we may be late, but take no time from the threads.
        thread::park_timeout(REPORT_EVERY);
    }
}

fn progress(percent: u8) -> Progress {
    Progress { percent, operation: "multiplying".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_speed_is_of_all_threads_and_tells_their_share() {
        for threads in [0, 1, 3] {
            let found = measure_for(threads, SHORT, SHORT, &mut |_| {}).unwrap();
            assert!(found.gflops > 0.0, "{found:?}");
            assert!(found.cpu_share > 0.0 && found.cpu_share <= 1.0, "{found:?}");
            assert!(found.seconds > 0.0, "{found:?}");
        }
    }

    #[test]
    fn the_end_is_reported_once_as_100() {
        let mut seen = vec![];
        measure_for(1, SHORT, SHORT, &mut |progress| seen.push(progress.percent)).unwrap();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(seen.iter().filter(|percent| **percent == 100).count(), 1);
    }
}
