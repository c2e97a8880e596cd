//! What a job's program is to find in its input folder.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::source::{is_sha256, is_url};
use super::{Problems, given};
use crate::cid::Cid;
use crate::work::{Archive, Input, Object, Origin, Repository, RepositoryKind};

const INPUTS_MAX: usize = 100;
const FILES_MAX: usize = 1000;

/// The branch that is meant where none is said.
const MAIN: &str = "main";

impl Problems {
    pub(super) fn inputs(&mut self, input: &Object) -> Vec<Input> {
        self.one_spelling(input, "inputs", "volume");
        let mut inputs = vec![];
        for (n, item) in self.list(input, "inputs", INPUTS_MAX).iter().enumerate() {
            inputs.extend(self.input(&format!("inputs[{n}]"), item));
        }
        if let Some(volume) = given(input, "volume") {
            self.volume("volume", volume, &mut inputs);
        }
        self.no_path_twice(&inputs);
        inputs
    }

    fn input(&mut self, at: &str, item: &Value) -> Option<Input> {
        let fields = self.object(at, Some(item))?;
        let origin = self.origin(at, fields);
        let unpack = self.archive(at, fields);
        let is_folder = unpack.is_some() || matches!(origin, Some(Origin::HuggingFace(_)));
        let path = self.text(at, fields, "path").unwrap_or_default();
        let path = self.path(&format!("{at}.path"), &path, "input");
        if path.is_empty() && !is_folder {
            self.bad.push(format!("{at}.path is missing: the file's name in the input folder"));
        }
        let sha256 = self.sha256(at, fields);
        if sha256.is_some() && matches!(origin, Some(Origin::HuggingFace(_))) {
            self.bad.push(format!("{at}.sha256 is of one file, and this is a repository of them"));
        }
        Some(Input { origin: origin?, path, sha256, unpack })
    }

    fn origin(&mut self, at: &str, fields: &Object) -> Option<Origin> {
        let known = ["url", "inline", "huggingface"];
        let named: Vec<&str> =
            known.into_iter().filter(|name| given(fields, name).is_some()).collect();
        match named.as_slice() {
            ["url"] => {
                let url = self.text(at, fields, "url")?;
                self.url(&format!("{at}.url"), &url)
            }
            ["inline"] => {
                let inline = self.text(at, fields, "inline")?;
                self.base64(&format!("{at}.inline"), inline)
            }
            ["huggingface"] => {
                let at = format!("{at}.huggingface");
                let fields = self.object(&at, given(fields, "huggingface"))?;
                let names = ["repo", "type", "files"];
                self.repository(&at, fields, names).map(Origin::HuggingFace)
            }
            _ => {
                self.bad.push(format!("{at} must have one of url, inline and huggingface"));
                None
            }
        }
    }

    /// Also the address of what this worker has.
    fn url(&mut self, at: &str, url: &str) -> Option<Origin> {
        if url.starts_with("ipfs://") {
            let cid = url.parse::<Cid>().map_err(|error| self.bad.push(format!("{at}: {error}")));
            return cid.map(Origin::Artefact).ok();
        }
        if !is_url(url) {
            // Not shown: it may have a secret in it.
            self.bad.push(format!("{at} must be an http(s) URL or ipfs://<cid>"));
            return None;
        }
        Some(Origin::Url(url.to_owned()))
    }

    fn base64(&mut self, at: &str, text: String) -> Option<Origin> {
        match STANDARD.decode(&text) {
            Ok(_) => Some(Origin::Inline(text)),
            Err(error) => {
                self.bad.push(format!("{at} is not base64 ({error})"));
                None
            }
        }
    }

    fn archive(&mut self, at: &str, fields: &Object) -> Option<Archive> {
        let name = self.text(at, fields, "unpack")?;
        let found = Archive::ALL.into_iter().find(|archive| archive.name() == name);
        if found.is_none() {
            let known = Archive::ALL.map(Archive::name).join(", ");
            self.bad(&format!("{at}.unpack"), &name.into(), &format!("one of {known}"));
        }
        found
    }

    fn sha256(&mut self, at: &str, fields: &Object) -> Option<String> {
        let hash = self.text(at, fields, "sha256")?;
        if !is_sha256(&hash) {
            self.bad(&format!("{at}.sha256"), &hash.into(), "64 hexadecimal digits");
            return None;
        }
        Some(hash.to_lowercase())
    }

