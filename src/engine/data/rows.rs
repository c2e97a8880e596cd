//! Rows without a label, for a model to answer: JSON or CSV, packed or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::builder::{finite, number};
use super::problem::{Error, Problems, quoted};
use super::source::Source;
use super::{Input, csv};

const NUMBER: u64 = size_of::<f32>() as u64;

/// The numbers of all rows, one row after the other, in the order of `features`. JSON is a row, a list of
/// rows, or a row a line; CSV may have a header, whose other columns are left out. The text and the
/// numbers take up to `memory` bytes each.
pub(crate) fn rows(input: Input<'_>, features: &[String], memory: u64) -> Result<Vec<f32>, Error> {
    let mut text = vec![];
    let reader = Source::open(input, memory)?.into_reader();
    reader.take(memory.saturating_add(1)).read_to_end(&mut text)?;
    let needs = text.len() as u64;
    if needs > memory {
        return Err(Error::TooLarge { needs, allowed: memory, at_least: true });
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let problems = Problems::default();
    let mut rows = Rows { features, values: vec![], count: 0, needs: 0, memory, problems };
    if text.trim_ascii_start().starts_with(b"[") {
        rows.json(text)?;
    } else {
        rows.csv(text)?;
    }
    rows.finish()
}

struct Rows<'a> {
    features: &'a [String],
    values: Vec<f32>,
    /// Of rows that are complete.
    count: u64,
    /// The bytes of all numbers there were, also of those that were not kept.
    needs: u64,
    memory: u64,
    problems: Problems,
}

impl Rows<'_> {
    fn json(&mut self, text: &[u8]) -> Result<(), Error> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let no_list = |error| Error::bad(format!("it is no JSON list of numbers: {error}"));
        loop {
            match json.end() {
                Ok(()) => return Ok(()),
                Err(_) => List(self).deserialize(&mut json).map_err(no_list)?,
            }
        }
    }

    fn csv(&mut self, text: &[u8]) -> Result<(), Error> {
        let mut reader = csv::reader(text, csv::delimiter(text));
        let mut record = ::csv::ByteRecord::new();
        let mut places: Option<Vec<usize>> = None;
        let mut is_first = true;
        while reader.read_byte_record(&mut record).map_err(csv::cause)? {
            if csv::is_blank(&record) {
                continue;
            }
            let is_header = is_first && self.is_header(&record);
            is_first = false;
            if is_header {
                places = self.header(&record)?;
                continue;
            }
            let cells: Vec<&[u8]> = match &places {
                Some(places) => places.iter().filter_map(|at| record.get(*at)).collect(),
                None => record.iter().collect(),
            };
            for (column, cell) in cells.iter().enumerate() {
                self.cell(column, number(cell));
            }
            self.end_row(cells.len());
        }
        Ok(())
    }

    /// A header has names alone, or numbers too where one of the model's names stands among them. What
    /// else is no number is a slip in a row, which must not be left out for it.
    fn is_header(&self, first: &::csv::ByteRecord) -> bool {
        let is_name = |cell: &String| !cell.is_empty() && csv::is_text(cell);
        let cells: Vec<String> = first.iter().map(csv::cell).collect();
        let known: BTreeSet<&String> = self.features.iter().collect();
        cells.iter().all(is_name)
            || cells.iter().any(is_name) && cells.iter().any(|cell| known.contains(cell))
    }

    /// Where the features stand. One that names none of them has as many columns, in their order.
    fn header(&self, header: &::csv::ByteRecord) -> Result<Option<Vec<usize>>, Error> {
        // By the last cell first, so that of two of one name the first one stays.
        let known: BTreeMap<&[u8], usize> =
            header.iter().enumerate().map(|(at, cell)| (cell.trim_ascii(), at)).rev().collect();
        let place = |name: &String| known.get(name.as_bytes()).copied();
        let places: Vec<Option<usize>> = self.features.iter().map(place).collect();
        if header.len() == self.features.len() && places.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut missing = self.features.iter().zip(&places).filter(|(_, place)| place.is_none());
        match missing.next() {
            None => Ok(Some(places.into_iter().flatten().collect())),
            Some((name, _)) => Err(Error::bad(format!(
                "the header lacks {} of the columns that the model takes, such as {}",
                missing.count() + 1,
                quoted(name)
            ))),
        }
    }

    fn cell(&mut self, column: usize, number: Result<f32, String>) {
        match number {
            Ok(number) => {
                self.needs += NUMBER;
                if self.needs <= self.memory && self.problems.is_empty() {
                    self.values.push(number);
                }
            }
            Err(problem) => {
                let row = self.count + 1;
                let name = self
                    .features
                    .get(column)
                    .map_or_else(|| column.to_string(), |name| quoted(name));
                self.problems.add(|| format!("row {row}, column {name}: {problem}"));
            }
        }
    }

    fn end_row(&mut self, cells: usize) {
        self.count += 1;
        let (count, width) = (self.count, self.features.len());
        if cells != width {
            self.problems
                .add(|| format!("row {count} has {cells} numbers, the model takes {width}"));
        }
    }

    fn finish(self) -> Result<Vec<f32>, Error> {
        let Self { values, count, needs, memory, problems, .. } = self;
        if needs > memory {
            return Err(Error::TooLarge { needs, allowed: memory, at_least: false });
        }
        match (problems.is_empty(), count) {
            (false, _) => Err(Error::Bad(problems)),
            (true, 0) => Err(Error::bad("there is no row")),
            (true, _) => Ok(values),
        }
    }
}

