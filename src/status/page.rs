//! The page, as a whole: all of it is written here, so that it is true without script too.

use std::time::Duration;

use super::Books;
use super::history::History;
use super::html::{esc, fill};
use super::parts;
use crate::snapshot::Snapshot;

/// What one rendering shows.
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) books: &'a Books,
    pub(super) log_tail: &'a (dyn Fn(&str) -> Vec<String> + Sync),
    pub(super) history: &'a History,
    pub(super) now: Duration,
}

pub(super) fn render(view: &View<'_>) -> String {
    let View { snapshot, books, .. } = view;
    let title = format!("{} · {}", parts::state_word(snapshot.state), esc(&snapshot.name));
    fill(
        include_str!("page.html"),
        &[
            ("title", title),
            ("who", parts::who(snapshot)),
            ("state", parts::state(snapshot)),
            ("tiles", parts::tiles(snapshot, books)),
            ("jobs", parts::jobs(snapshot, view.log_tail)),
            ("gpus", parts::gpus(snapshot, view.history, view.now)),
            ("earnings", parts::earnings(&books.days)),
            ("machine", parts::machine(snapshot)),
            ("history", parts::history(&books.recent)),
            ("foot", parts::foot(snapshot)),
        ],
    )
}
