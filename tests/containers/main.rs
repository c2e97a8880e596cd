//! Jobs in containers, with real podman and real docker, which `tests/containers/run` starts.

#![expect(clippy::unwrap_used, reason = "a test helper that fails should panic")]
#![expect(clippy::print_stderr, reason = "a failure is to say with which engine it failed")]

mod adopting;
mod engines;
mod fields;
mod horde;
mod inside;
mod lives;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use all of it")]
mod support;
