//! How each kind of value is written. An error is the rest of a sentence that begins with the text.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::Uri;

use super::{Format, Pull};
use crate::text;
use crate::work::{JobId, Kind};

/// Where the backend is, or another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendUrl {
    /// What the paths of the endpoints are put behind; no slash at its end.
    pub(crate) base: String,
    /// Scheme, host, port and path in one spelling: the books are kept apart by it.
    pub(crate) origin: String,
    /// On this very machine, where no proxy of the environment stands in between.
    pub(crate) is_loopback: bool,
}

impl BackendUrl {
    /// Where `worker mock-backend` listens.
    pub(super) fn local() -> Self {
        let url = "http://127.0.0.1:3001";
        Self { base: url.into(), origin: url.into(), is_loopback: true }
    }
}

pub(super) fn backend_url(typed: &str) -> Result<BackendUrl, String> {
    http_url(typed, "put the token into a file and give --token-file")
}

/// The API of an IPFS node.
pub(super) fn ipfs_api(typed: &str) -> Result<BackendUrl, String> {
    http_url(typed, "give the URL of an API that needs none")
}

fn http_url(typed: &str, instead_of_credentials: &str) -> Result<BackendUrl, String> {
    let wanted = "write http:// or https://, the host and, if need be, :port";
    if !typed.contains("://") {
        let host = typed.rsplit('@').next().unwrap_or(typed);
        return Err(format!("has no scheme: did you mean http://{host}?"));
    }
    let uri: Uri = typed.parse().map_err(|error| format!("is no URL ({error}): {wanted}"))?;
    let scheme = uri.scheme_str().unwrap_or_default().to_lowercase();
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(format!("is not an http(s) URL: {wanted}")),
    };
    let authority = uri.authority().ok_or_else(|| format!("names no host: {wanted}"))?;
    if authority.as_str().contains('@') {
        return Err(format!(
            "holds credentials, which would show in process lists and logs: {instead_of_credentials}"
        ));
    }
    if authority.host().is_empty() {
        return Err(format!("names no host: {wanted}"));
    }
    if uri.query().is_some() || typed.contains('#') {
        return Err("has a query or a fragment: leave out everything from ? or # on".into());
    }
    let path = uri.path().trim_end_matches('/');
    let host = authority.host().to_lowercase();
    let port = match authority.as_str().get(authority.host().len()..) {
        None | Some("" | ":") => default_port,
        Some(port) => match port.trim_start_matches(':').parse::<u16>() {
            Ok(port @ 1..) => port,
            _ => return Err("names no port: it is a number from 1 to 65535".into()),
        },
    };
    Ok(BackendUrl {
        base: format!("{scheme}://{authority}{path}"),
        origin: format!("{scheme}://{host}:{port}{path}"),
        is_loopback: is_loopback(&host),
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Where to listen; a port alone, or one of `localhost`, is the loopback's.
pub(super) fn listen(typed: &str) -> Result<SocketAddr, String> {
    let port = typed.strip_prefix("localhost:").unwrap_or(typed).parse::<u16>();
    let local = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    local.or_else(|_| typed.parse()).map_err(|_error: std::net::AddrParseError| {
        "is no address to listen on: write 9200 for this machine alone, or 192.168.1.20:9200".into()
    })
}

/// A duration between two bounds in seconds.
pub(super) fn duration(least: u64, most: u64) -> impl Fn(&str) -> Result<Duration, String> {
    move |typed| {
        let value = humantime::parse_duration(typed)
            .map_err(|error| format!("is no duration ({error}): write 30s, 5m or 1h30m"))?;
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        let nearest = humantime::format_duration(value.clamp(least, most));
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        Err(format!("is not between {least} and {most}; the nearest is {nearest}"))
    }
}

/// With the tests' feature also in milliseconds: a soak lives through many heartbeats in little time.
pub(super) fn heartbeat_interval(typed: &str) -> Result<Duration, String> {
    let is_test = cfg!(feature = "crash-points") && typed.ends_with("ms");
    let compressed = humantime::parse_duration(typed).ok().filter(|_| is_test);
    compressed.map_or_else(|| duration(1, 600)(typed), Ok)
}

/// A number of bytes, with its unit; nothing is also written 0.
pub(super) fn size(typed: &str) -> Result<u64, String> {
    let wanted = "write 500MB, 1GiB or 0";
    let end = typed.find(|c: char| !c.is_ascii_digit()).unwrap_or(typed.len());
    let (number, unit) = typed.split_at(end);
    let number: u64 = number.parse().map_err(|error| format!("is no size ({error}): {wanted}"))?;
    let bytes = match unit.trim().to_lowercase().as_str() {
        "" if number == 0 => 1,
        "" => return Err(format!("has no unit: did you mean {number}GiB?")),
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(format!("is no size: {wanted}")),
    };
    number.checked_mul(bytes).ok_or_else(|| "is more than any disk holds".to_owned())
}

/// A whole number between two bounds.
pub(super) fn count(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |typed| {
        let value: i64 = typed.parse().map_err(|error| format!("is no whole number ({error})"))?;
        let nearest = value.clamp(i64::from(least), i64::from(most));
        match u32::try_from(value) {
            Ok(value) if i64::from(value) == nearest => Ok(value),
            _ => Err(format!("is not between {least} and {most}; the nearest is {nearest}")),
        }
    }
}

pub(super) fn price(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(price) if price > 0.0 && price <= 1e9 => Ok(price),
        _ => Err("is no price: write a number above 0, such as 2.5".into()),
    }
}

/// What a kilowatt-hour costs: nothing, where the sun pays.
pub(super) fn electricity(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(price) if (0.0..=1e9).contains(&price) => Ok(price),
        _ => Err("is no price: write a number from 0 on, such as 0.25".into()),
    }
}

