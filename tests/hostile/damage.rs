//! A state directory with a file damaged, replaced or missing.
