//! What the backend is told names no path of this machine: whoever reads it has no use for one, and may be a
//! stranger. The log and the records here keep them.

use std::fs;
use std::path::Path;

use crate::work::{Blame, Decline, Ending, Failure, LogLine, Outcome, Reason, Report, Stage};

/// Stands where a path was.
const CUT: &str = "…";

/// Takes the paths out of what leaves.
#[derive(Debug)]
pub(super) struct Outward {
    /// The state directory, by each of its names.
    own: Vec<String>,
}

impl Outward {
    pub(super) fn new(state_dir: &Path) -> Self {
        let names = [Some(state_dir.to_owned()), fs::canonicalize(state_dir).ok()];
        let names = names.iter().flatten().filter_map(|path| path.to_str());
        let names = names.map(|name| name.trim_end_matches('/')).filter(|name| !name.is_empty());
        Self { own: names.map(str::to_owned).collect() }
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        let ending = match outcome.ending {
            Ending::Failed(failure) => Ending::Failed(self.failure(failure)),
            Ending::Declined(decline) => {
                Ending::Declined(Decline { reason: self.without_own(&decline.reason), ..decline })
            }
            ending @ (Ending::Completed(_) | Ending::Cancelled) => ending,
        };
        Outcome { ending, ..outcome }
    }

    fn failure(&self, failure: Failure) -> Failure {
        let is_ours = failure.blame != Blame::Job;
        // What was printed before the job's own program began was printed by programs of this machine.
        let began = failure.stage != Stage::Inputs && failure.reason != Reason::StartFailed;
        let log = failure.log.iter().map(|line| self.told(line, is_ours && !began));
        Failure { log: log.collect(), error: self.told(&failure.error, is_ours), ..failure }
    }

    pub(super) fn report(&self, report: &Report) -> Report {
        let line = |line: &LogLine| LogLine { text: self.without_own(&line.text), ..line.clone() };
        Report {
            operation: self.without_own(&report.operation),
            lines: report.lines.iter().map(line).collect(),
            ..report.clone()
        }
    }

    fn told(&self, text: &str, is_ours: bool) -> String {
        let text = self.without_own(text);
        if is_ours { without_paths(&text) } else { text }
    }

    /// A job may speak of paths of its own, which are none of this machine.
    fn without_own(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for own in &self.own {
            while let Some(at) = text.find(own.as_str()) {
                let end = at + own.len() + path_length(&text[at + own.len()..]);
                text.replace_range(at..end, CUT);
            }
        }
        text
    }
}

/// The text without any absolute path. What stands in an address, as in `https://a/b`, is none.
pub(super) fn without_paths(text: &str) -> String {
    let mut told = String::new();
    let (mut before, mut rest) = (' ', text);
    while let Some(first) = rest.chars().next() {
        let is_named = rest[first.len_utf8()..].starts_with(|next| next != '/' && is_of_path(next));
        let length = if first == '/' && is_named && may_precede(before) {
            told.push_str(CUT);
            path_length(rest)
        } else {
            told.push(first);
            first.len_utf8()
        };
        before = first;
        rest = &rest[length..];
    }
    told
}

fn path_length(text: &str) -> usize {
    let path = &text[..text.find(|next| !is_of_path(next)).unwrap_or(text.len())];
    path.trim_end_matches('.').len()
}

fn is_of_path(char: char) -> bool {
    !char.is_whitespace() && !"\"'`<>(){}[],;:".contains(char)
}

