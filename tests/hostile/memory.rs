//! Scripts that want more memory than they may have.
