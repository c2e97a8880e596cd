//! What a network learns from: rows of numbers, each with one of some classes.
//!
//! A dataset comes as bytes from whoever opened the file. What they are is told by the bytes: CSV,
//! JSON Lines or IDX, gzip around any of them. It is read as a stream, so that reading takes the
//! table's own memory and little more, and every problem of the file is found in that one pass.

mod builder;
mod csv;
pub(super) mod embedded;
mod hash;
mod idx;
mod jsonl;
mod problem;
pub(super) mod rows;
mod source;
pub(super) mod split;
pub(super) mod standardise;
#[cfg(test)]
mod tests;

use std::io::Read;

pub(crate) use problem::{Error, Problems};

use source::{Format, Source};

/// A dataset in memory, checked: no row is ragged, no number is missing or not finite, and there are at
/// least two classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    /// The columns' names, without the label's; as many as there are numbers in a row.
    pub(crate) features: Vec<String>,
    /// In the order in which `labels` counts them: sorted, as numbers if all are numbers.
    pub(crate) classes: Vec<String>,
    /// Row by row.
    pub(crate) values: Vec<f32>,
    /// The class of each row.
    pub(crate) labels: Vec<u32>,
}

impl Table {
    pub(crate) fn rows(&self) -> usize {
        self.labels.len()
    }

    /// The numbers of one row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        let width = self.features.len();
        &self.values[row * width..][..width]
    }
}

/// A table and how it was read, for whoever wonders whether it was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dataset {
    pub(crate) table: Table,
    /// Such as `CSV without a header`.
    pub(crate) format: &'static str,
    /// The column that the classes were taken from.
    pub(crate) label: String,
}

/// The bytes of one file.
pub(crate) struct Input<'a> {
    pub(crate) reader: &'a mut dyn Read,
    /// As it lies there, packed or not; `None` where nobody knows before the end.
    pub(crate) size: Option<u64>,
}

/// Reads CSV or JSON Lines into at most `memory` bytes. The label is the column or key of that name;
/// without a name it is the last column of CSV, and of JSON `label` or else the first row's last key.
/// The columns of CSV without a header are named by their place, from `0`.
pub(crate) fn read(input: Input<'_>, label: Option<&str>, memory: u64) -> Result<Dataset, Error> {
    let source = Source::open(input, memory)?;
    match source.format()? {
        Format::Csv => csv::read(source, label, memory),
        Format::Json => jsonl::read(source, label, memory),
        Format::Idx => Err(Error::bad(
            "this is one IDX file, and there have to be two: the images and their labels",
        )),
    }
}

/// Reads a pair of IDX files, images and labels in any order, into at most `memory` bytes.
pub(crate) fn read_pair(one: Input<'_>, other: Input<'_>, memory: u64) -> Result<Dataset, Error> {
    idx::read(Source::open(one, memory)?, Source::open(other, memory)?, memory)
}