fn may_precede(char: char) -> bool {
    !char.is_alphanumeric() && !"/._-~%)]}…".contains(char)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::backend::wire;
    use crate::store::FileError;
    use crate::work::DeclineCode;

    /// A folder whose name has a space, under another name too.
    const OWN: &str = "/srv/my state";

    fn outward() -> Outward {
        Outward { own: vec![OWN.into(), "/mnt/disk/state".into()] }
    }

    #[test]
    fn every_absolute_path_is_cut_and_nothing_else() {
        for (text, told) in [
            ("cannot keep /a/b-c.d: No such file", "cannot keep …: No such file"),
            ("bwrap: Can't find source path /a/b.", "bwrap: Can't find source path …."),
            (r#"mount "/a/b" (/c), '/d'; </e>"#, r#"mount "…" (…), '…'; <…>"#),
            ("-v /a/b:/c/d:ro --x=/e", "-v …:…:ro --x=…"),
            ("file:/etc/x", "file:…"),
            ("/a", "…"),
            (
                "cannot download https://a/b/c and http://[::1]:80/d",
                "cannot download https://a/b/c and http://[::1]:80/d",
            ),
            (
                "data/x, ./y/z, ../w and 1/2 / 3 or and/or //",
                "data/x, ./y/z, ../w and 1/2 / 3 or and/or //",
            ),
            ("", ""),
        ] {
            assert_eq!(without_paths(text), told);
        }
    }

    #[test]
    fn of_a_jobs_own_words_only_the_state_directory_is_cut() {
        let said = "open /output/x and /srv/my state/jobs/a/out/x: no /mnt/disk/state.";
        let told = "open /output/x and …: no ….";
        assert_eq!(outward().without_own(said), told);
    }

    fn failure(reason: Reason, blame: Blame, stage: Stage, text: &str) -> Failure {
        let failure = Failure::of_worker(reason, stage, text.to_owned());
        Failure { blame, log: vec![text.to_owned()], ..failure }
    }

    #[test]
    fn no_kind_of_error_brings_a_path_of_this_machine_to_the_backend() {
        let file = format!("{OWN}/jobs/0a/work/kept/bafk");
        let cause = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let wrapped = tempfile::NamedTempFile::new_in(&file).unwrap_err().to_string();
        let texts = [
            FileError::new("keep", Path::new(&file), cause()).to_string(),
            wrapped,
            format!("the container cannot be made: statfs {file}: no such file"),
            format!("cannot take {file}"),
            "the sandbox could not be made: bwrap: /mnt/disk/state/jobs is no folder".to_owned(),
        ];
        let outward = outward();
        let sent = |ending| {
            let outcome = outward.outcome(Outcome::without_run(ending, SystemTime::UNIX_EPOCH));
            wire::complete("rig-1", "script", &outcome).to_string()
        };
        let mut all = vec![];
        for text in &texts {
            for reason in Reason::ALL {
                for blame in [Blame::Job, Blame::Worker] {
                    for stage in Stage::ALL {
                        all.push(sent(Ending::Failed(failure(reason, blame, stage, text))));
                    }
                }
            }
            for code in DeclineCode::ALL {
                all.push(sent(Ending::Declined(Decline { code, reason: text.clone() })));
            }
            let line =
                LogLine { from_stderr: true, text: text.clone(), at: SystemTime::UNIX_EPOCH };
            let report = outward.report(&Report {
                percent: 1,
                operation: text.clone(),
                lines: vec![line],
                worked: Duration::ZERO,
                reading: None,
                energy_kwh: None,
                at: SystemTime::UNIX_EPOCH,
            });
            all.push(wire::progress("rig-1", &report, false).to_string());
        }
        for sent in all {
            assert!(!sent.contains("/srv/") && !sent.contains("/mnt/"), "{sent}");
        }
    }

    #[test]
    fn of_a_failure_of_this_machines_no_path_is_left_and_of_the_jobs_its_own() {
        let told = |reason, blame, stage| {
            let told = outward().failure(failure(reason, blame, stage, "no /usr/bin/x"));
            json!([told.error, told.log[0]])
        };
        let (kept, cut) = ("no /usr/bin/x", "no …");
        for (reason, blame, stage, error, log) in [
            (Reason::NonzeroExit, Blame::Job, Stage::Run, kept, kept),
            (Reason::StartFailed, Blame::Job, Stage::Run, kept, kept),
            (Reason::StartFailed, Blame::Worker, Stage::Run, cut, cut),
            (Reason::DownloadFailed, Blame::Worker, Stage::Inputs, cut, cut),
            (Reason::Internal, Blame::Worker, Stage::Outputs, cut, kept),
        ] {
            assert_eq!(told(reason, blame, stage), json!([error, log]), "{reason:?} {blame:?}");
        }
    }

    #[test]
    fn the_directory_is_known_by_the_name_it_was_given_and_by_its_true_one() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        rustix::fs::mkdir(&real, rustix::fs::Mode::RWXU).unwrap();
        rustix::fs::symlink(&real, &link).unwrap();
        let outward = Outward::new(&link);
        let said = format!("{}/jobs {}/jobs", link.display(), real.display());
        assert_eq!(outward.without_own(&said), "… …");
        assert_eq!(Outward::new(Path::new("/")).without_own("/a"), "/a");
    }
}
