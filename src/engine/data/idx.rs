//! IDX, the format of MNIST: a short header, then the bytes of one image after the other.

use std::io::{self, Read};

use super::builder::{Builder, check_length, refuse_by_count};
use super::source::Source;
use super::{Dataset, Error};

const BYTES: u8 = 0x08;

pub(super) fn read(one: Source<'_>, other: Source<'_>, memory: u64) -> Result<Dataset, Error> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let (mut images, mut labels) = match (&one.item[..], &other.item[..]) {
        ([_, ..], []) => (one, other),
        ([], [_, ..]) => (other, one),
        ([], []) => return Err(Error::bad("both IDX files are labels, one has to be the images")),
        _ => return Err(Error::bad("both IDX files are images, one has to be the labels")),
    };
    if images.count != labels.count {
        let (images, labels) = (images.count, labels.count);
        return Err(Error::bad(format!("there are {images} images and {labels} labels")));
    }
    let width = images.width();
    refuse_by_count(images.count, width, memory)?;
    images.check_size()?;
    labels.check_size()?;
    let mut builder = Builder::new(images.names()?, "label".to_owned(), memory)?;
    // Bounded by the columns that a table may have.
    let mut image = vec![0; usize::try_from(width).unwrap_or(0)];
    for number in 0..images.count {
        images.next(&mut image, number)?;
        let mut class = [0];
        labels.next(&mut class, number)?;
        image.iter().for_each(|pixel| builder.push(f32::from(*pixel)));
        builder.end_row(&class[0].to_string(), || format!("image {number}"))?;
    }
    images.end()?;
    labels.end()?;
    let (table, label) = builder.finish()?;
    Ok(Dataset { table, format: "IDX", label })
}

/// An IDX file of which the header has been read. All it says is only said.
struct File<'a> {
    reader: Box<dyn Read + 'a>,
    size: Option<u64>,
    header: u64,
    count: u64,
    /// The sides of an image; nothing for labels.
    item: Vec<u64>,
}

impl<'a> File<'a> {
    fn open(source: Source<'a>) -> Result<Self, Error> {
        let Some(&[0, 0, kind, sides]) = source.head.first_chunk() else {
            return Err(Error::bad("one of the two files is no IDX file"));
        };
        if kind != BYTES {
            return Err(Error::bad(format!(
                "an IDX file holds numbers of type {kind:#04x}, only bytes ({BYTES:#04x}) are read"
            )));
        }
        let size = source.size;
        let mut reader: Box<dyn Read> = Box::new(source.into_reader());
        let mut header = vec![0; 4 + 4 * usize::from(sides)];
        reader
            .read_exact(&mut header)
            .map_err(|error| cut_off(error, "in its header".to_owned()))?;
        let numbers = header[4..].as_chunks().0.iter();
        let mut sides = numbers.map(|side| u64::from(u32::from_be_bytes(*side)));
        let count = sides.next().unwrap_or(0);
        Ok(Self { reader, size, header: header.len() as u64, count, item: sides.collect() })
    }

    /// The bytes of one item.
    fn width(&self) -> u64 {
        self.item.iter().fold(1, |width, side| width.saturating_mul(*side))
    }

    /// `pixel_0_0`, `pixel_0_1`… to the last row and column.
    fn names(&self) -> Result<Vec<String>, Error> {
        // Of each name there is at least this: there may be 254 sides, and a million columns.
        let shortest = "pixel".len() + "_0".len() * self.item.len();
        check_length(usize::try_from(self.width()).unwrap_or(usize::MAX).saturating_mul(shortest))?;
        let longer = |names: Vec<String>, side: &u64| {
            let pairs = names.iter().flat_map(|name| (0..*side).map(move |at| (name, at)));
            pairs.map(|(name, at)| format!("{name}_{at}")).collect()
        };
        Ok(self.item.iter().fold(vec!["pixel".to_owned()], longer))
    }

    fn check_size(&self) -> Result<(), Error> {
        let wanted = self.count.saturating_mul(self.width()).saturating_add(self.header);
        match self.size {
            Some(size) if size != wanted => Err(Error::bad(format!(
                "an IDX file has {size} bytes, its header speaks of {wanted}: is it cut off or damaged?"
            ))),
            _ => Ok(()),
        }
    }

    fn next(&mut self, item: &mut [u8], number: u64) -> Result<(), Error> {
        let place = || format!("at item {} of {}", number + 1, self.count);
        self.reader.read_exact(item).map_err(|error| cut_off(error, place()))
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.reader.read(&mut [0])? != 0 {
            let count = self.count;
            return Err(Error::bad(format!("an IDX file goes on behind its {count} items")));
        }
        Ok(())
    }
}

fn cut_off(error: io::Error, place: String) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::bad(format!("an IDX file is cut off {place}")),
        _ => error.into(),
    }
}
