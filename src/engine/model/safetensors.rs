//! The safetensors format: eight bytes of length, that much JSON, and the numbers of the tensors.
//!
//! Read as if by an enemy: nothing is allocated for what a header claims before it was held against
//! the bytes that are there. The crate of that name is not used: it keeps metadata in a hash map, so
//! that the same model would be written in another order each time, takes headers of up to 100 MB,
//! and lets a name stand twice.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Refusal, refuse, shape, shown};
use crate::text;

/// The longest header that is read.
const HEADER_MAX: u64 = 32 << 20;

/// The most names in a table of it.
const NAMES_MAX: usize = 10_000;

const METADATA: &str = "__metadata__";

/// Names and values in the order in which they stand, each name once.
pub(super) type Texts = Vec<(String, String)>;

#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) metadata: Texts,
    pub(super) tensors: Vec<Tensor<'a>>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    /// Four bytes a number, as many as the shape says.
    bytes: &'a [u8],
}

impl Tensor<'_> {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() / 4
    }

    pub(super) fn numbers(&self) -> Vec<f32> {
        let (numbers, _) = self.bytes.as_chunks();
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// What is written: a name, a shape, and the numbers.
pub(super) type Written<'a> = (String, Vec<usize>, &'a [f32]);

/// The same bytes for the same tensors, in their order.
pub(super) fn write(metadata: &[(&str, String)], tensors: &[Written<'_>]) -> Vec<u8> {
    let text = |(name, text): &(&str, String)| format!("{}:{}", json!(name), json!(text));
    let metadata: Vec<String> = metadata.iter().map(text).collect();
    let mut entries = vec![format!("\"{METADATA}\":{{{}}}", metadata.join(","))];
    let mut end = 0;
    for (name, shape, numbers) in tensors {
        let begin = end;
        end += size_of_val(*numbers);
        entries.push(format!(
            "{}:{{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[{begin},{end}]}}",
            json!(name),
            json!(shape)
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    // The numbers begin at a multiple of eight, as readers that map the file like it.
    let length = header.len().next_multiple_of(8);
    let mut bytes = Vec::with_capacity(8 + length + end);
    bytes.extend((length as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(8 + length, b' ');
    for (_, _, numbers) in tensors {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes
}

/// The tensors in the order of their numbers, which lie without gap or overlap from the header's end
/// to the file's.
pub(super) fn read(bytes: &[u8]) -> Result<File<'_>, Refusal> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return refuse(format!("{} bytes are no safetensors file", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_MAX {
        return refuse(format!(
            "its header is {length} bytes long, or it is no safetensors file: {HEADER_MAX} are read"
        ));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((header, data)) = header else {
        return refuse(format!(
            "it is cut off: its header should have {length} bytes, and {} are there",
            rest.len()
        ));
    };
    let Table(entries) = parse::<Table<&RawValue>>("its header", header)?;
    let (mut metadata, mut tensors) = (vec![], Vec::<(String, Entry)>::new());
    for (name, entry) in entries {
        let json = entry.get().as_bytes();
        if name == METADATA {
            metadata = parse::<Table<String>>("its metadata", json)?.0;
        } else {
            let entry = parse(&format!("its entry {}", shown(&name)), json)?;
            tensors.push((name, entry));
        }
    }
    tensors.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut placed = vec![];
    let (mut at, mut left) = (0, data);
    for (name, entry) in tensors {
        let (bytes, rest) = entry.place(&name, at, left)?;
        at = entry.data_offsets.1;
        left = rest;
        placed.push(Tensor { name, shape: entry.shape, bytes });
    }
    if !left.is_empty() {
        return refuse(format!("{} bytes at its end belong to no tensor", left.len()));
    }
    Ok(File { metadata, tensors: placed })
}

pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(json).map_err(|error| {
        // It may quote the file at any length.
        let error = text::one_line(&error.to_string(), 200);
        Refusal(format!("{what} cannot be understood: {error}"))
    })
}

/// What the header says of a tensor.
#[derive(Debug, serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry {
    /// Takes the tensor's bytes from what is `left` from `at` on.
    fn place<'a>(
        &self,
        name: &str,
        at: u64,
        left: &'a [u8],
    ) -> Result<(&'a [u8], &'a [u8]), Refusal> {
        let (begin, end) = self.data_offsets;
        let name = shown(name);
        if self.dtype != "F32" {
            return refuse(format!("{name} is {}: only F32 is read", shown(&self.dtype)));
        }
        if begin != at {
            let what = if begin < at { "overlaps the tensor before it" } else { "follows a gap" };
            return refuse(format!("{name} {what}: it begins at {begin} instead of {at}"));
        }
        let claimed = self.shape.iter().try_fold(4_u64, |size, side| size.checked_mul(*side));
        if claimed.is_none() || claimed != end.checked_sub(begin) {
            return refuse(format!(
                "{name} is {}, which does not fit into its bytes {begin} to {end}",
                shape(&self.shape)
            ));
        }
        let size = claimed.and_then(|size| usize::try_from(size).ok());
        size.and_then(|size| left.split_at_checked(size)).ok_or_else(|| {
            let there = begin.saturating_add(left.len() as u64);
            Refusal(format!("it is cut off: {name} should end at {end}, the file does at {there}"))
        })
    }
}

/// A JSON object as it stands: in order, and without a name that stands twice.
pub(super) struct Table<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<T>, A::Error> {
        let (mut names, mut table) = (BTreeSet::new(), vec![]);
        while let Some(name) = map.next_key::<String>()? {
            if table.len() == NAMES_MAX {
                return Err(A::Error::custom(format_args!("more than {NAMES_MAX} names")));
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("{} stands there twice", shown(&name))));
            }
            table.push((name, map.next_value()?));
        }
        Ok(Table(table))
    }
}
