//! A machine on a bad day: no environment, no descriptors, no room, a clock that is wrong.
