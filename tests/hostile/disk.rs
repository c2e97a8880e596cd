//! Scripts that want more disk than they may have.
