//! What can be wrong with a dataset, so told that its owner can mend it.

use std::fmt;
use std::io;

use super::source::Stop;
use crate::text;

const SHOWN: usize = 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file itself has to be mended.
    #[error("{0}")]
    Bad(Problems),
    #[error(
        "the dataset needs {} {} in memory, this job may use {}: \
         take fewer rows or columns, or give the job more memory",
        if *.at_least { "more than" } else { "about" }, text::size(*.needs), text::size(*.allowed)
    )]
    TooLarge {
        needs: u64,
        allowed: u64,
        /// What had been read when that was more than allowed.
        at_least: bool,
    },
    #[error("cannot read the dataset")]
    Read(#[source] io::Error),
}

impl Error {
    pub(super) fn bad(problem: impl Into<String>) -> Self {
        Self::Bad(Problems { first: vec![problem.into()], more: 0 })
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Stop>() {
            Ok(stop) => Self::bad(stop.to_string()),
            Err(error) => Self::Read(error),
        }
    }
}

/// The first problems in words, and how many more there are: a file can have millions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    pub(crate) first: Vec<String>,
    pub(crate) more: u64,
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn add(&mut self, problem: impl FnOnce() -> String) {
        if self.first.len() < SHOWN {
            self.first.push(problem());
        } else {
            self.more += 1;
        }
    }

    /// What ended the reading, behind what had been found until then. It is always shown.
    pub(super) fn end_with(mut self, error: Error) -> Error {
        if self.is_empty() {
            return error;
        }
        let Error::Bad(last) = error else { return error };
        self.first.extend(last.first);
        Error::Bad(self)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// A name or a cell as it stands in a message.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", text::one_line(name, 60))
}

/// What there is instead of a column that there is not.
pub(super) fn no_such_label(wanted: &str, there_are: &[String]) -> Error {
    let mut names: Vec<_> = there_are.iter().take(20).map(|name| quoted(name)).collect();
    if there_are.len() > names.len() {
        names.push(format!("and {} more", there_are.len() - names.len()));
    }
    let near = text::nearest(wanted, there_are.iter().map(String::as_str));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {}?", quoted(near)));
    Error::bad(format!(
        "there is no column {} to take the label from: there are {}{near}",
        quoted(wanted),
        names.join(", "),
    ))
}
