//! CSV: cells between commas, semicolons or tabs, in quotation marks or not, with a header or without.

use std::io::{self, Read};
use std::mem;

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, Terminator};

use super::builder::{Builder, check_width, number, place};
use super::problem::{no_such_label, quoted};
use super::source::{LONGEST_ROW, Source, Stop};
use super::{Dataset, Error};

const DELIMITERS: [u8; 3] = *b",;\t";
const SAMPLE: usize = 1000;
/// Stands behind the file as a row of its own. If it does not come out as one, a quotation mark
/// swallowed it, which the parser takes for the end of a good file.
const END: &[u8] = b"\x04end of the file\x04";

pub(super) fn read(source: Source<'_>, label: Option<&str>, memory: u64) -> Result<Dataset, Error> {
    let shape = Shape::of(&source, label)?;
    let mut features = shape.names.clone();
    let name = features.remove(shape.label);
    let mut builder = Builder::new(features, name, memory)?;
    builder.refuse_by_sample(source.size, shape.sample)?;
    let end = [b"\n", END, b"\n"].concat();
    let rationed = Rationed { inner: source.into_reader().chain(&end[..]), left: LONGEST_ROW };
    let ended = rows(&mut reader(rationed, shape.delimiter), &shape, &mut builder);
    if let Err(error) = ended {
        return Err(builder.problems.end_with(error));
    }
    let (table, label) = builder.finish()?;
    let format = if shape.has_header { "CSV with a header" } else { "CSV without a header" };
    Ok(Dataset { table, format, label })
}

/// A carriage return is left to the trimming of cells, since the parser counts the lines ended by it
/// one row late.
pub(super) fn reader<R: Read>(from: R, delimiter: u8) -> Reader<R> {
    let mut how = ReaderBuilder::new();
    how.delimiter(delimiter).terminator(Terminator::Any(b'\n')).has_headers(false).flexible(true);
    how.from_reader(from)
}

/// Lets the parser have no more bytes than the longest row, until it is told that a row ended.
struct Rationed<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(Stop::LongRow));
        }
        let most = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// What the first rows tell.
struct Shape {
    delimiter: u8,
    has_header: bool,
    /// Of all columns, the label's too.
    names: Vec<String>,
    /// Which of them is the label.
    label: usize,
    /// How many rows of data were looked at, and their bytes.
    sample: (u64, u64),
}

impl Shape {
    fn of(source: &Source<'_>, label: Option<&str>) -> Result<Self, Error> {
        let is_whole = source.size == Some(source.head.len() as u64);
        let delimiter = delimiter(&source.head);
        let (rows, ends) = sample(&source.head, delimiter, is_whole)?;
        let Some((first, others)) = rows.split_first() else {
            return Err(if is_whole { Error::bad("there are 0 rows") } else { open(1) });
        };
        check_width(first.len().saturating_sub(1))?;
        let cells: Vec<_> = first.iter().map(cell).collect();
        let has_header = label
            .is_some_and(|label| is_text(label) && cells.iter().any(|c| c == label))
            || is_header(first, others);
        let names =
            if has_header { cells } else { (0..first.len()).map(|n| n.to_string()).collect() };
        let label = match label {
            None => names.len() - 1,
            Some(label) => place_of(label, &names)?,
        };
        let begin = if has_header { ends[0] } else { 0 };
        let count = rows.len() - usize::from(has_header);
        let bytes = ends.last().unwrap_or(&begin) - begin;
        Ok(Self { delimiter, has_header, names, label, sample: (count as u64, bytes) })
    }
}

