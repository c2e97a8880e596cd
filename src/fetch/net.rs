//! Requests to servers that a job names: patient with slow ones, and not to addresses of a private network
//! that the worker stands in, unless its owner allows it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::{text, tls};

const CONNECT: Duration = Duration::from_secs(30);
/// From the request to the last byte of its answer. A job's own time limit is shorter as a rule.
const WHOLE: Duration = Duration::from_secs(24 * 3600);
/// Without a single byte either way.
const SILENCE: Duration = Duration::from_secs(60);

/// Sends requests that a job asks for. `private` says whether loopback and private addresses will do.
pub(crate) fn agent(private: bool, trust: TlsConfig) -> Agent {
    agent_for(if private { |_| true } else { is_public }, trust)
}

pub(super) fn agent_for(allows: fn(IpAddr) -> bool, trust: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .tls_config(trust)
        .middleware(tls::after_1970)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("qubix-worker/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::new(), Allowed { allows })
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Cut {
    /// It may do better another time.
    Again(String),
    Over(String),
}

impl Cut {
    pub(crate) fn of_error(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::BadUri(_) => Self::Over("this is no URL".into()),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Over(text::one_line(&error.to_string(), 200))
            }
            ureq::Error::Io(error) => Self::Again(text::one_line(&error.to_string(), 200)),
            ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Self::Again(text::one_line(&error.to_string(), 200)),
            other => Self::Over(text::one_line(&other.to_string(), 200)),
        }
    }

    pub(crate) fn of_status(status: u16, said: &str) -> Self {
        let said = text::one_line(said, 200);
        let colon = if said.is_empty() { "" } else { ": " };
        let told = format!("the server answered {status}{colon}{said}");
        match status {
            408 | 429 | 500.. => Self::Again(told),
            _ => Self::Over(told),
        }
    }
}

/// Without what may be a secret: a name and password before the host, and all behind the path.
pub(crate) fn shown(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = path.split_once("://").unwrap_or(("", path));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    text::one_line(&format!("{scheme}://{host}{path}"), 200)
}

/// Finds addresses, and keeps those that are allowed. Each redirect passes here too, and what is connected
/// to is what was looked at.
#[derive(Debug)]
struct Allowed {
    allows: fn(IpAddr) -> bool,
}

impl Resolver for Allowed {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found.iter().filter(|address| (self.allows)(address.ip())) {
            kept.push(*address);
        }
        if kept.is_empty() {
            let host = uri.host().unwrap_or_default();
            let problem = format!(
                "{host} is on a private network, which the provider does not allow \
                 (allow-private-downloads)"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem).into());
        }
        Ok(kept)
    }
}

/// Whether an address belongs to the internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let assigned = a == 192 && b == 0 && c == 0;
    let benchmarks = a == 198 && b & 0xfe == 18;
    !(a == 0
        || a >= 240
        || shared
        || assigned
        || benchmarks
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Addresses that stand for one of version 4: mapped, by NAT64, by 6to4.
    let low = || {
        let [.., a, b] = segments;
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(low()),
        [0x2002, a, b, ..] => {
            let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // All that is given out lies in 2000::/3, but for protocols (2001::/23: Teredo's stand for
        // addresses of version 4) and for books.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
