//! Scripts that want more processes, signals and output than they may have.
