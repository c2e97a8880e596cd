//! A question that changes nothing, to see whether a backend is there.

use std::time::SystemTime;

use super::{Backend, Error};

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) status: u16,
    /// Whether it speaks JSON, as a backend does.
    pub(crate) json: bool,
    /// Its clock.
    pub(crate) date: Option<SystemTime>,
    pub(crate) message: String,
}

impl Backend {
    /// Asks about a job that there is not. An error is that nobody answered.
    pub(crate) fn probe(&self) -> Result<Probe, Error> {
        let reply = self.get("/api/jobs/worker-doctor")?;
        let message = match &reply.location {
            Some(location) => format!("it moved to {location}"),
            None => reply.message(),
        };
        Ok(Probe {
            status: reply.status,
            json: reply.body.fields.is_ok(),
            date: reply.date,
            message,
        })
    }
}
