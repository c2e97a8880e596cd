//! Where the bytes come from that a job needs: an address, a URL, or the job itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Problems, given};
use crate::cid::Cid;
use crate::engine::DATASETS;
use crate::work::{Object, Source};

const URL_MAX: usize = 8 << 10;
const HELP: &str =
    "an http(s) URL, ipfs://<cid>, {\"url\": …, \"sha256\": …} or {\"inline\": base64}";

/// The names of those that every worker has.
pub(super) fn datasets() -> String {
    DATASETS.join(", ")
}

impl Problems {
    /// An embedded dataset by its name, or what [`Self::source`] takes.
    pub(super) fn dataset_source(&mut self, value: &Value) -> Option<Source> {
        match value.as_str() {
            Some(name) if DATASETS.contains(&name) => Some(Source::Embedded(name.to_owned())),
            Some(name) if !name.contains(':') => {
                let known = datasets();
                self.bad("dataset", value, &format!("one of {known}, or {HELP}"));
                None
            }
            _ => self.source("dataset", value),
        }
    }

    pub(super) fn source(&mut self, name: &str, value: &Value) -> Option<Source> {
        let source = match value {
            Value::String(text) => by_text(text),
            Value::Object(fields) => by_fields(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Err(format!("must be {HELP}"))
            }
        };
        source.map_err(|problem| self.bad.push(format!("{name} {problem}"))).ok()
    }
}

fn by_text(text: &str) -> Result<Source, String> {
    if let Some(cid) = text.strip_prefix("ipfs://") {
        return cid.parse::<Cid>().map(Source::Artefact).map_err(|error| error.to_string());
    }
    url(text, None)
}

fn by_fields(fields: &Object) -> Result<Source, String> {
    let text = |name| given(fields, name).map(|value| value.as_str().ok_or(value));
    if given(fields, "huggingface").is_some() {
        return Err("cannot come from huggingface yet: give a url".into());
    }
    match (text("url"), text("inline")) {
        (Some(Ok(address)), None) => {
            let sha256 = match text("sha256") {
                None => None,
                Some(Ok(hash)) if is_sha256(hash) => Some(hash.to_lowercase()),
                Some(_) => return Err("has a sha256 that is not 64 hexadecimal digits".into()),
            };
            match by_text(address)? {
                Source::Url { url, .. } => Ok(Source::Url { url, sha256 }),
                other => Ok(other),
            }
        }
        (None, Some(Ok(base64))) => STANDARD
            .decode(base64)
            .map(Source::Inline)
            .map_err(|error| format!("has an inline that is not base64 ({error})")),
        _ => Err(format!("must be {HELP}")),
    }
}

fn url(text: &str, sha256: Option<String>) -> Result<Source, String> {
    if is_url(text) {
        Ok(Source::Url { url: text.to_owned(), sha256 })
    } else {
        Err(format!("must be {HELP}"))
    }
}

pub(super) fn is_url(text: &str) -> bool {
    let is_http = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    is_http && text.len() <= URL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
