//! Whether the backend is there, by what way, and takes us for who we are.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Check;
use crate::backend::{Backend, Error, Probe};
use crate::clock;
use crate::config::{Config, Connection, read_token};

/// A clock that is off by more makes time stamps wrong that others go by.
const SKEW_MAX: Duration = Duration::from_secs(60);

const SET_CLOCK: &str = "timedatectl set-ntp true, and look at `date`";

pub(super) fn checks(config: &Config, root: &Path) -> Vec<Check> {
    let token = token(&config.connection);
    // Without it we are refused, which would be the same finding once more.
    let has_token = matches!(token.verdict, super::Verdict::Ok(_));
    let mut checks = vec![token];
    let (proxy, way_is_open) = proxy(&config.connection);
    checks.push(proxy);
    if !way_is_open {
        return checks;
    }
    let token_file = config.connection.token_file.clone().filter(|_| has_token);
    let connection = Connection { token_file, ..config.connection.clone() };
    let backend = match Backend::new(&connection, "worker-doctor".into()) {
        Ok(backend) => backend,
        Err(problems) => {
            let fix = "give a PEM file of certificates, or none";
            checks.push(Check::fail("backend", problems.to_string(), fix));
            return checks;
        }
    };
    match backend.probe() {
        Ok(probe) => {
            checks.push(answer(&config.connection, &probe, has_token));
            checks.push(skew(probe.date, clock::wall(), root));
        }
        Err(error) => checks.push(silence(&connection, &error)),
    }
    checks
}

fn token(connection: &Connection) -> Check {
    let Some(file) = &connection.token_file else {
        return Check::ok("token", "none is given");
    };
    let shown = file.display();
    match read_token(file) {
        Ok(_) => Check::ok("token", format!("{shown}, readable by its owner only")),
        Err(problems) => {
            let fix =
                format!("put the backend's token into {shown}, on one line, and chmod 600 {shown}");
            Check::fail("token", problems.to_string(), fix)
        }
    }
}

/// The proxy in use, and whether it leads anywhere.
fn proxy(connection: &Connection) -> (Check, bool) {
    let name = "proxy";
    if connection.backend.is_loopback {
        return (Check::ok(name, "none: the backend is on this machine"), true);
    }
    let uri = connection.backend.base.parse();
    let proxy =
        ureq::Proxy::try_from_env().filter(|proxy| !uri.is_ok_and(|uri| proxy.is_no_proxy(&uri)));
    let Some(proxy) = proxy else { return (Check::ok(name, "none"), true) };
    // Without user and password.
    let place = format!("{}:{}", proxy.host(), proxy.port());
    match knock(&place, connection.request_timeout) {
        Ok(()) => (Check::ok(name, format!("{place}, by the environment")), true),
        Err(cause) => {
            let host = host(connection);
            let fix =
                format!("correct HTTPS_PROXY or HTTP_PROXY, or go without one: NO_PROXY={host}");
            let what = format!("the environment's proxy {place} does not answer: {cause}");
            (Check::fail(name, what, fix), false)
        }
    }
}

fn knock(place: &str, within: Duration) -> Result<(), String> {
    let addresses = place.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut why = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, within) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

fn host(connection: &Connection) -> String {
    let host = connection.backend.base.split("://").nth(1).unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned()
}

