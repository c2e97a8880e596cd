//! JSON Lines: one object a line, numbers and lists of numbers under its keys, and a label.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read as _};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::builder::{Builder, check_length, check_width, finite, place};
use super::problem::{no_such_label, quoted};
use super::source::{LONGEST_ROW, Source};
use super::{Dataset, Error};

const SAMPLE: usize = 1000;

pub(super) fn read(source: Source<'_>, label: Option<&str>, memory: u64) -> Result<Dataset, Error> {
    let (size, sample) = (source.size, sample(&source.head));
    let mut lines = Lines { reader: BufReader::new(source.into_reader()), number: 0, line: vec![] };
    if !lines.next()? {
        return Err(Error::bad("there are 0 rows"));
    }
    let first =
        row(&lines.line).map_err(|why| Error::bad(format!("line {}{why}", lines.number)))?;
    let shape = Shape::of(&first, label)?;
    let mut builder = Builder::new(shape.names(), shape.label.clone(), memory)?;
    builder.refuse_by_sample(size, sample)?;
    let ended = rows(&mut lines, &shape, &mut builder);
    if let Err(error) = ended {
        return Err(builder.problems.end_with(error));
    }
    let (table, label) = builder.finish()?;
    Ok(Dataset { table, format: "JSON Lines", label })
}

/// How many whole lines there are at the head, of the first ones, and their bytes.
fn sample(head: &[u8]) -> (u64, u64) {
    let lines = head.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.take(SAMPLE).fold((0, 0), |(rows, bytes), line| (rows + 1, bytes + line.len() as u64))
}

struct Lines<R> {
    reader: R,
    /// Of the line, as an editor counts.
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Goes on to the next line that is not blank.
    fn next(&mut self) -> Result<bool, Error> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut short = self.reader.by_ref().take(LONGEST_ROW as u64);
            if short.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(false);
            }
            if self.line.len() == LONGEST_ROW && !self.line.ends_with(b"\n") {
                let (line, most) = (self.number, LONGEST_ROW >> 20);
                return Err(Error::bad(format!("line {line} is longer than {most} MiB")));
            }
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

/// The object of one line, in the order of its keys.
struct Row(Vec<(String, Cell)>);

/// A value, as far as a table has a use for it.
enum Cell {
    Number(f64),
    /// A list of numbers, or of lists of numbers, one after the other.
    Numbers(Vec<f64>),
    Text(String),
    Other(&'static str),
}

fn row(line: &[u8]) -> Result<Row, String> {
    let Ok(line) = str::from_utf8(line) else {
        return Err(" is no UTF-8 text: save the file as UTF-8".to_owned());
    };
    serde_json::from_str(line.trim_end()).map_err(|error| {
        let told = error.to_string();
        let what = told.split(" at line ").next().unwrap_or(&told);
        let place = match error.column() {
            0 => String::new(),
            column => format!(", character {column}"),
        };
        format!("{place}: {what}; one object `{{…}}` a line is wanted")
    })
}

/// Which key holds how many numbers, from where, by the first row.
struct Shape {
    keys: Vec<(String, usize)>,
    at: HashMap<String, usize>,
    label: String,
}

impl Shape {
    fn of(first: &Row, label: Option<&str>) -> Result<Self, Error> {
        let names: Vec<_> = first.0.iter().map(|(key, _)| key.clone()).collect();
        let has = |label: &&str| names.iter().any(|name| name == label);
        let last = names.last().ok_or_else(|| Error::bad("the first row is an empty object"))?;
        let label = match label {
            Some(label) if has(&label) => label,
            Some(label) => return Err(no_such_label(label, &names)),
            None => Some("label").filter(has).unwrap_or(last),
        };
        let features = first.0.iter().filter(|(key, _)| key != label);
        let keys: Vec<_> = features.map(|(key, cell)| (key.clone(), width(cell))).collect();
        check_width(keys.iter().map(|(_, width)| width).sum())?;
        // A key stands in the name of every number below it: a long one with a long list would fill the memory.
        check_length(keys.iter().map(|(key, width)| key.len() * width).sum())?;
        let at = keys.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
        Ok(Self { keys, at, label: label.to_owned() })
    }

