//! What the ledger adds up to. Nothing here takes the state directory's lock: the agent goes on writing
//! meanwhile, and a line that it is in the middle of counts the next time.
//!
//! Lines of an older version lack fields and are read all the same; lines that do not read back, or are of
//! no form that is known here, are left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::FileError;
use super::ledger::{COMPLETED, Ledger, amount};
use crate::text;

/// An attempt at a job that came to its end: a line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) kind: String,
    /// `completed`, `failed`, `declined`, `cancelled`, `rejected` or `undelivered`.
    pub(crate) status: String,
    /// Why it came to no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// How long it ran, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kwh: Option<f64>,
    /// Of an hour.
    pub(crate) price: f64,
    /// What it earned.
    #[serde(default)]
    pub(crate) amount: Option<f64>,
    /// The GPUs that it ran on, by the driver's names for them.
    #[serde(default)]
    pub(crate) gpus: Vec<String>,
    /// The files that it made.
    #[serde(default)]
    pub(crate) cids: Vec<String>,
    pub(crate) origin: String,
    /// When it ended, in RFC 3339.
    pub(crate) ended: String,
}

/// Reads both ledgers of a state directory, as [`each_entry`] does.
pub(crate) fn read_ledger(state_dir: &Path) -> Result<Vec<Entry>, FileError> {
    let mut entries = vec![];
    each_entry(state_dir, |entry| entries.push(entry))?;
    Ok(entries)
}

/// Looks at the lines of both ledgers of a state directory, the oldest first. None is as good as an empty
/// one.
pub(crate) fn each_entry(state_dir: &Path, mut see: impl FnMut(Entry)) -> Result<(), FileError> {
    Ledger { dir: state_dir }.each(|entry: Entry| {
        // It is there to be added up and to be looked at.
        let day = entry
            .ended
            .get(..10)
            .filter(|day| day.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        if day.is_some() && entry.price.is_finite() {
            let amount = amount(&entry.status, entry.seconds, entry.price);
            // A backend's words among them.
            let shown = |text: &str| text::one_line(text, 300);
            see(Entry {
                id: shown(&entry.id),
                kind: shown(&entry.kind),
                status: shown(&entry.status),
                reason: entry.reason.as_deref().map(shown),
                gpus: entry.gpus.iter().map(|gpu| shown(gpu)).collect(),
                amount: Some(entry.amount.unwrap_or(amount)),
                ended: shown(&entry.ended),
                ..entry
            });
        }
    })
}

/// Changes when the ledger does.
pub(crate) fn ledger_stamp(state_dir: &Path) -> Option<(u64, SystemTime)> {
    let data = fs::metadata(Ledger { dir: state_dir }.path()).ok()?;
    Some((data.len(), data.modified().ok()?))
}

/// What the sums are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Of UTC.
    Day,
    Kind,
    /// What ran on several earned with each its share.
    Gpu,
}

/// Some attempts, added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sum {
    /// Attempts that were paid for. Of several GPUs, each has its share.
    pub(crate) completed: f64,
    /// Attempts that were not.
    pub(crate) unpaid: f64,
    /// How long they ran, all of them.
    pub(crate) seconds: f64,
    /// As far as it was measured.
    pub(crate) kwh: f64,
    /// How long those ran whose energy was measured.
    pub(crate) metered_seconds: f64,
    pub(crate) amount: f64,
}

impl Sum {
    fn add(&mut self, entry: &Entry, share: f64) {
        let seconds = entry.seconds.unwrap_or(0.0) * share;
        if entry.status == COMPLETED {
            self.completed += share;
        } else {
            self.unpaid += share;
        }
        self.seconds += seconds;
        self.amount += entry.amount.unwrap_or(0.0) * share;
        if let Some(kwh) = entry.kwh {
            self.kwh += kwh * share;
            self.metered_seconds += seconds;
        }
    }
}

/// The sums, in the order of their names, and that of all.
pub(crate) fn earnings(entries: &[Entry], by: By) -> (BTreeMap<String, Sum>, Sum) {
    let (mut sums, mut all) = (BTreeMap::<String, Sum>::new(), Sum::default());
    for entry in entries {
        let names = names(entry, by);
        let share = 1.0 / names.len() as f64;
        for name in names {
            sums.entry(name).or_default().add(entry, share);
        }
        all.add(entry, 1.0);
    }
    (sums, all)
}

