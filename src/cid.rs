//! Content addresses: what a file is called on IPFS, worked out from its bytes alone.
//!
//! The same as `ipfs add --cid-version=1 --raw-leaves`, or for version 0 as plain `ipfs add` gives it:
//! chunks of 256 KiB are the leaves of a balanced tree of 174 links a node, each node encoded as
//! DAG-PB with a UnixFS file in it and known by its SHA-256. The hashes are taken as the bytes go by,
//! and of the tree only the spine is kept: a chunk and 174 links a level, however long the file.

mod text;

use std::fmt;
use std::io::{self, ErrorKind, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The hash by which a block is known.
type Hash = [u8; 32];

const CHUNK: usize = 256 << 10;

/// Links in a node of the tree.
const LINKS: usize = 174;

/// How a content address is made and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `Qm…`, where the leaves are DAG-PB too.
    V0,
    /// `bafk…` for a file of one chunk, else `bafy…`.
    V1,
}

/// What the block is that an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    V0,
    /// Version 1, of a node.
    Node,
    /// Version 1, of bytes as they are.
    Raw,
}

/// A content address: one of those forms, and a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cid {
    form: Form,
    hash: Hash,
}

/// Shown as it is written.
impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A file by its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) cid: Cid,
    /// Of the whole, in hexadecimal.
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
}

/// Reads to the end, and says what that is called.
pub(crate) fn address(file: &mut impl Read, version: Version) -> io::Result<Address> {
    address_in_chunks(file, version, CHUNK)
}

fn address_in_chunks(file: &mut impl Read, version: Version, size: usize) -> io::Result<Address> {
    let mut tree = Tree { version, levels: vec![] };
    let (mut whole, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; size];
    loop {
        let length = fill(file, &mut chunk)?;
        // The one chunk of an empty file is empty.
        if length > 0 || bytes == 0 {
            whole.update(&chunk[..length]);
            bytes += length as u64;
            tree.add(0, leaf(version, &chunk[..length]));
        }
        if length < size {
            let sha256 = crate::text::hex(&whole.finalize());
            return Ok(Address { cid: tree.root(), sha256, bytes });
        }
    }
}

/// Reads until `chunk` is full or the file at its end.
fn fill(file: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match file.read(&mut chunk[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A block, as the node above it refers to it.
struct Link {
    cid: Cid,
    /// How many of the file's bytes are below it.
    content: u64,
    /// How long it and all blocks below it are together.
    size: u64,
}

/// What is not yet below a node, level by level from the leaves up.
struct Tree {
    version: Version,
    levels: Vec<Vec<Link>>,
}

impl Tree {
    fn add(&mut self, level: usize, link: Link) {
        if level == self.levels.len() {
            self.levels.push(vec![]);
        }
        self.levels[level].push(link);
        if self.levels[level].len() == LINKS {
            self.close(level);
        }
    }

    /// Puts what waits on this level below one node of the next.
    fn close(&mut self, level: usize) {
        let links = std::mem::take(&mut self.levels[level]);
        self.add(level + 1, node(self.version, &links));
    }

    /// Closes level after level, up to the one link that is above all.
    fn root(mut self) -> Cid {
        let mut level = 0;
        loop {
            match self.levels[level].as_slice() {
                [] => {}
                [root] if level + 1 == self.levels.len() => return root.cid,
                _ => self.close(level),
            }
            level += 1;
        }
    }
}

fn leaf(version: Version, chunk: &[u8]) -> Link {
    let content = chunk.len() as u64;
    match version {
        Version::V0 => {
            let file = unixfs(chunk, content, &[]);
            block(Form::V0, &field(1, &file), content, 0)
        }
        Version::V1 => block(Form::Raw, chunk, content, 0),
    }
}

fn node(version: Version, links: &[Link]) -> Link {
    let form = match version {
        Version::V0 => Form::V0,
        Version::V1 => Form::Node,
    };
    let mut bytes = vec![];
    for Link { cid, size, .. } in links {
        // Its hash, its name, which is empty, and its size.
        let link = [field(1, &cid.bytes()), field(2, &[]), number(3, *size)].concat();
        bytes.extend(field(2, &link));
    }
    let content = links.iter().map(|link| link.content).sum();
    bytes.extend(field(1, &unixfs(&[], content, links)));
    block(form, &bytes, content, links.iter().map(|link| link.size).sum())
}

fn block(form: Form, bytes: &[u8], content: u64, below: u64) -> Link {
    let hash = Sha256::digest(bytes).into();
    Link { cid: Cid { form, hash }, content, size: bytes.len() as u64 + below }
}

/// The type, which is a file's, the bytes, how many there are and how many below each link.
fn unixfs(data: &[u8], content: u64, links: &[Link]) -> Vec<u8> {
    let mut bytes = number(1, 2);
    if !data.is_empty() {
        bytes.extend(field(2, data));
    }
    bytes.extend(number(3, content));
    bytes.extend(links.iter().flat_map(|link| number(4, link.content)));
    bytes
}

/// A field of a protocol buffer that holds bytes.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    field.extend(varint(bytes.len() as u64));
    field.extend(bytes);
    field
}

/// A field of a protocol buffer that holds a number.
fn number(tag: u8, value: u64) -> Vec<u8> {
    let mut field = vec![tag << 3];
    field.extend(varint(value));
    field
}

/// Seven bits a byte, the lowest first; all but the last byte have the eighth set.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests;