    /// `age` for a number, `pixels[0]`, `pixels[1]`… for a list.
    fn names(&self) -> Vec<String> {
        let mut names = vec![];
        for (key, width) in &self.keys {
            match width {
                1 => names.push(key.clone()),
                _ => names.extend((0..*width).map(|at| format!("{key}[{at}]"))),
            }
        }
        names
    }
}

fn width(cell: &Cell) -> usize {
    if let Cell::Numbers(numbers) = cell { numbers.len() } else { 1 }
}

fn rows<R: BufRead>(
    lines: &mut Lines<R>,
    shape: &Shape,
    builder: &mut Builder,
) -> Result<(), Error> {
    loop {
        match row(&lines.line) {
            Ok(row) => add(row, lines.number, shape, builder)?,
            Err(why) => builder.problems.add(|| format!("line {}{why}", lines.number)),
        }
        if !lines.next()? {
            return Ok(());
        }
    }
}

fn add(row: Row, line: u64, shape: &Shape, builder: &mut Builder) -> Result<(), Error> {
    let mut cells: Vec<Option<Cell>> = shape.keys.iter().map(|_| None).collect();
    let mut class = None;
    for (key, cell) in row.0 {
        let slot = match shape.at.get(&key) {
            Some(at) => &mut cells[*at],
            None if key == shape.label => &mut class,
            None => {
                builder
                    .problems
                    .add(|| format!("line {line} has {}, the first row has not", quoted(&key)));
                continue;
            }
        };
        if slot.replace(cell).is_some() {
            builder.problems.add(|| format!("line {line} has {} twice", quoted(&key)));
        }
    }
    for ((key, width), cell) in shape.keys.iter().zip(cells) {
        if let Err(why) = numbers(cell, *width, builder) {
            builder.problems.add(|| format!("{}: {why}", place(line, key)));
        }
    }
    match class.map(name) {
        Some(Ok(class)) => builder.end_row(class.trim(), || format!("line {line}")),
        Some(Err(why)) => {
            builder.problems.add(|| format!("{}: {why}", place(line, &shape.label)));
            Ok(())
        }
        None => {
            builder
                .problems
                .add(|| format!("line {line} lacks the label {}", quoted(&shape.label)));
            Ok(())
        }
    }
}

fn numbers(cell: Option<Cell>, width: usize, builder: &mut Builder) -> Result<(), String> {
    let numbers = match cell {
        None => return Err("is missing".to_owned()),
        Some(Cell::Number(number)) => vec![number],
        Some(Cell::Numbers(numbers)) => numbers,
        Some(Cell::Text(text)) => return Err(format!("{} is text, and no number", quoted(&text))),
        Some(Cell::Other(what)) => return Err(format!("{what} is no number")),
    };
    if numbers.len() != width {
        return Err(format!("has {} numbers, the first row has {width}", numbers.len()));
    }
    for number in numbers {
        builder.push(finite(number).ok_or_else(|| format!("{number} is too large for 32 bits"))?);
    }
    Ok(())
}

/// The class that a label names.
fn name(cell: Cell) -> Result<String, String> {
    match cell {
        Cell::Text(text) => Ok(text),
        Cell::Number(number) => Ok(number.to_string()),
        Cell::Other(truth @ ("true" | "false")) => Ok(truth.to_owned()),
        Cell::Other(what) => Err(format!("{what} names no class")),
        Cell::Numbers(_) => Err("a list names no class".to_owned()),
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = vec![];
                while let Some(entry) = map.next_entry()? {
                    row.push(entry);
                }
                Ok(Row(row))
            }
        }
        from.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Value)
    }
}

struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a list of numbers or a text")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Cell, E> {
        Ok(Cell::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Cell, E> {
        Ok(Cell::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell::Number(number as f64))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Cell, E> {
        Ok(Cell::Other(if truth { "true" } else { "false" }))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Other("null"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        let mut numbers = vec![];
        let mut is_numbers = true;
        while let Some(cell) = list.next_element()? {
            match cell {
                Cell::Number(number) => numbers.push(number),
                Cell::Numbers(inner) => numbers.extend(inner),
                Cell::Text(_) | Cell::Other(_) => is_numbers = false,
            }
        }
        Ok(if is_numbers { Cell::Numbers(numbers) } else { Cell::Other("a list of other things") })
    }
}