/// A row or rows, as they come in JSON: no number is kept but as a number.
struct List<'a, 'b>(&'a mut Rows<'b>);

/// One thing in a list, which would be in this column.
struct Item<'a, 'b> {
    rows: &'a mut Rows<'b>,
    column: usize,
    /// Whether it may be a row itself.
    outer: bool,
}

/// What it was.
#[derive(PartialEq)]
enum Found {
    Cell,
    Row,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row or a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut column = 0;
        while let Some(found) =
            list.next_element_seed(Item { rows: &mut *self.0, column, outer: true })?
        {
            column += usize::from(found == Found::Cell);
        }
        if column > 0 {
            self.0.end_row(column);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_any(self)
    }
}

impl Item<'_, '_> {
    fn cell<E>(self, number: Result<f32, String>) -> Result<Found, E> {
        self.rows.cell(self.column, number);
        Ok(Found::Cell)
    }

    fn no_number<E>(self, what: &str) -> Result<Found, E> {
        self.cell(Err(format!("{what} is no number")))
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Found, E> {
        let too_large = || format!("{number} is too large for 32 bits");
        self.cell(finite(number).ok_or_else(too_large))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Found, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Found, E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        self.no_number(&quoted(text))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Found, E> {
        self.no_number(if truth { "true" } else { "false" })
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        self.no_number("null")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.no_number("an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        if !self.outer {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return self.no_number("a list");
        }
        let mut column = 0;
        while list
            .next_element_seed(Item { rows: &mut *self.rows, column, outer: false })?
            .is_some()
        {
            column += 1;
        }
        self.rows.end_row(column);
        Ok(Found::Row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_within(mut text: &[u8], memory: u64) -> Result<Vec<f32>, String> {
        let features = ["a".to_owned(), "b".to_owned()];
        let size = Some(text.len() as u64);
        rows(Input { reader: &mut text, size }, &features, memory)
            .map_err(|error| error.to_string())
    }

    fn read(text: &str) -> Result<Vec<f32>, String> {
        read_within(text.as_bytes(), 1 << 20)
    }

    #[test]
    fn a_row_rows_a_row_a_line_and_csv_are_understood() {
        assert_eq!(read("[1, 2.5]"), Ok(vec![1.0, 2.5]));
        for text in [
            "[[1,2],[3,4]]",
            "\u{feff}[1,2]\n[3,4]\n",
            "1,2\n3,4\n",
            "1;2\r\n\r\n3;4",
            "x,y\n1,2\n3,4\n",
            "label,b,a\n\"x,y\",2,1\nz,4,3\n",
        ] {
            assert_eq!(read(text), Ok(vec![1.0, 2.0, 3.0, 4.0]), "{text}");
        }
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        for (text, wanted) in [
            ("", "there is no row"),
            ("[]", "there is no row"),
            ("a,b\n", "there is no row"),
            ("[1,2,]", "it is no JSON list of numbers: trailing comma at line 1 column 6"),
            ("[[1,2],[3]]", "row 2 has 1 numbers, the model takes 2"),
            ("[[1,2],3]", "row 2 has 1 numbers, the model takes 2"),
            ("1,2\n3", "row 2 has 1 numbers, the model takes 2"),
            (
                "[[1,2,3],[1,null]]",
                "row 1 has 3 numbers, the model takes 2; row 2, column `b`: null is no number",
            ),
            (
                "[1,[2,[3]]]",
                "row 1, column `b`: a list is no number; row 2 has 1 numbers, the model takes 2",
            ),
            ("[1,\"x\"]", "row 1, column `b`: `x` is no number"),
            (
                "[1e39,{}]",
                "row 1, column `a`: 1000000000000000000000000000000000000000 is too large for 32 bits; row 1, column `b`: an object is no number",
            ),
            ("1,x\n2,3\n", "row 1, column `b`: `x` is no number"),
            (
                "NaN,\n2,3\n",
                "row 1, column `a`: `NaN` is no finite number of 32 bits; row 1, column `b`: is empty",
            ),
            ("a,b\n1,NaN\n", "row 1, column `b`: `NaN` is no finite number of 32 bits"),
            (
                "a,kind\n1,x\n",
                "the header lacks 1 of the columns that the model takes, such as `b`",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), wanted, "{text}");
        }
    }

    #[test]
    fn no_text_takes_more_memory_than_is_allowed() {
        let long = format!("[{}1]", "1,".repeat(600));
        assert!(
            read_within(long.as_bytes(), 1200).unwrap_err().contains("needs more than 1.2 KiB")
        );
        assert!(read_within(long.as_bytes(), 1300).unwrap_err().contains("needs about 2.3 KiB"));
        let deep = "[".repeat(100_000);
        assert!(read_within(deep.as_bytes(), 1 << 20).unwrap_err().contains("it is no JSON list"));
    }
}
