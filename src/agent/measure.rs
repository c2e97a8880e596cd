//! Measures the processor in a child of this binary, which can be stopped at any time.

use std::io::PipeReader;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::process::{Child, Program, Stream, Woken};
use crate::reading::{Measured, Speed};
use crate::store::write_speed;
use crate::{cli, clock, machine, runner};

/// Far more than the 3.5 s that it takes on a machine with nothing else to do.
const BOUND: Duration = Duration::from_secs(30);

/// The line by which the child tells what came out.
#[derive(Deserialize)]
struct Told {
    result: Measured,
}

/// Measures, and keeps the figure in the state directory; nothing if told to stop by `orders`, by a
/// byte or by their end.
///
/// # Errors
/// The child failed, or the machine was too busy for its figure to mean anything.
pub(super) fn run(orders: &PipeReader, state_dir: &Path) -> Option<Result<f64, String>> {
    let measured = match watch(&runner::speed(cli::SPEED), orders).transpose()? {
        Ok(measured) => measured,
        Err(error) => return Some(Err(error)),
    };
    let gflops = measured.gflops;
    let speed = Speed::new(measured, &machine::specs(state_dir, vec![]));
    let kept = write_speed(state_dir, &speed);
    Some(kept.map(|_| gflops).map_err(|error| error.to_string()))
}

fn watch(program: &Program, orders: &PipeReader) -> Result<Option<Measured>, String> {
    let failed = |error: std::io::Error| format!("cannot measure the processor: {error}");
    // Whichever way this ends, dropping the child kills its group.
    let mut child = Child::start(program, None).map_err(failed)?;
    let (mut told, mut complaint) = (None, String::new());
    let mut sink = |stream, line: &str| match stream {
        Stream::Stdout => told = serde_json::from_str(line).ok().or_else(|| told.take()),
        Stream::Stderr => line.clone_into(&mut complaint),
    };
    child.release().map_err(failed)?;
    let until = clock::since_boot() + BOUND;
    loop {
        let left = until.saturating_sub(clock::since_boot());
        if left.is_zero() {
            return Err(format!("measuring the processor took longer than {} s", BOUND.as_secs()));
        }
        match child.wait(left, Some(orders), &mut sink).map_err(failed)? {
            Woken::Exited => break,
            Woken::Order(_) => return Ok(None),
            Woken::Timeout => {}
        }
    }
    let status = child.finish(&mut sink).map_err(failed)?;
    let told = told.map(|Told { result }| result);
    let Some(measured) = told.filter(|told| status.success() && told.is_plausible()) else {
        return Err(format!("measuring the processor failed ({status}): {complaint}"));
    };
    if !measured.is_quiet() {
        let percent = measured.cpu_share * 100.0;
        return Err(format!(
            "the machine is busy: measuring its processor got {percent:.0} % of the time"
        ));
    }
    Ok(Some(measured))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};

    use super::*;

    /// A shell that waits for its byte, as the measurement does, and then runs `script`.
    fn shell(script: &str) -> Program {
        Program {
            mark: format!("test-{}", fastrand::u64(..)).into(),
            path: "/bin/sh".into(),
            args: vec!["-c".into(), format!("read go || exit 9; {script}").into()],
            env: vec![("PATH", "/usr/bin:/bin".into())],
            dir: "/".into(),
            is_wrapped: false,
        }
    }

    fn tells(share: f64) -> Program {
        let measured = Measured {
            gflops: 150.0,
            cpu_share: share,
            seconds: 3.0,
            threads: 2,
            vectors: "AVX2".into(),
        };
        let result = serde_json::to_string(&measured).unwrap();
        shell(&format!("echo '{{\"progress\":50}}'; echo '{{\"result\":{result}}}'; echo bye"))
    }

    #[test]
    fn the_result_is_taken_from_among_the_lines() {
        let (orders, _giver) = io::pipe().unwrap();
        let found = watch(&tells(0.95), &orders).unwrap().unwrap();
        assert_eq!((found.gflops, found.cpu_share), (150.0, 0.95));
    }

    #[test]
    fn the_figure_of_a_busy_machine_is_refused() {
        let (orders, _giver) = io::pipe().unwrap();
        let refused = watch(&tells(0.5), &orders).unwrap_err();
        assert_eq!(refused, "the machine is busy: measuring its processor got 50 % of the time");
    }

    #[test]
    fn a_child_that_fails_says_why() {
        let (orders, _giver) = io::pipe().unwrap();
        let failed = watch(&shell("echo 'worker: no room' >&2; exit 1"), &orders).unwrap_err();
        assert_eq!(failed, "measuring the processor failed (exit status: 1): worker: no room");
    }

    #[test]
    fn an_order_or_their_end_stops_it_at_once() {
        let endless = shell("while :; do :; done");
        let (orders, mut giver) = io::pipe().unwrap();
        giver.write_all(b"s").unwrap();
        assert_eq!(watch(&endless, &orders), Ok(None));
        drop(giver);
        assert_eq!(watch(&endless, &orders), Ok(None));
    }
}
