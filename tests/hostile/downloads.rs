//! Servers that a job downloads from, and addresses that it may not reach.
