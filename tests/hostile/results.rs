//! Results that are too large, too deep, or too many.
