//! Archives and outputs that a job brings or leaves.
