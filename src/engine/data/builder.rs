//! A table as it grows, row by row: what may come into it, and whether it still fits.

use std::collections::{BTreeSet, HashMap};

use super::problem::quoted;
use super::{Error, Problems, Table};
use crate::engine::model::{NAME_RULE, is_name};
use crate::text;

const MOST_CLASSES: usize = 10_000;
const MOST_COLUMNS: usize = 1 << 20;
/// The bytes of all columns' names: they go into the model, whose header is bounded.
const LONGEST_NAMES: usize = 2 << 20;
const NUMBER: u64 = size_of::<f32>() as u64;
/// A short name with what the heap adds to it.
const NAME: u64 = 64;

pub(super) struct Builder {
    features: Vec<String>,
    /// The name of the label's column.
    label: String,
    values: Vec<f32>,
    /// Counted in the order in which the classes were seen.
    labels: Vec<u32>,
    classes: HashMap<String, u32>,
    memory: u64,
    pub(super) problems: Problems,
}

impl Builder {
    pub(super) fn new(features: Vec<String>, label: String, memory: u64) -> Result<Self, Error> {
        check_width(features.len())?;
        check_names(&features)?;
        check_name(&label)?;
        Ok(Self {
            features,
            label,
            values: vec![],
            labels: vec![],
            classes: HashMap::new(),
            memory,
            problems: Problems::default(),
        })
    }

    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn needs(&self, rows: u64) -> u64 {
        needs(rows, self.features.len())
    }

    /// Refuses a file of `size` bytes before it is read, by how long its first rows are.
    pub(super) fn refuse_by_sample(
        &self,
        size: Option<u64>,
        sample: (u64, u64),
    ) -> Result<(), Error> {
        let (Some(size), (rows @ 1.., bytes @ 1..)) = (size, sample) else { return Ok(()) };
        let rows = u128::from(size) * u128::from(rows) / u128::from(bytes);
        let needs = self.needs(u64::try_from(rows).unwrap_or(u64::MAX));
        // Later rows may be longer than the first ones: what is near the limit is read and counted.
        if needs / 5 * 4 > self.memory {
            return Err(Error::TooLarge { needs, allowed: self.memory, at_least: false });
        }
        Ok(())
    }

    /// The next number of the row. Once there is a problem the table is lost, and no longer filled.
    pub(super) fn push(&mut self, value: f32) {
        if self.problems.is_empty() {
            self.values.push(value);
        }
    }

    /// Ends the row by its class. `place` says where it stands, such as `line 5`.
    pub(super) fn end_row(&mut self, class: &str, place: impl Fn() -> String) -> Result<(), Error> {
        let label = &self.label;
        if class.is_empty() {
            self.problems
                .add(|| format!("{}, column {}: the label is empty", place(), quoted(label)));
            return Ok(());
        }
        if !is_name(class) {
            let problem = || {
                let (at, class) = (place(), quoted(class));
                format!("{at}, column {}: {class} names no class: {NAME_RULE}", quoted(label))
            };
            self.problems.add(problem);
            return Ok(());
        }
        let number = self.class(class)?;
        if self.problems.is_empty() {
            self.labels.push(number);
            return self.refuse_if_full();
        }
        Ok(())
    }

    fn class(&mut self, class: &str) -> Result<u32, Error> {
        if let Some(number) = self.classes.get(class) {
            return Ok(*number);
        }
        if self.classes.len() == MOST_CLASSES {
            return Err(Error::bad(format!(
                "the label {} has more than {MOST_CLASSES} classes: name the right one with `label`",
                quoted(&self.label)
            )));
        }
        let number = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
        self.classes.insert(class.to_owned(), number);
        Ok(number)
    }