    /// `names` are those of the fields for its name, its kind and its files.
    fn repository(&mut self, at: &str, fields: &Object, names: [&str; 3]) -> Option<Repository> {
        let [repo, kind, files] = names;
        let name = self.text(at, fields, repo);
        if !name.as_deref().is_some_and(is_repository) {
            self.bad
                .push(format!("{at}.{repo} must be the name of a repository, as in owner/name"));
        }
        let kind = match self.text(at, fields, kind).as_deref() {
            None | Some("model") => RepositoryKind::Model,
            Some("dataset") => RepositoryKind::Dataset,
            Some("space") => RepositoryKind::Space,
            Some(other) => {
                self.bad(&format!("{at}.{kind}"), &other.into(), "model, dataset or space");
                RepositoryKind::Model
            }
        };
        let revision = self.text(at, fields, "revision").unwrap_or_else(|| MAIN.into());
        if !is_revision(&revision) {
            self.bad(
                &format!("{at}.revision"),
                &revision.as_str().into(),
                "a branch, tag or commit",
            );
        }
        let token = self.text(at, fields, "token");
        if token.as_deref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            self.bad.push(format!("{at}.token must be a token"));
        }
        let files = self.files(at, fields, files);
        Some(Repository { kind, name: name?, revision, files, token })
    }

    /// One name or pattern, or a list of them.
    fn files(&mut self, at: &str, fields: &Object, name: &str) -> Vec<String> {
        let one = given(fields, name).filter(|value| value.is_string());
        let files = match one {
            Some(one) => std::slice::from_ref(one),
            None => self.list(fields, name, FILES_MAX),
        };
        let at = format!("{at}.{name}");
        let paths = files.iter().map(|file| match file.as_str() {
            Some(path) => self.path(&at, path, "repository's"),
            None => {
                self.bad(&at, file, "names of files");
                String::new()
            }
        });
        paths.collect()
    }

    /// ComputeHorde's spelling.
    fn volume(&mut self, at: &str, volume: &Value, inputs: &mut Vec<Input>) {
        let Some(fields) = self.object(at, Some(volume)) else { return };
        let kind = self.text(at, fields, "volume_type").unwrap_or_default();
        let folder = self.text(at, fields, "relative_path").unwrap_or_default();
        let path = self.path(&format!("{at}.relative_path"), &folder, "volume's");
        let (origin, unpack) = match kind.as_str() {
            "inline" => {
                let zip = self.needed_text(at, fields, "contents");
                let origin = zip.and_then(|zip| self.base64(&format!("{at}.contents"), zip));
                (origin, Some(Archive::Zip))
            }
            "zip_url" => (self.url_in(at, fields, "contents"), Some(Archive::Zip)),
            "single_file" => {
                if path.is_empty() {
                    self.bad.push(format!("{at}.relative_path is missing: the file's name"));
                }
                (self.url_in(at, fields, "url"), None)
            }
            "huggingface_volume" => {
                let names = ["repo_id", "repo_type", "allow_patterns"];
                (self.repository(at, fields, names).map(Origin::HuggingFace), None)
            }
            "multi_volume" if at == "volume" => {
                for (n, one) in self.list(fields, "volumes", INPUTS_MAX).iter().enumerate() {
                    self.volume(&format!("volume.volumes[{n}]"), one, inputs);
                }
                return;
            }
            _ => {
                let wanted = "inline, zip_url, single_file, huggingface_volume or, outermost, \
                              multi_volume";
                self.bad(&format!("{at}.volume_type"), &kind.into(), wanted);
                return;
            }
        };
        inputs.extend(origin.map(|origin| Input { origin, path, sha256: None, unpack }));
    }

    fn url_in(&mut self, at: &str, fields: &Object, name: &str) -> Option<Origin> {
        let url = self.needed_text(at, fields, name)?;
        self.url(&format!("{at}.{name}"), &url)
    }

    pub(super) fn needed_text(&mut self, at: &str, fields: &Object, name: &str) -> Option<String> {
        if given(fields, name).is_none() {
            self.bad.push(format!("{at}.{name} is missing"));
        }
        self.text(at, fields, name)
    }

    fn no_path_twice(&mut self, inputs: &[Input]) {
        let mut files: Vec<&str> = inputs
            .iter()
            .filter(|input| input.unpack.is_none() && !input.path.is_empty())
            .filter(|input| !matches!(input.origin, Origin::HuggingFace(_)))
            .map(|input| input.path.as_str())
            .collect();
        files.sort_unstable();
        for pair in files.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.bad.push(format!("two inputs have the path {}", pair[0]));
        }
    }
}

/// `owner/name` or `name`, as Hugging Face allows them.
fn is_repository(name: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = |part: &str| {
        (1..=96).contains(&part.len()) && part.bytes().all(fit) && !part.starts_with('.')
    };
    name.split('/').count() <= 2 && name.split('/').all(is_name)
}

fn is_revision(revision: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
    revision.len() <= 200 && revision.bytes().all(fit) && revision.split('/').all(is_part)
}