/// What an answer says of who gave it.
fn answer(connection: &Connection, probe: &Probe, has_token: bool) -> Check {
    let Probe { status, json, message, .. } = probe;
    let base = &connection.backend.base;
    let fail = |what: String, fix: &str| Check::fail("backend", what, fix);
    match (status, json) {
        (401 | 403, true) if connection.token_file.is_none() => fail(
            format!("{base} wants a token: {status} {message}"),
            "put the token that it gave you into a file, chmod 600, and give --token-file",
        ),
        // That there is no token to send is said already.
        (401 | 403, true) if !has_token => Check::ok("backend", format!("{base} answers")),
        (401 | 403, true) => fail(
            format!("{base} refuses the token: {status} {message}"),
            "get a new token there, and put it into the token file",
        ),
        (300..=399, _) => fail(
            format!("{base} is no backend: {status}, {message}"),
            "give the URL that it moved to as --backend; if that is a login page, log in to this network",
        ),
        (500.., _) => fail(
            format!("{base} is there, and has trouble: {status} {message}"),
            "wait, or ask who runs it; a worker tries again by itself",
        ),
        // Some backends do not tell of jobs, and say so with a page.
        (_, true) | (404, false) => Check::ok("backend", format!("{base} answers")),
        (_, false) => fail(
            format!("{base} answers {status} with something else than JSON: {message}"),
            "look at it in a browser: a login page of this network, or not the backend's URL",
        ),
    }
}

/// Why nobody answered.
fn silence(connection: &Connection, error: &Error) -> Check {
    let (what, host) = (error.to_string(), host(connection));
    let says = |words: &str| what.contains(words);
    let fix = if says("certificate of an authority as its own") {
        "a certificate that signs others cannot be a server's too".into()
    } else if says("UnknownIssuer") || says("BadSignature") {
        "its certificate is of an authority that is not known here: give that one's with --ca-cert FILE".into()
    } else if says("expired") || says("Expired") {
        format!("have the certificate of {host} renewed; if `date` is wrong here, {SET_CLOCK}")
    } else if says("not valid yet") || says("NotValidYet") {
        format!("`date` is behind here, or the certificate is for later: {SET_CLOCK}")
    } else if says("not valid for name") || says("NotValidForName") {
        "its certificate is for another name: give that name in --backend".into()
    } else if says("InvalidContentType") || says("invalid peer") || says("corrupt message") {
        "it speaks no TLS there: write http:// in --backend, or the port of its https".into()
    } else if says("no such host") || says("lookup address") {
        format!(
            "look at the spelling of --backend; if it is right, at the DNS: getent hosts {host}"
        )
    } else if says("refused") {
        "nothing listens there: look at host and port of --backend; to try without one: worker mock-backend".into()
    } else if says("deadline") || says("timed out") || says("unreachable") {
        format!(
            "look whether {host} can be reached at all: a firewall, a cable, a VPN; else raise --request-timeout"
        )
    } else {
        "look at --backend: is it http or https, and this port?".into()
    };
    Check::fail("backend", what, fix)
}

/// How far our clock is from the backend's.
fn skew(theirs: Option<SystemTime>, ours: SystemTime, root: &Path) -> Check {
    let Some(theirs) = theirs else {
        let is_set = root.join("run/systemd/timesync/synchronized").exists();
        let told = if is_set { "set by the network" } else { "the backend does not tell the time" };
        return Check::ok("clock", told);
    };
    let (off, where_) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if off <= SKEW_MAX {
        return Check::ok("clock", "agrees with the backend's");
    }
    let off = humantime::format_duration(Duration::from_secs(off.as_secs()));
    Check::fail("clock", format!("this machine's clock is {off} {where_} the backend's"), SET_CLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Verdict;

    #[test]
    fn a_clock_may_be_off_by_a_minute_either_way() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let second = Duration::from_secs(1);
        let root = Path::new("/nowhere");
        for theirs in [now - SKEW_MAX, now, now + SKEW_MAX] {
            assert!(matches!(skew(Some(theirs), now, root).verdict, Verdict::Ok(_)));
        }
        for (theirs, told) in [
            (now - SKEW_MAX - second, "this machine's clock is 1m 1s ahead of the backend's"),
            (now + SKEW_MAX + second, "this machine's clock is 1m 1s behind the backend's"),
        ] {
            let check = skew(Some(theirs), now, root);
            assert_eq!(check, Check::fail("clock", told, SET_CLOCK));
        }
    }
}
