//! Room on the disk: without some of it no job is taken, or its result might find no place.

use log::Level;

use super::Core;
use crate::text;

impl Core {
    /// So many bytes are free where the state is kept.
    pub(super) fn disk_free(&mut self, free: u64) {
        let short = free < self.rules.min_free;
        if short == self.short_of_disk {
            return;
        }
        self.short_of_disk = short;
        let (free, least) = (text::size(free), text::size(self.rules.min_free));
        if short {
            let line = format!(
                "no jobs are taken: {free} free on the disk of the state directory, less than --min-free {least}"
            );
            self.log(Level::Warn, line);
        } else {
            self.log(Level::Info, format!("jobs are taken again: {free} free on the disk"));
        }
    }

    pub(super) fn disk_objection(&self) -> Option<String> {
        let least = self.rules.min_free;
        self.short_of_disk
            .then(|| format!("less than {} free on the disk of its state", text::size(least)))
    }
}
