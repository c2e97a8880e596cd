//! Offers and replies of a hostile backend.
