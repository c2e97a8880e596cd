//! Secrets that somebody tries to see.