pub(super) fn switch(typed: &str) -> Result<bool, String> {
    match typed {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

pub(super) fn log_format(typed: &str) -> Result<Format, String> {
    match typed {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("is no log format: write text or json".into()),
    }
}

/// A text that is shown to people.
pub(super) fn label(typed: &str) -> Result<String, String> {
    if typed.is_empty() || typed.len() > 200 || text::clean(typed) != typed {
        return Err("must be 1 to 200 bytes of printable text".into());
    }
    Ok(typed.to_owned())
}

/// A worker id stands in URLs, so it keeps to what a job id may hold.
pub(super) fn id(typed: &str) -> Result<String, String> {
    JobId::parse(typed)
        .map(|id| id.as_str().to_owned())
        .ok_or_else(|| "is no id: up to 128 letters, digits and . _ : -".to_owned())
}

/// One or more, with commas between.
pub(super) fn list<T>(
    one: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |typed| typed.split(',').map(|part| one(part.trim())).collect()
}

/// A kind that is not run unless it is allowed.
pub(super) fn allowed_kind(typed: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.into_iter().filter(|kind| !Kind::ENGINE.contains(kind));
    known().find(|kind| kind.name() == typed).ok_or_else(|| {
        let names = known().map(Kind::name).collect::<Vec<_>>().join(", ");
        match Kind::by_name(typed).is_some_and(|kind| Kind::ENGINE.contains(&kind)) {
            true => format!("is always allowed: name one or more of {names}"),
            false => format!("is no kind that can be allowed: name one or more of {names}"),
        }
    })
}

/// A pattern of what images are called.
pub(super) fn image_pattern(typed: &str) -> Result<String, String> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"._/:@*-".contains(&b);
    let ok = !typed.is_empty() && typed.bytes().all(fit);
    ok.then(|| typed.to_owned()).ok_or_else(|| {
        "is no pattern of an image: write docker.io/library/python:*,ghcr.io/acme/*".to_owned()
    })
}

pub(super) fn pull(typed: &str) -> Result<Pull, String> {
    match typed {
        "missing" => Ok(Pull::Missing),
        "never" => Ok(Pull::Never),
        "always" => Ok(Pull::Always),
        _ => Err("must be missing, never or always".to_owned()),
    }
}

/// The name of a program, without its path.
pub(super) fn interpreter(typed: &str) -> Result<String, String> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    let ok =
        (1..=64).contains(&typed.len()) && typed.bytes().all(fit) && !typed.starts_with(['.', '-']);
    ok.then(|| typed.to_owned())
        .ok_or_else(|| "is no program's name: write python3,bash".to_owned())
}

pub(super) fn path(typed: &str) -> Result<PathBuf, String> {
    if typed.is_empty() { Err("names no file".into()) } else { Ok(PathBuf::from(typed)) }
}
