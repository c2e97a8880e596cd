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
pub(crate) enum Advice {
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
    pub(crate) fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } | Self::Undecodable { .. } => Advice::Retry,
            Self::Status { status, json, .. } => match (status, json) {
                (401 | 403, _) => Advice::Unauthorised,
                (408 | 429 | 500.., _) => Advice::Retry,
                // A page instead of JSON comes from something that stands before the backend.
                (400..500, false) => Advice::Retry,
                (404, true) => Advice::NotFound,
                _ => Advice::Final,
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

    /// Whether what we sent is too large, for the backend or for a proxy before it.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
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
    fn each_answer_has_its_advice() {
        let advice = |status, json| {
            let (call, message) = (String::new(), String::new());
            Error::Status { call, status, json, message, retry_after: None }.advice()
        };
        for (status, json, expected) in [
            (301, true, Advice::Final),
            (400, true, Advice::Final),
            (400, false, Advice::Retry),
            (401, true, Advice::Unauthorised),
            (403, false, Advice::Unauthorised),
            (404, true, Advice::NotFound),
            (404, false, Advice::Retry),
            (408, true, Advice::Retry),
            (413, true, Advice::Final),
            (429, true, Advice::Retry),
            (500, true, Advice::Retry),
            (503, false, Advice::Retry),
        ] {
            assert_eq!(advice(status, json), expected, "{status} json={json}");
        }
    }
}
