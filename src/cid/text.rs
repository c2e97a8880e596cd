//! How a content address is written, and read from what a job says.

use std::fmt;
use std::str::FromStr;

use super::{Cid, Form, Hash};
use crate::text;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// SHA-256, and how long it is.
const SHA256: [u8; 2] = [0x12, 32];

/// How long an address is in letters, by its version.
const V0_LETTERS: usize = 46;
const V1_LETTERS: usize = 59;

/// Why a text is no content address that is understood here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{said}\" is no content address: {why}")]
pub(crate) struct BadCid {
    said: String,
    why: &'static str,
}

impl Cid {
    /// As it stands in the link of a node.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let prefix: &[u8] = match self.form {
            Form::V0 => &[],
            Form::Node => &[1, 0x70],
            Form::Raw => &[1, 0x55],
        };
        [prefix, &SHA256, &self.hash].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let (form, multihash) = match bytes {
            [0x12, ..] => (Form::V0, bytes),
            [1, 0x70, rest @ ..] => (Form::Node, rest),
            [1, 0x55, rest @ ..] => (Form::Raw, rest),
            [1, ..] => return Err("it names neither a file's bytes (raw) nor a file (dag-pb)"),
            _ => return Err("there are versions 0 and 1"),
        };
        let hash = multihash.strip_prefix(&SHA256).and_then(|hash| Hash::try_from(hash).ok());
        Ok(Self { form, hash: hash.ok_or("its hash is no SHA-256")? })
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::V0 => f.write_str(&base58(&self.bytes())),
            Form::Node | Form::Raw => write!(f, "b{}", base32(&self.bytes())),
        }
    }
}

/// With `ipfs://` before it or without.
impl FromStr for Cid {
    type Err = BadCid;

    fn from_str(said: &str) -> Result<Self, BadCid> {
        let bad = |why| BadCid { said: text::one_line(said, 80), why };
        let cid = said.strip_prefix("ipfs://").unwrap_or(said);
        if cid.contains('/') {
            return Err(bad("only whole files are understood, no path below one"));
        }
        let bytes = match (cid.as_bytes(), cid.len()) {
            ([b'Q', b'm', ..], V0_LETTERS) => unbase58(cid.as_bytes()),
            ([b'b', letters @ ..], V1_LETTERS) => unbase32(letters),
            ([b'Q', b'm', ..] | [b'b', ..], _) => return Err(bad("it is not of the right length")),
            _ => return Err(bad("it begins with Qm, or with b in base 32, such as bafk…")),
        };
        let bytes = bytes.ok_or_else(|| bad("a letter in it is wrong"))?;
        Self::from_bytes(&bytes).map_err(bad)
    }
}

impl TryFrom<String> for Cid {
    type Error = BadCid;

    fn try_from(said: String) -> Result<Self, BadCid> {
        said.parse()
    }
}

impl From<Cid> for String {
    fn from(cid: Cid) -> Self {
        cid.to_string()
    }
}

/// Five bits a letter, the highest first, without padding.
fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let letter = |at: usize| (at..at + 5).fold(0, |value, at| value << 1 | usize::from(bit(at)));
    (0..bytes.len() * 8).step_by(5).map(|at| char::from(BASE32[letter(at)])).collect()
}

/// Nothing if a letter is wrong, or if the bits that are left over are not zeros: then another text
/// would name the same.
fn unbase32(letters: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (vec![], 0_u32, 0);
    for letter in letters {
        let value = BASE32.iter().zip(0..).find(|(known, _)| *known == letter)?.1;
        bits = bits << 5 | value;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 5).then_some(bytes)
}

/// The bytes as one number, in base 58. A leading zero would be a 1, and addresses have none.
fn base58(bytes: &[u8]) -> String {
    let mut digits: Vec<u32> = vec![];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += *digit << 8;
            (*digit, carry) = (carry % 58, carry / 58);
        }
        while carry > 0 {
            digits.push(carry % 58);
            carry /= 58;
        }
    }
    digits.iter().rev().map(|digit| char::from(BASE58[*digit as usize])).collect()
}

fn unbase58(letters: &[u8]) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = vec![];
    for letter in letters {
        let mut carry: u32 = BASE58.iter().zip(0..).find(|(known, _)| *known == letter)?.1;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        if carry > 0 {
            bytes.push(u8::try_from(carry).ok()?);
        }
    }
    bytes.reverse();
    Some(bytes)
}
