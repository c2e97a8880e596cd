//! The bytes of a dataset: unpacked, and known by how they begin.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::{Error, Input};

/// No row of a text may be longer: an open quotation mark would make all of the rest one row.
pub(super) const LONGEST_ROW: usize = 4 << 20;

/// A number takes four bytes in memory; as text it takes no more than so many times that, with room to
/// spare. What unpacks to more than this times the memory allowed is made to hurt.
const TEXT_PER_MEMORY: u64 = 16;

/// Why reading was ended on purpose. It travels in an `io::Error` through the readers above.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("a row is longer than {} MiB", LONGEST_ROW >> 20)]
    LongRow,
    #[error("unpacked it is more than {0} bytes, and this job's memory could not hold that")]
    Bomb(u64),
    #[error("the gzip file is damaged or cut off: {0}")]
    Damaged(String),
}

pub(super) enum Format {
    Csv,
    Json,
    Idx,
}

pub(super) struct Source<'a> {
    /// How it begins, unpacked: as much as the longest row, or all there is.
    pub(super) head: Vec<u8>,
    rest: Box<dyn Read + 'a>,
    /// Unpacked, where that is known.
    pub(super) size: Option<u64>,
}

impl<'a> Source<'a> {
    pub(super) fn open(input: Input<'a>, memory: u64) -> Result<Self, Error> {
        let Input { reader, size } = input;
        let mut magic = vec![];
        reader.take(2).read_to_end(&mut magic)?;
        let is_packed = magic == [0x1f, 0x8b];
        let bytes = Cursor::new(magic).chain(reader);
        let mut rest: Box<dyn Read> = if is_packed {
            let most = memory.saturating_mul(TEXT_PER_MEMORY);
            Box::new(Unpacked { inner: MultiGzDecoder::new(bytes), most, left: most })
        } else {
            Box::new(bytes)
        };
        let mut head = vec![];
        rest.by_ref().take(LONGEST_ROW as u64).read_to_end(&mut head)?;
        let is_whole = head.len() < LONGEST_ROW;
        let size = if is_whole { Some(head.len() as u64) } else { size.filter(|_| !is_packed) };
        Ok(Self { head, rest, size })
    }

    pub(super) fn format(&self) -> Result<Format, Error> {
        let text = self.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.head);
        match text.trim_ascii_start() {
            [] => Err(Error::bad("there is nothing in it: 0 rows")),
            [0, 0, 0x08..=0x0e, 1..=255, ..] => Ok(Format::Idx),
            [b'{', ..] => Ok(Format::Json),
            [b'[', ..] => Err(Error::bad(
                "this is one JSON array: write it as JSON Lines, one object `{…}` a line",
            )),
            text if text.contains(&0) => Err(Error::bad(
                "this is neither text nor IDX: give CSV or JSON Lines in UTF-8, or a pair of IDX files",
            )),
            _ => Ok(Format::Csv),
        }
    }

    pub(super) fn into_reader(self) -> impl Read + 'a {
        Cursor::new(self.head).chain(self.rest)
    }
}

/// What comes out of gzip, which can be a thousand times what went in.
struct Unpacked<R> {
    inner: MultiGzDecoder<R>,
    most: u64,
    left: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        let read = match self.inner.read(buffer) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
                return Err(io::Error::other(Stop::Damaged(error.to_string())));
            }
            Err(error) => return Err(error),
        };
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| io::Error::other(Stop::Bomb(self.most)))?;
        Ok(read)
    }
}
