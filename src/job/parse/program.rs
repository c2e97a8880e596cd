//! What scripts and containers have in common: texts, arguments, an environment, and how much they want.

use serde_json::Value;

use super::{Asked, Problems, given};
use crate::text;
use crate::work::{Object, Share};

const ARGS_MAX: usize = 1000;
const ENV_MAX: usize = 256;
const NAME_MAX: usize = 128;

/// A kernel takes no longer argument.
const TEXT_MAX: usize = 100 << 10;

/// Of all arguments and all of the environment.
const TEXTS_MAX: usize = 512 << 10;

/// Whoever sets these says what code is loaded into a program, also into those that start it.
const LOADERS: [&str; 3] = ["LD_", "GCONV_PATH", "GLIBC_TUNABLES"];

/// With less memory neither a sandbox nor a container's runtime can start anything.
const MEMORY_MIN: u64 = 16 << 20;

/// Ours.
const OURS: &str = "WORKER_";

impl Problems {
    /// The first of these that is given, with its name.
    pub(super) fn one_of<'a>(
        &mut self,
        fields: &[(&'static str, Option<&'a Value>)],
    ) -> Option<(&'static str, &'a str)> {
        let given = fields.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let given: Vec<_> = given.filter(|(_, value)| !is_empty(value)).collect();
        if let [(first, _), (second, _), ..] = given.as_slice() {
            self.bad.push(format!("{first} and {second} are given: give one of them"));
        }
        let (name, value) = *given.first()?;
        match value.as_str() {
            Some(text) => Some((name, text)),
            None => {
                self.bad(name, value, "a text");
                None
            }
        }
    }

    /// A list of texts, of which none may hold what no program can be given.
    pub(super) fn texts(&mut self, name: &str, value: Option<&Value>) -> Vec<String> {
        let Some(value) = value else { return vec![] };
        let texts = value.as_array().filter(|list| list.len() <= ARGS_MAX);
        let texts = texts.and_then(|list| list.iter().map(plain).collect::<Option<Vec<_>>>());
        let Some(texts) = texts else {
            self.bad(name, value, &format!("a list of at most {ARGS_MAX} texts"));
            return vec![];
        };
        for text in &texts {
            self.fit(name, text);
        }
        if texts.iter().map(String::len).sum::<usize>() > TEXTS_MAX {
            self.bad.push(format!("{name} is longer than {} KiB", TEXTS_MAX >> 10));
        }
        texts
    }

    fn fit(&mut self, name: &str, text: &str) {
        if text.contains('\0') {
            let shown = text::one_line(&text.replace('\0', "␀"), 60);
            self.bad
                .push(format!("{name} holds a NUL, which no program can be given: \"{shown}\""));
        }
        if text.len() > TEXT_MAX {
            self.bad.push(format!("{name} holds a text longer than {} KiB", TEXT_MAX >> 10));
        }
    }

    /// `env`, and what the wizard of the real backend calls `environmentVars`; the first counts more.
    pub(super) fn env(&mut self, asked: &Asked<'_>) -> Vec<(String, String)> {
        let mut all = Object::new();
        let given = [
            ("environmentVars", given(asked.advanced, "environmentVars")),
            ("env", given(asked.input, "env")),
        ];
        for (name, value) in given {
            all.extend(self.object(name, value).cloned().unwrap_or_default());
        }
        if all.len() > ENV_MAX {
            self.bad.push(format!("env has more than {ENV_MAX} variables"));
            return vec![];
        }
        let env: Vec<_> =
            all.into_iter().filter_map(|(name, value)| self.variable(name, &value)).collect();
        if env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > TEXTS_MAX {
            self.bad.push(format!("env is longer than {} KiB", TEXTS_MAX >> 10));
        }
        env
    }

    fn variable(&mut self, name: String, value: &Value) -> Option<(String, String)> {
        let shown = text::one_line(&name, 60);
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(fit)
            && !name.starts_with(|first: char| first.is_ascii_digit());
        if !is_name {
            self.bad.push(format!("env has a name that is none: \"{shown}\""));
            return None;
        }
        if LOADERS.iter().any(|loader| name.starts_with(loader)) {
            self.bad.push(format!("env may not set {shown}, which changes what a program loads"));
            return None;
        }
        if name.starts_with(OURS) {
            self.bad.push(format!("env may not set {shown}: {OURS}… is the worker's"));
            return None;
        }
        let Some(text) = plain(value) else {
            self.bad(&format!("env {shown}"), value, "a text, a number or a boolean");
            return None;
        };
        self.fit(&format!("env {shown}"), &text);
        Some((name, text))
    }

    /// The least of what is asked for: more than the provider gives is nobody's.
    pub(super) fn share(&mut self, asked: &Asked<'_>) -> Share {
        let gb = [
            ("memoryGb", given(asked.input, "memoryGb")),
            ("requiredRAM", asked.wire.required_ram.as_ref()),
        ];
        let memory = gb.map(|(name, value)| self.memory(name, value)).into_iter().flatten().min();
        Share { memory, cpus: self.above_0("cpus", given(asked.input, "cpus")) }
    }

    fn memory(&mut self, name: &str, value: Option<&Value>) -> Option<u64> {
        let gb = self.above_0(name, value)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0")]
        let memory = (gb * f64::from(1 << 30)) as u64;
        if memory < MEMORY_MIN {
            let least = MEMORY_MIN >> 20;
            let wanted = format!("at least {least} MiB: with less no program starts");
            self.bad(name, value?, &wanted);
        }
        Some(memory)
    }

    fn above_0(&mut self, name: &str, value: Option<&Value>) -> Option<f64> {
        let value = value.filter(|value| !value.is_null())?;
        let number = value.as_f64().filter(|number| *number > 0.0);
        if number.is_none() {
            self.bad(name, value, "a number above 0");
        }
        number
    }
}

/// What a wizard leaves empty was not given.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
