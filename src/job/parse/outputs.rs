//! What is to become of the files that a job's program leaves in its output folder.

use serde_json::Value;

use super::source::is_url;
use super::{Problems, given};
use crate::work::{Form, Object, Output, Upload};

const OUTPUTS_MAX: usize = 100;

/// Headers that say how a request is sent, which is the sender's to say.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// All below the output folder.
const ALL: &str = "**";

impl Problems {
    pub(super) fn outputs(&mut self, input: &Object) -> Vec<Output> {
        self.one_spelling(input, "outputs", "output_upload");
        let mut outputs = vec![];
        for (n, item) in self.list(input, "outputs", OUTPUTS_MAX).iter().enumerate() {
            outputs.extend(self.output(&format!("outputs[{n}]"), item));
        }
        if let Some(upload) = given(input, "output_upload") {
            self.output_upload("output_upload", upload, &mut outputs);
        }
        outputs
    }

    fn output(&mut self, at: &str, item: &Value) -> Option<Output> {
        let fields = self.object(at, Some(item))?;
        let path = self.needed_text(at, fields, "path")?;
        let path = self.pattern(&format!("{at}.path"), &path);
        let zip = match given(fields, "zip") {
            None => false,
            Some(Value::Bool(zip)) => *zip,
            Some(other) => {
                self.bad(&format!("{at}.zip"), other, "true or false");
                false
            }
        };
        let to = match (given(fields, "put"), given(fields, "post")) {
            (None, None) => None,
            (Some(put), None) => {
                if is_pattern(&path) && !zip {
                    let problem =
                        "brings one file, and its path may mean many: name it, or say zip";
                    self.bad.push(format!("{at}.put {problem}"));
                }
                Some(self.upload(&format!("{at}.put"), put, "headers", None)?)
            }
            (None, Some(post)) => {
                Some(self.upload(&format!("{at}.post"), post, "headers", Some("fields"))?)
            }
            (Some(_), Some(_)) => {
                self.bad.push(format!("{at} has both put and post: give one"));
                None
            }
        };
        Some(Output { path, except: vec![], zip, to })
    }

    fn pattern(&mut self, at: &str, path: &str) -> String {
        let path = self.path(at, path, "output");
        if path.is_empty() { ALL.into() } else { path }
    }

    /// With fields it is a form.
    fn upload(
        &mut self,
        at: &str,
        value: &Value,
        headers: &str,
        fields: Option<&str>,
    ) -> Option<Upload> {
        let request = self.object(at, Some(value))?;
        let url = self.needed_text(at, request, "url")?;
        if !is_url(&url) {
            self.bad.push(format!("{at}.url must be an http(s) URL"));
        }
        let headers = self.headers(at, request, headers);
        let form = match fields {
            None => Form::Put,
            Some(fields) => Form::Post(self.pairs(at, request, fields)),
        };
        Some(Upload { url, headers, form })
    }

    fn headers(&mut self, at: &str, request: &Object, name: &str) -> Vec<(String, String)> {
        let headers = self.pairs(at, request, name);
        for (header, value) in &headers {
            if OURS.contains(&header.to_lowercase().as_str()) {
                self.bad.push(format!("{at}.{name} has {header}, which is not for a job to say"));
            } else if !is_header(header, value) {
                let shown = crate::text::one_line(header, 40);
                self.bad.push(format!("{at}.{name} has one that is none: {shown}"));
            }
        }
        headers
    }

    /// ComputeHorde's spelling.
    fn output_upload(&mut self, at: &str, value: &Value, outputs: &mut Vec<Output>) {
        let Some(fields) = self.object(at, Some(value)) else { return };
        let kind = self.text(at, fields, "output_upload_type").unwrap_or_default();
        match kind.as_str() {
            "multi_upload" if at == "output_upload" => self.multi_upload(at, fields, outputs),
            "zip_and_http_post" | "zip_and_http_put" => {
                outputs.extend(self.zip_upload(at, value, &kind, vec![]));
            }
            "single_file_post" | "single_file_put" => {
                let path = self.needed_text(at, fields, "relative_path").unwrap_or_default();
                let path = self.path(&format!("{at}.relative_path"), &path, "output");
                let form = (kind == "single_file_post").then_some("form_fields");
                let to = self.upload(at, value, "signed_headers", form);
                outputs.extend(to.map(|to| Output {
                    path,
                    except: vec![],
                    zip: false,
                    to: Some(to),
                }));
            }
            _ => {
                let wanted = "zip_and_http_post, zip_and_http_put, single_file_post, \
                              single_file_put or, outermost, multi_upload";
                self.bad(&format!("{at}.output_upload_type"), &kind.into(), wanted);
            }
        }
    }

    /// Files, each by itself, and if asked for an archive of all others.
    fn multi_upload(&mut self, at: &str, fields: &Object, outputs: &mut Vec<Output>) {
        for (n, one) in self.list(fields, "uploads", OUTPUTS_MAX).iter().enumerate() {
            self.output_upload(&format!("{at}.uploads[{n}]"), one, outputs);
        }
        let Some(rest) = given(fields, "system_output") else { return };
        let at = format!("{at}.system_output");
        let kind = rest.get("output_upload_type").and_then(Value::as_str).unwrap_or_default();
        let singles = outputs.iter().map(|output| output.path.clone()).collect();
        outputs.extend(self.zip_upload(&at, rest, kind, singles));
    }

    fn zip_upload(
        &mut self,
        at: &str,
        value: &Value,
        kind: &str,
        except: Vec<String>,
    ) -> Option<Output> {
        let form = match kind {
            "zip_and_http_post" => Some("form_fields"),
            "zip_and_http_put" => None,
            _ => {
                let wanted = "zip_and_http_post or zip_and_http_put";
                self.bad(&format!("{at}.output_upload_type"), &kind.into(), wanted);
                return None;
            }
        };
        let to = self.upload(at, value, "signed_headers", form)?;
        Some(Output { path: ALL.into(), except, zip: true, to: Some(to) })
    }
}

/// Whether it may mean more than the one file that is called so.
fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// As HTTP has them, and nothing that would end the line.
fn is_header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = (1..=100).contains(&name.len()) && name.bytes().all(token);
    is_name && value.len() <= 8192 && value.bytes().all(|byte| (b' '..0x7f).contains(&byte))
}
