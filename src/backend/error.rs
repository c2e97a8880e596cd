//! What can go wrong with a call, and what that means for it.

use std::time::Duration;

/// A call that did not get its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No connection, no name, no TLS, or no answer within the deadline.
    #[error("{call}: {cause}")]
    Unreachable { call: String, cause: String },
    /// An answer that says no.
    #[error("{call}: {status}{}", if message.is_empty() { String::new() } else { format!(": {message}") })]
    Status {
        call: String,
        status: u16,
        /// Whether the backend itself said so, and not a proxy or a portal before it.
        json: bool,
        message: String,
        retry_after: Option<Duration>,
    },
    /// An answer that says yes and cannot be understood: a captive portal, a proxy's page, damage.
    #[error("{call}: {cause}")]
    Undecodable { call: String, cause: String },
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may pass: try again.
    Retry,
    /// The backend does not know what we speak of.
    NotFound,
    /// Our credentials were refused.
    Unauthorised,
    /// The same call will fail again.
    Final,
}

impl Error {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::Undecodable { .. } => Verdict::Retry,
            Self::Status { status, json, .. } => match (status, json) {
                (401 | 403, _) => Verdict::Unauthorised,
                (408 | 429 | 500.., _) => Verdict::Retry,
                // A page instead of JSON comes from something that stands before the backend.
                (400..500, false) => Verdict::Retry,
                (404, true) => Verdict::NotFound,
                _ => Verdict::Final,
            },
        }
    }

    /// How long the backend asked us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Undecodable { .. } => None,
        }
    }

    /// Whether it was the backend itself that refused our credentials.
    pub(crate) fn refuses_us(&self) -> bool {
        matches!(self, Self::Status { status: 401 | 403, json: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_verdict() {
        let verdict = |status, json| {
            let (call, message) = (String::new(), String::new());
            Error::Status { call, status, json, message, retry_after: None }.verdict()
        };
        for (status, json, expected) in [
            (301, true, Verdict::Final),
            (400, true, Verdict::Final),
            (400, false, Verdict::Retry),
            (401, true, Verdict::Unauthorised),
            (403, false, Verdict::Unauthorised),
            (404, true, Verdict::NotFound),
            (404, false, Verdict::Retry),
            (408, true, Verdict::Retry),
            (413, true, Verdict::Final),
            (429, true, Verdict::Retry),
            (500, true, Verdict::Retry),
            (503, false, Verdict::Retry),
        ] {
            assert_eq!(verdict(status, json), expected, "{status} json={json}");
        }
    }
}
