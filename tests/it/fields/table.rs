//! The tables of `docs/fields.md`. Each of their rows is shown by a job that a worker runs, or the test of its
//! section fails.

use std::cell::RefCell;
use std::collections::BTreeSet;

const DOC: &str = include_str!("../../../docs/fields.md");

/// The sections whose rows the tests of containers show; of the others, those here do.
pub(crate) const OF_CONTAINERS: [&str; 1] = ["Containers"];

/// The rows of one section, and which of them no job has shown yet.
pub(crate) struct Rows {
    section: &'static str,
    all: BTreeSet<String>,
    open: RefCell<BTreeSet<String>>,
}

impl Rows {
    pub(crate) fn of(section: &'static str) -> Self {
        let text = sections().find(|(name, _)| *name == section).map(|(_, text)| text);
        let text = text.unwrap_or_else(|| panic!("docs/fields.md has no section {section}"));
        let rows: Vec<String> = text.lines().filter_map(row).collect();
        let all: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(all.len(), rows.len(), "{section} has a row twice");
        Self { section, open: RefCell::new(all.clone()), all }
    }

    /// The next job shows these rows.
    #[track_caller]
    pub(crate) fn show(&self, rows: &[&str]) {
        for row in rows {
            assert!(self.all.contains(*row), "docs/fields.md, {}: has no row {row}", self.section);
            self.open.borrow_mut().remove(*row);
        }
    }

    #[track_caller]
    pub(crate) fn end(self) {
        let open = self.open.into_inner();
        assert!(open.is_empty(), "docs/fields.md, {}: no test shows {open:#?}", self.section);
    }
}

/// The names of the sections that have rows.
pub(crate) fn names() -> BTreeSet<&'static str> {
    sections()
        .filter(|(_, text)| text.lines().any(|line| row(line).is_some()))
        .map(|(name, _)| name)
        .collect()
}

fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOC.split("\n## ").skip(1).filter_map(|text| text.split_once('\n'))
}

/// The first cell of a table's line as it is read: without the marks of code. Headings begin with no mark.
fn row(line: &str) -> Option<String> {
    let cell = line.strip_prefix("| ")?.split(" | ").next()?;
    let is_heading = ["field", "name", "written as", "format", "a script or", "---"];
    let is_row = !is_heading.into_iter().any(|heading| cell.starts_with(heading));
    is_row.then(|| cell.replace('`', ""))
}