/// Where an attempt belongs; at least one name.
fn names(entry: &Entry, by: By) -> Vec<String> {
    match by {
        By::Day => vec![entry.ended.chars().take(10).collect()],
        By::Kind => vec![entry.kind.clone()],
        By::Gpu if entry.gpus.is_empty() => vec!["none".into()],
        By::Gpu => entry.gpus.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rest: &str) -> String {
        format!(
            r#"{{"id":"j","attempt":1,"origin":"http://a:80","ended":"2026-01-15T10:30:00.120Z",{rest}}}"#
        )
    }

    #[expect(clippy::disallowed_methods, reason = "a test plays the agent before the crash")]
    fn read(older: &[String], newer: &[String]) -> Vec<Entry> {
        let dir = tempfile::tempdir().unwrap();
        for (name, lines) in [("ledger.1.jsonl", older), ("ledger.jsonl", newer)] {
            fs::write(dir.path().join(name), lines.join("\n")).unwrap();
        }
        read_ledger(dir.path()).unwrap()
    }

    fn two_hours(rest: &str) -> String {
        line(&format!(r#""kind":"compute","seconds":7200,"price":2.5,{rest}"#))
    }

    #[test]
    fn what_was_delivered_as_completed_earns_its_time() {
        let lines = ["completed", "failed", "rejected", "undelivered", "cancelled", "declined"]
            .map(|status| two_hours(&format!(r#""status":"{status}""#)));
        let amounts: Vec<_> = read(&[], &lines).iter().map(|entry| entry.amount).collect();
        assert_eq!(amounts[0], Some(5.0));
        assert!(amounts[1..].iter().all(|amount| *amount == Some(0.0)), "{amounts:?}");
    }

    #[test]
    fn an_amount_that_was_booked_stands() {
        let entries = read(&[], &[two_hours(r#""status":"completed","amount":4.5"#)]);
        assert_eq!(entries[0].amount, Some(4.5));
    }

    #[test]
    fn both_ledgers_are_read_and_what_is_no_whole_line_of_ours_is_left_out() {
        let good = two_hours(r#""status":"completed","of a newer version":[1]"#);
        let torn = good[..40].to_owned();
        let no_day = good.replace("2026-01-15T10:30:00.120Z", "é2026-01-15");
        let older = [good.clone(), "{}".into(), "null".into(), "\0\0".into(), no_day];
        assert_eq!(read(&older, &[good, torn]).len(), 2);
        assert_eq!(read(&[], &[]), []);
        assert_eq!(read_ledger(Path::new("/nowhere")).unwrap(), []);
    }

    #[test]
    fn sums_are_by_day_by_kind_and_by_gpu_and_each_gpu_has_its_share() {
        let one = two_hours(r#""status":"completed","kwh":0.5,"gpus":["A","B"]"#);
        let other = two_hours(r#""status":"failed","kwh":null"#).replace("-15T", "-16T");
        let entries = read(&[], &[one, other.replace("compute", "training")]);
        let paid = Sum {
            completed: 1.0,
            seconds: 7200.0,
            kwh: 0.5,
            metered_seconds: 7200.0,
            amount: 5.0,
            ..Sum::default()
        };
        let unpaid = Sum { unpaid: 1.0, seconds: 7200.0, ..Sum::default() };
        let all = Sum { unpaid: 1.0, seconds: 14400.0, ..paid };
        let half = Sum {
            completed: 0.5,
            seconds: 3600.0,
            kwh: 0.25,
            metered_seconds: 3600.0,
            amount: 2.5,
            ..Sum::default()
        };
        for (by, sums) in [
            (By::Day, vec![("2026-01-15", &paid), ("2026-01-16", &unpaid)]),
            (By::Kind, vec![("compute", &paid), ("training", &unpaid)]),
            (By::Gpu, vec![("A", &half), ("B", &half), ("none", &unpaid)]),
        ] {
            let sums = sums.into_iter().map(|(name, sum)| (name.to_owned(), sum.clone())).collect();
            assert_eq!(earnings(&entries, by), (sums, all.clone()), "{by:?}");
        }
    }
}
