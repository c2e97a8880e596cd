//! Downloads what a job names by its URL: bounded, checked, and never from a private network that the
//! worker stands in, unless its owner allows it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::text;

/// The largest file.
const BYTES_MAX: u64 = 10 << 30;
const CONNECT: Duration = Duration::from_secs(30);
/// From the request to the last byte.
const WHOLE: Duration = Duration::from_secs(3600);
const CHUNK: usize = 64 << 10;

/// What is to be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// In hexadecimal, if the job gave one.
    pub(crate) sha256: Option<&'a str>,
    /// Whether loopback and private addresses will do.
    pub(crate) private: bool,
}

/// Why there is no file, in one line for a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The server's fault, or that of whoever named it.
    Theirs(String),
    /// This machine cannot keep it.
    Ours(String),
}

/// Writes the file, and calls `report` with the bytes so far and, if known, in all.
pub(crate) fn fetch(
    wanted: Wanted<'_>,
    to: &Path,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Error> {
    let shown = shown(wanted.url);
    let told = |error: String| Error::Theirs(format!("cannot download {shown}: {error}"));
    let ours = |error: io::Error| Error::Ours(format!("cannot keep {shown}: {error}"));
    let reply =
        agent(wanted.private).get(wanted.url).call().map_err(|error| told(text_of(&error)))?;
    let size = reply.body().content_length();
    if size.is_some_and(|size| size > BYTES_MAX) {
        return Err(told(too_large(size)));
    }
    let mut body = reply.into_body().into_with_config().limit(u64::MAX).reader();
    let mut file = File::create(to).map_err(ours)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match body.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(told(error.to_string())),
        };
        bytes += length as u64;
        if bytes > BYTES_MAX {
            return Err(told(too_large(None)));
        }
        hash.update(&chunk[..length]);
        file.write_all(&chunk[..length]).map_err(ours)?;
        report(bytes, size);
    }
    if size.is_some_and(|size| size != bytes) {
        return Err(told(format!("it ended after {bytes} bytes")));
    }
    let found = text::hex(&hash.finalize());
    match wanted.sha256 {
        Some(wanted) if wanted != found => {
            Err(told(format!("its sha256 is {found}, the job says {wanted}")))
        }
        _ => Ok(()),
    }
}

/// Without what may be a secret: a name and password before the host, and all behind the path.
fn shown(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = path.split_once("://").unwrap_or(("", path));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    text::one_line(&format!("{scheme}://{host}{path}"), 200)
}

fn too_large(size: Option<u64>) -> String {
    let size = size.map_or_else(|| "more".into(), text::size);
    format!("it has {size}, the most is {}", text::size(BYTES_MAX))
}

fn agent(private: bool) -> Agent {
    let config = Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .proxy(None)
        .build();
    Agent::with_parts(config, DefaultConnector::new(), Public { private })
}

fn text_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the server answered {code}"),
        ureq::Error::Io(error) => text::one_line(&error.to_string(), 200),
        ureq::Error::BadUri(_) => "this is no URL".into(),
        other => text::one_line(&other.to_string(), 200),
    }
}

/// Finds addresses, and keeps those that everybody could reach. Each redirect passes here too, and what
/// is connected to is what was looked at.
#[derive(Debug)]
struct Public {
    private: bool,
}

impl Resolver for Public {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found.iter().filter(|address| self.private || is_public(address.ip())) {
            kept.push(*address);
        }
        if kept.is_empty() {
            let host = uri.host().unwrap_or_default();
            let problem = format!(
                "{host} is on a private network, which the provider does not allow \
                 (allow-private-downloads)"
            );
            return Err(io::Error::other(problem).into());
        }
        Ok(kept)
    }
}

/// Whether an address belongs to the internet.
fn is_public(address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests;
