//! A state directory that another user owns, fills with links, or can enter.