pub(super) fn cell(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

pub(super) fn is_text(cell: &str) -> bool {
    cell.parse::<f64>().is_err()
}

fn place_of(label: &str, names: &[String]) -> Result<usize, Error> {
    let mut found = (0..names.len()).filter(|at| names[*at] == label);
    let at = found.next().ok_or_else(|| no_such_label(label, names))?;
    if found.next().is_some() {
        return Err(Error::bad(format!("two columns are named {}: rename one", quoted(label))));
    }
    Ok(at)
}

/// The one that the first line has most of, outside of quotation marks.
pub(super) fn delimiter(head: &[u8]) -> u8 {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut counts = [0; DELIMITERS.len()];
    let mut is_quoted = false;
    for byte in line {
        is_quoted ^= *byte == b'"';
        if let Some(which) = DELIMITERS.iter().position(|d| d == byte && !is_quoted) {
            counts[which] += 1;
        }
    }
    // Of equals the last, so that a decimal comma does not win over a semicolon.
    let most = (0..DELIMITERS.len()).max_by_key(|which| counts[*which]);
    DELIMITERS[most.unwrap_or(0)]
}

/// The first rows, and the byte that each ends at; not the one that the head cuts.
fn sample(
    head: &[u8],
    delimiter: u8,
    is_whole: bool,
) -> Result<(Vec<ByteRecord>, Vec<u64>), Error> {
    let mut reader = reader(head, delimiter);
    let (mut rows, mut ends, mut row) = (vec![], vec![], ByteRecord::new());
    while rows.len() < SAMPLE && reader.read_byte_record(&mut row).map_err(cause)? {
        let end = reader.position().byte();
        if !is_blank(&row) && (is_whole || end < head.len() as u64) {
            rows.push(row.clone());
            ends.push(end);
        }
    }
    Ok((rows, ends))
}

pub(super) fn is_blank(row: &ByteRecord) -> bool {
    row.len() == 1 && row[0].trim_ascii().is_empty()
}

/// Whether the first row has text in a column that holds numbers below it, but for some slips. Where
/// there is nothing below, text in any column but the last will do.
fn is_header(first: &ByteRecord, others: &[ByteRecord]) -> bool {
    let is_name = |at: &usize| is_text(&cell(&first[*at])) && !cell(&first[*at]).is_empty();
    let mut names = (0..first.len()).filter(is_name);
    if others.is_empty() {
        return names.any(|at| at + 1 < first.len());
    }
    names.any(|at| {
        let below = others.iter().filter_map(|row| row.get(at)).map(cell);
        let below: Vec<_> = below.filter(|cell| !cell.is_empty()).collect();
        let texts = below.iter().filter(|cell| is_text(cell)).count();
        texts * 2 < below.len()
    })
}

fn rows<R: Read>(
    reader: &mut Reader<Rationed<R>>,
    shape: &Shape,
    builder: &mut Builder,
) -> Result<(), Error> {
    let mut row = ByteRecord::new();
    let mut is_header = shape.has_header;
    loop {
        let begin = reader.position().line();
        reader.get_mut().left = LONGEST_ROW;
        match reader.read_byte_record(&mut row).map_err(cause) {
            Ok(true) => {}
            Ok(false) => return Err(open(begin)),
            Err(error) if is_long_row(&error) => return Err(open(begin)),
            Err(error) => return Err(error.into()),
        }
        if row.len() == 1 && &row[0] == END {
            return Ok(());
        }
        // The parser counts blank lines to the row behind them, so it is counted from the row's end.
        let within = row.as_slice().iter().filter(|byte| **byte == b'\n').count();
        let line = reader.position().line() - 1 - within as u64;
        if row.as_slice().trim_ascii_end().ends_with(END) {
            // Nothing but the end of all ended it, no line's.
            return Err(open(line + 1));
        }
        if !is_blank(&row) && !mem::take(&mut is_header) {
            add(&row, line, shape, builder)?;
        }
    }
}

fn open(line: u64) -> Error {
    Error::bad(format!(
        "line {line}: a quotation mark is left open there, or the row is longer than {} MiB",
        LONGEST_ROW >> 20
    ))
}

fn is_long_row(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|stop| matches!(stop.downcast_ref(), Some(Stop::LongRow)))
}

/// The parser's only errors are its reader's: rows of bytes may have any length.
pub(super) fn cause(error: ::csv::Error) -> io::Error {
    match error.into_kind() {
        ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn add(row: &ByteRecord, line: u64, shape: &Shape, builder: &mut Builder) -> Result<(), Error> {
    if row.len() != shape.names.len() {
        let what = if shape.has_header { "header" } else { "first row" };
        let (has, wanted) = (row.len(), shape.names.len());
        builder.problems.add(|| format!("line {line} has {has} cells, the {what} has {wanted}"));
        return Ok(());
    }
    for (at, cell) in row.iter().enumerate().filter(|(at, _)| *at != shape.label) {
        match number(cell) {
            Ok(number) => builder.push(number),
            Err(why) => {
                builder.problems.add(|| format!("{}: {why}", place(line, &shape.names[at])));
            }
        }
    }
    let Ok(class) = str::from_utf8(&row[shape.label]) else {
        let at = place(line, &shape.names[shape.label]);
        builder.problems.add(|| format!("{at}: is no UTF-8 text: save the file as UTF-8"));
        return Ok(());
    };
    builder.end_row(class.trim(), || format!("line {line}"))
}
