//! The subcommands, one file each. The only place that prints to stdout.

pub(crate) mod bench;
pub(crate) mod cid;
pub(crate) mod demo;
pub(crate) mod engine;
mod learn;
pub(crate) mod licenses;
pub(crate) mod limit;
pub(crate) mod mock_backend;
pub(crate) mod pause;
pub(crate) mod run;
pub(crate) mod specs;
pub(crate) mod status;

/// Tells a person why the program failed, cause by cause.
#[expect(clippy::print_stderr, reason = "the log may not have been started")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("worker: {error:#}");
}
