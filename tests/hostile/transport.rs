//! Proxies, names and TLS that fail or lie.
