//! The address of a dataset's content, the same for CSV, JSON Lines or IDX, packed or not.
//!
//! SHA-256, in hexadecimal, over: the number of columns, their names, the number of classes, their
//! names, the number of rows; then all values row by row, as the bits of an IEEE 754 `f32`; then each
//! row's class, as a `u32`. Numbers are little-endian, those of things are `u64`; a name is its number
//! of bytes and its bytes.

use sha2::{Digest as _, Sha256};

use super::Table;
use crate::text;

impl Table {
    pub(crate) fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for names in [&self.features, &self.classes] {
            hash.update((names.len() as u64).to_le_bytes());
            for name in names {
                hash.update((name.len() as u64).to_le_bytes());
                hash.update(name);
            }
        }
        hash.update((self.rows() as u64).to_le_bytes());
        update(&mut hash, &self.values, |value| value.to_bits());
        update(&mut hash, &self.labels, |label| *label);
        text::hex(&hash.finalize())
    }
}

/// A piece at a time: the hash is slow with four bytes.
fn update<T>(hash: &mut Sha256, numbers: &[T], bits: impl Fn(&T) -> u32) {
    let mut bytes = [[0; 4]; 1024];
    for numbers in numbers.chunks(bytes.len()) {
        for (bytes, number) in bytes.iter_mut().zip(numbers) {
            *bytes = bits(number).to_le_bytes();
        }
        hash.update(bytes[..numbers.len()].as_flattened());
    }
}
