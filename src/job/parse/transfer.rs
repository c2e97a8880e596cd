//! What a job of another's program says of its files and its times, in our spelling or in ComputeHorde's.

use std::time::Duration;

use serde_json::Value;

use super::{LONG, Problems, SHORT, given};
use crate::work::{Object, Times, Transfer};

/// Of one name in a path, as file systems have it, and of a whole path.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 1024;

/// What looking through and hashing outputs may take, which is no work of the job's.
const LOOKING_THROUGH: Duration = Duration::from_secs(300);

impl Problems {
    /// All that goes in and out. `whole` is the time limit of the job; `fetches_code` if the program itself
    /// is among what is fetched.
    pub(super) fn transfer(
        &mut self,
        input: &Object,
        whole: Duration,
        fetches_code: bool,
    ) -> Transfer {
        let inputs = self.inputs(input);
        let outputs = self.outputs(input);
        let [download, execution, upload] =
            ["download_time_limit", "execution_time_limit", "upload_time_limit"]
                .map(|name| self.seconds(input, name));
        let is_fetched = fetches_code || !inputs.is_empty();
        let is_uploaded = outputs.iter().any(|output| output.to.is_some());
        let times = times(whole, [download, execution, upload], is_fetched, is_uploaded);
        Transfer { inputs, outputs, times }
    }

    fn seconds(&mut self, input: &Object, name: &str) -> Option<Duration> {
        let value = given(input, name)?;
        let seconds = value.as_f64().filter(|seconds| *seconds > 0.0);
        if seconds.is_none() {
            self.bad(name, value, "a number of seconds above 0");
        }
        seconds.map(time)
    }

    /// Both spellings of the same thing leave open which one is meant.
    pub(super) fn one_spelling(&mut self, input: &Object, ours: &str, theirs: &str) {
        if given(input, ours).is_some() && given(input, theirs).is_some() {
            self.bad.push(format!("{ours} and {theirs} say the same in two spellings: give one"));
        }
    }

    /// The items of a list, or nothing where there is none.
    pub(super) fn list<'a>(&mut self, input: &'a Object, name: &str, most: usize) -> &'a [Value] {
        let Some(value) = given(input, name) else { return &[] };
        match value.as_array() {
            Some(items) if items.len() <= most => items,
            Some(items) => {
                self.too_large
                    .push(format!("{name} has {} items, the most is {most}", items.len()));
                &[]
            }
            None => {
                self.bad(name, value, "a list");
                &[]
            }
        }
    }

    /// A text's value, if there is one.
    pub(super) fn text(&mut self, at: &str, fields: &Object, name: &str) -> Option<String> {
        let value = given(fields, name)?;
        if value.as_str().is_none() {
            self.bad(&format!("{at}.{name}"), value, "a text");
        }
        value.as_str().map(str::to_owned)
    }

    /// Names and values, such as headers and fields of a form have.
    pub(super) fn pairs(&mut self, at: &str, fields: &Object, name: &str) -> Vec<(String, String)> {
        let Some(value) = given(fields, name) else { return vec![] };
        let pair = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.into()));
        let pairs = value.as_object().and_then(|pairs| pairs.iter().map(pair).collect());
        pairs.unwrap_or_else(|| {
            // Not shown: a signature may be in it.
            self.bad.push(format!("{at}.{name} must be an object whose values are texts"));
            vec![]
        })
    }

    /// A path that stays in its folder, without what does not matter in it.
    pub(super) fn path(&mut self, at: &str, path: &str, what: &str) -> String {
        match below(path) {
            Ok(path) => path,
            Err(problem) => {
                self.bad(at, &path.into(), &format!("a path below the {what} folder: {problem}"));
                String::new()
            }
        }
    }
}

/// The path without `.` and doubled slashes, if it can only lead to something below its folder.
fn below(path: &str) -> Result<String, &'static str> {
    if path.starts_with('/') {
        return Err("this one is absolute");
    }
    if path.len() > PATH_MAX {
        return Err("this one is over 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return Err("this one has a control character");
    }
    let names: Vec<&str> = path.split('/').filter(|name| !["", "."].contains(name)).collect();
    if names.contains(&"..") {
        return Err("this one goes up");
    }
    if names.iter().any(|name| name.len() > NAME_MAX) {
        return Err("a name in this one is over 255 bytes");
    }
    Ok(names.join("/"))
}

/// So many seconds, as a limit of time: some time at least, and less than for ever.
pub(super) fn time(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(SHORT, LONG))
}

/// A stage without a time of its own gets a fifth of the whole, and the program all that is not for stages
/// that move files. None gets nothing, whether or not it seems to have anything to do; and where the job
/// does not say how long its uploads may take, what it left is looked through and hashed in peace.
fn times(whole: Duration, own: [Option<Duration>; 3], downloads: bool, uploads: bool) -> Times {
    let [download, execution, upload] = own.map(|own| own.map(|own| own.min(whole)));
    let (inputs, outputs) = (download.unwrap_or(whole / 5), upload.unwrap_or(whole / 5));
    let taken = |moves: bool, time: Duration| if moves { time } else { Duration::ZERO };
    let rest = whole.saturating_sub(taken(downloads, inputs) + taken(uploads, outputs));
    let has_said = uploads && upload.is_some();
    Times {
        inputs,
        run: execution.unwrap_or_else(|| rest.max(whole / 5)),
        outputs: if has_said { outputs } else { outputs.max(LOOKING_THROUGH) },
    }
}

#[cfg(test)]
mod tests;
