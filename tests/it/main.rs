//! The real binary against a backend: one that is scripted with the protocol's literals, and the
//! embedded one.

#![expect(clippy::unwrap_used, reason = "a test helper that fails should panic")]

mod bars;
mod bench;
mod breaker;
mod campaign;
mod cancelling;
mod children;
mod clock;
mod command_line;
mod completing;
mod credentials;
mod doctor;
mod failing_disks;
mod faults;
mod fields;
mod gpus;
#[path = "../hostile/mod.rs"]
mod hostile;
mod learning;
mod lease;
mod legacy;
mod life;
mod limits;
mod machine;
mod moving;
mod odd_jobs;
mod odd_replies;
mod offered_again;
mod outage;
mod owner;
mod page;
mod register;
mod reload;
mod scripts;
mod service;
#[cfg(feature = "crash-points")]
mod soak;
mod stages;
mod stopping;
mod support;
mod telling;
mod tls;