    fn refuse_if_full(&self) -> Result<(), Error> {
        if u32::try_from(self.rows()).is_err() {
            return Err(Error::bad(format!("there are more than {} rows", u32::MAX)));
        }
        let needs = self.needs(self.rows() as u64);
        if needs > self.memory {
            return Err(Error::TooLarge { needs, allowed: self.memory, at_least: true });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(Table, String), Error> {
        let label = quoted(&self.label);
        if self.problems.is_empty() {
            match self.classes.keys().next() {
                None => self.problems.add(|| "there are 0 rows of data".to_owned()),
                Some(class) if self.classes.len() == 1 => self.problems.add(|| {
                    let all = format!("all rows have the same label {label}: {}", quoted(class));
                    format!(
                        "{all}; a network needs two classes, name the right column with `label`"
                    )
                }),
                Some(_) => {}
            }
        }
        if !self.problems.is_empty() {
            return Err(Error::Bad(self.problems));
        }
        let (classes, place) = sorted(self.classes);
        for label in &mut self.labels {
            *label = place[*label as usize];
        }
        self.values.shrink_to_fit();
        self.labels.shrink_to_fit();
        let Self { features, values, labels, label, .. } = self;
        Ok((Table { features, classes, values, labels }, label))
    }
}

/// The bytes that so many rows of so many columns take.
fn needs(rows: u64, columns: usize) -> u64 {
    let columns = columns as u64;
    rows.saturating_mul((columns + 1) * NUMBER).saturating_add(columns * NAME)
}

/// Refuses rows whose number is known before they are read.
pub(super) fn refuse_by_count(rows: u64, columns: u64, memory: u64) -> Result<(), Error> {
    let columns = usize::try_from(columns).unwrap_or(usize::MAX);
    check_width(columns)?;
    let needs = needs(rows, columns);
    if needs > memory {
        return Err(Error::TooLarge { needs, allowed: memory, at_least: false });
    }
    Ok(())
}

pub(super) fn check_width(columns: usize) -> Result<(), Error> {
    match columns {
        0 => Err(Error::bad("there is no column of numbers beside the label")),
        1..=MOST_COLUMNS => Ok(()),
        _ => Err(Error::bad(format!("there are {columns} columns, {MOST_COLUMNS} are the most"))),
    }
}

/// The classes in order, and for each number given so far the place there.
fn sorted(classes: HashMap<String, u32>) -> (Vec<String>, Vec<u32>) {
    let number = |class: &str| class.parse::<f64>().ok().filter(|number| number.is_finite());
    let are_numbers = classes.keys().all(|class| number(class).is_some());
    let mut classes: Vec<_> = classes.into_iter().collect();
    classes.sort_unstable_by(|(a, _), (b, _)| {
        let key = |class| if are_numbers { number(class).unwrap_or(0.0) } else { 0.0 };
        key(a).total_cmp(&key(b)).then_with(|| a.cmp(b))
    });
    let mut places = vec![0; classes.len()];
    for (place, (_, number)) in (0..).zip(&classes) {
        places[*number as usize] = place;
    }
    (classes.into_iter().map(|(class, _)| class).collect(), places)
}

/// One cell of text as a number, or what is wrong with it.
pub(super) fn number(cell: &[u8]) -> Result<f32, String> {
    let cell = cell.trim_ascii();
    if cell.is_empty() {
        return Err("is empty".to_owned());
    }
    let Ok(cell) = str::from_utf8(cell) else {
        return Err("is no UTF-8 text: save the file as UTF-8".to_owned());
    };
    let Ok(number) = cell.parse::<f64>() else {
        return Err(format!("{} is no number", quoted(cell)));
    };
    finite(number).ok_or_else(|| format!("{} is no finite number of 32 bits", quoted(cell)))
}

/// Rounded to 64 bits first and then to 32, as NumPy and pandas do it.
#[expect(clippy::cast_possible_truncation, reason = "too large a number becomes infinite here")]
pub(super) fn finite(number: f64) -> Option<f32> {
    Some(number as f32).filter(|number| number.is_finite())
}

/// Refuses names that a model could not be written with and read back.
fn check_names(features: &[String]) -> Result<(), Error> {
    let (mut known, mut bytes) = (BTreeSet::new(), 0);
    for name in features {
        bytes += name.len();
        check_length(bytes)?;
        check_name(name)?;
        if !known.insert(name) {
            return Err(Error::bad(format!("two columns are named {}: rename one", quoted(name))));
        }
    }
    Ok(())
}

/// Refuses names that take so many bytes together: before they are made, where they are made of one.
pub(super) fn check_length(bytes: usize) -> Result<(), Error> {
    if bytes > LONGEST_NAMES {
        let most = text::size(LONGEST_NAMES as u64);
        return Err(Error::bad(format!("the columns' names take more than {most}")));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::bad(format!("{} names no column: {NAME_RULE}", quoted(name))))
}

/// Such as `line 5, column `age``.
pub(super) fn place(line: u64, column: &str) -> String {
    format!("line {line}, column {}", text::one_line(&quoted(column), 64))
}
