//! The name under which this worker is known: stable for one machine and state directory, and
//! telling nobody which machine it is.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Keeps these hashes apart from those that other programs make of the same machine id.
const DOMAIN: &[u8] = b"qubix-worker worker id 1";

const ID_BYTES: usize = 16;

/// Returns 32 hex digits. `state_dir` should be absolute and free of links, or one directory gets
/// two names.
pub(crate) fn worker_id(machine_id: Option<&str>, state_dir: &Path, random: u128) -> String {
    match machine_id {
        Some(machine_id) => keyed_hash(machine_id, state_dir),
        None => as_id(random),
    }
}

/// The machine id is the key: 128 bits that nobody guesses, so the hash does not reveal it, as
/// machine-id(5) asks.
fn keyed_hash(machine_id: &str, state_dir: &Path) -> String {
    let mut hash = Sha256::new();
    for part in [DOMAIN, machine_id.as_bytes(), state_dir.as_os_str().as_bytes()] {
        hash.update(part);
        // No part holds a zero byte, so two different triples never give the same text.
        hash.update([0]);
    }
    let first = hash.finalize().into_iter().take(ID_BYTES);
    as_id(first.fold(0, |id, byte| id << 8 | u128::from(byte)))
}

fn as_id(number: u128) -> String {
    format!("{number:032x}")
}

/// Returns this machine's id, or nothing where it has none yet, as in many containers.
pub(crate) fn read_machine_id() -> Option<String> {
    // A file that is absent or unreadable is no id; the other one or a random number stands in.
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|text| parse_machine_id(&text))
}

/// The file may also hold the word `uninitialized`, or zeros.
fn parse_machine_id(text: &str) -> Option<String> {
    let id = text.trim();
    let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_set = id.bytes().any(|byte| byte != b'0');
    (is_hex && is_set).then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_id_never_changes_between_versions() {
        let id = worker_id(Some(MACHINE), Path::new("/var/lib/qubix-worker"), 7);
        assert_eq!(id, "90b1affe4d2d3dfd8e77e0ad3ffa86ae");
    }

    #[test]
    fn each_machine_and_directory_has_its_own_id() {
        let home = Path::new("/home/a/.local/state/qubix-worker");
        let id = worker_id(Some(MACHINE), home, 1);
        let other_machine = "f123456789abcdef0123456789abcdef";
        assert_eq!(id, worker_id(Some(MACHINE), home, 2), "chance has no part in it");
        assert_ne!(id, worker_id(Some(MACHINE), Path::new("/var/lib/qubix-worker"), 1));
        assert_ne!(id, worker_id(Some(other_machine), home, 1));
        assert_ne!(id, MACHINE);
    }

    #[test]
    fn without_a_machine_id_the_random_number_is_the_id() {
        let id = worker_id(None, Path::new("/var/lib/qubix-worker"), 0xabc);
        assert_eq!(id, "00000000000000000000000000000abc");
    }

    #[test]
    fn only_a_real_machine_id_counts() {
        for (text, id) in [
            ("0123456789abcdef0123456789abcdef\n", Some(MACHINE)),
            ("0123456789ABCDEF0123456789ABCDEF", Some(MACHINE)),
            ("uninitialized\n", None),
            ("", None),
            ("0123456789abcdef", None),
            ("+123456789abcdef0123456789abcdef", None),
            ("00000000000000000000000000000000\n", None),
        ] {
            assert_eq!(parse_machine_id(text).as_deref(), id, "{text:?}");
        }
    }
}
