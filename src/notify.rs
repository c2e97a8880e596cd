//! Tells the service manager how we are: the datagrams of sd_notify(3).
//!
//! By hand: it is one socket, and one datagram a message.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A manager that does not read its socket holds us up for so long at most.
const SEND_FOR: Duration = Duration::from_millis(500);

/// Where to tell it, if anywhere: without a service manager every message goes nowhere.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// `address` is what `NOTIFY_SOCKET` holds: a path, or `@` and a name.
    pub(crate) fn new(address: Option<&OsStr>) -> Self {
        let to = address.and_then(|address| {
            let failed = |error| log::warn!("the service manager cannot be told anything: {error}");
            open(address).map_err(failed).ok()
        });
        Self { to }
    }

    pub(crate) fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// Sends assignments such as `READY=1`, one a line.
    pub(crate) fn tell(&self, lines: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(lines.as_bytes(), address) {
            log::debug!("the service manager was not told {lines:?}: {error}");
        }
    }
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            let problem = "NOTIFY_SOCKET is neither a path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_FOR))?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_reached_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        Notify::new(Some(path.as_os_str())).tell("READY=1");
        assert_eq!(heard(&by_path), "READY=1");

        let name = path.to_str().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        Notify::new(Some(OsStr::new(&format!("@{name}")))).tell("STATUS=online");
        assert_eq!(heard(&by_name), "STATUS=online");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for address in [None, Some(OsStr::new("vsock:2:1234")), Some(OsStr::new("/no/such/socket"))]
        {
            Notify::new(address).tell("READY=1");
        }
    }
}
