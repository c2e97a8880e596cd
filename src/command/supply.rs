//! The hidden subcommand that lays out the inputs of a job for another's program: a child of the agent, so
//! that a hostile server or archive meets nothing but this, and ends with it.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use clap::ArgMatches;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use ureq::Agent;

use super::engine::{bounds, when_let_go};
use super::learn::{REPORT_EVERY, Refused};
use crate::archive::{self, Room};
use crate::beneath::{Folder, is_of_the_job};
use crate::cid::{self, Cid};
use crate::config;
use crate::exit::Exit;
use crate::fetch::{self, Wanted};
use crate::job::{Supply, code_file, take_charge};
use crate::pattern::{Star, fits, is_pattern};
use crate::work::{Input, Origin, Reason, Repository, RepositoryKind, Stage};
use crate::{text, tls};

/// The mode of a file that everybody in the sandbox may read.
const PLAIN: u32 = 0o644;

/// The longest script.
const CODE_MAX: u64 = 4 << 20;

/// The list of a repository's files, at most.
const LIST_MAX: u64 = 32 << 20;

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    when_let_go(&bounds(args)?, || {
        let (input, _) = config::job_folders().context("this subcommand is for the agent's use")?;
        let work = input.parent().context("the input folder is in no other")?.to_owned();
        Ok(Porter::new(&input, &work)?.carry()?)
    })
}

/// Brings the inputs in.
struct Porter {
    charge: Supply,
    folder: Folder,
    /// For what is not laid out as it comes.
    work: PathBuf,
    agent: Agent,
    /// What may yet be downloaded.
    bytes_left: u64,
    room: Room,
    progress: Progress,
}

/// How far it is, told a few times a second.
struct Progress {
    done: usize,
    of: usize,
    /// How many files of one input, of how many.
    part: (usize, usize),
    began: Instant,
    told: Option<Instant>,
}

impl Porter {
    fn new(input: &Path, work: &Path) -> Result<Self, Refused> {
        let charge: Supply = take_charge(work).map_err(internal)?;
        let trust = tls::trusting(charge.network.ca_cert.as_deref()).map_err(internal)?;
        let folder = Folder::open(input).map_err(|error| internal(error.to_string()))?;
        let now = Instant::now();
        Ok(Self {
            agent: fetch::agent(charge.network.private, trust),
            folder,
            work: work.to_owned(),
            bytes_left: charge.bytes_max,
            room: Room { bytes: charge.unpacked_max, entries: charge.files_max },
            progress: Progress {
                done: 0,
                of: charge.inputs.len(),
                part: (0, 1),
                began: now,
                told: None,
            },
            charge,
        })
    }

    fn carry(mut self) -> Result<(), Refused> {
        if let Some(url) = self.charge.code.take() {
            self.code(&url)?;
        }
        for input in std::mem::take(&mut self.charge.inputs) {
            match &input.origin {
                Origin::HuggingFace(repository) => self.repository(&input.path, repository)?,
                Origin::Url(url) => {
                    let wanted = (url.as_str(), input.sha256.as_deref(), None);
                    self.lay_out(&input, |porter, file| porter.download(wanted, file))?;
                }
                Origin::Inline(base64) => {
                    let bytes = DecoderReader::new(base64.as_bytes(), &STANDARD);
                    self.lay_out(&input, |_, file| copy(bytes, file, input.sha256.as_deref()))?;
                }
                Origin::Artefact(cid) => {
                    self.lay_out(&input, |porter, file| {
                        porter.earlier(cid, file, input.sha256.as_deref())
                    })?;
                }
            }
            self.progress.done += 1;
        }
        Ok(())
    }

    fn code(&self, url: &str) -> Result<(), Refused> {
        let path = code_file(&self.work);
        let folder = path.parent().unwrap_or(&self.work);
        fs::create_dir_all(folder).map_err(|error| ours(&error))?;
        let file = File::create_new(&path).map_err(|error| ours(&error))?;
        let wanted = Wanted { url, sha256: None, token: None, bytes_max: CODE_MAX };
        fetch::fetch_into(&self.agent, wanted, &file, &mut |_, _| {}).map_err(not_fetched)?;
        Ok(())
    }

    /// One file, to its place or, if it is an archive, to be unpacked there.
    fn lay_out(
        &mut self,
        input: &Input,
        fill: impl FnOnce(&mut Self, &File) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let path = Path::new(&input.path);
        let Some(kind) = input.unpack else {
            let file = self.folder.create(path, PLAIN).map_err(|error| misplaced(path, &error))?;
            return fill(self, &file);
        };
        let mut file = tempfile::tempfile_in(&self.work).map_err(|error| ours(&error))?;
        fill(self, &file)?;
        file.rewind().map_err(|error| ours(&error))?;
        let into = self.folder.make_folder(path).map_err(|error| misplaced(path, &error))?;
        let Self { room, progress, .. } = self;
        let mut report = |bytes| progress.tell("unpacking", bytes, None);
        archive::unpack(file, kind, &into, room, &mut report).map_err(|error| match error {
            archive::Error::Theirs(error) => bad_input(format!("an archive is refused: {error}")),
            archive::Error::Ours(error) => internal(error),
        })
    }

    /// `wanted` is the URL, its hash and a token, where there are such.
    fn download(
        &mut self,
        (url, sha256, token): (&str, Option<&str>, Option<&str>),
        file: &File,
    ) -> Result<(), Refused> {
        let Self { agent, bytes_left, progress, .. } = self;
        let wanted = Wanted { url, sha256, token, bytes_max: *bytes_left };
        progress.began = Instant::now();
        let mut report = |bytes, size| progress.tell("inputs", bytes, size);
        let bytes = fetch::fetch_into(agent, wanted, file, &mut report).map_err(not_fetched)?;
        self.bytes_left -= bytes;
        Ok(())
    }

    /// A result of an earlier job, if it is here and still what it was.
    fn earlier(&self, cid: &Cid, file: &File, sha256: Option<&str>) -> Result<(), Refused> {
        let kept = Folder::open(&self.charge.artefacts);
        let kept = kept.and_then(|folder| folder.read(Path::new(&cid.to_string())));
        let found = kept.and_then(|mut kept| {
            let address = cid::address(&mut kept, cid::Version::V1)?;
            kept.rewind()?;
            Ok((kept, address.cid == *cid))
        });
        match found {
            Ok((kept, true)) => copy(kept, file, sha256),
            Ok((_, false)) | Err(_) => Err(bad_input(format!(
                "ipfs://{cid} is not among this worker's results: give a url"
            ))),
        }
    }

    fn repository(&mut self, path: &str, repository: &Repository) -> Result<(), Refused> {
        let Repository { files, token, .. } = repository;
        let has_patterns = files.is_empty() || files.iter().any(|file| is_pattern(file));
        let files = if has_patterns { self.files(repository)? } else { files.clone() };
        for (n, file) in files.iter().enumerate() {
            if self.room.entries == 0 {
                return Err(bad_input(format!("{} has too many files", repository.name)));
            }
            self.room.entries -= 1;
            let path = Path::new(path).join(file);
            let kept =
                self.folder.create(&path, PLAIN).map_err(|error| misplaced(&path, &error))?;
            let url = file_url(&self.charge.hugging_face, repository, file);
            self.download((&url, None, token.as_deref()), &kept)?;
            self.progress.part = (n + 1, files.len());
        }
        self.progress.part = (0, 1);
        Ok(())
    }

    /// Those of a repository that are wanted.
    fn files(&self, repository: &Repository) -> Result<Vec<String>, Refused> {
        let url = list_url(&self.charge.hugging_face, repository);
        let mut list = tempfile::tempfile_in(&self.work).map_err(|error| ours(&error))?;
        let token = repository.token.as_deref();
        let wanted = Wanted { url: &url, sha256: None, token, bytes_max: LIST_MAX };
        fetch::fetch_into(&self.agent, wanted, &list, &mut |_, _| {}).map_err(not_fetched)?;
        list.rewind().map_err(|error| ours(&error))?;
        let listed: Listed =
            serde_json::from_reader(io::BufReader::new(list)).map_err(|error| {
                download_failed(format!("the list of {}'s files is none: {error}", repository.name))
            })?;
        let is_wanted = |file: &String| {
            let patterns = &repository.files;
            patterns.is_empty() || patterns.iter().any(|wanted| fits(wanted, file, Star::OfAPath))
        };
        let files: Vec<String> =
            listed.siblings.into_iter().map(|file| file.rfilename).filter(is_wanted).collect();
        if files.is_empty() {
            return Err(bad_input(format!("{} has no such files", repository.name)));
        }
        Ok(files)
    }
}

/// What Hugging Face tells of a repository.
#[derive(Deserialize)]
struct Listed {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

fn file_url(base: &str, repository: &Repository, file: &str) -> String {
    let kind = match repository.kind {
        RepositoryKind::Model => "",
        RepositoryKind::Dataset => "datasets/",
        RepositoryKind::Space => "spaces/",
    };
    let revision = escaped(&repository.revision, false);
    format!("{base}/{kind}{}/resolve/{revision}/{}", repository.name, escaped(file, true))
}

fn list_url(base: &str, repository: &Repository) -> String {
    let kind = match repository.kind {
        RepositoryKind::Model => "models",
        RepositoryKind::Dataset => "datasets",
        RepositoryKind::Space => "spaces",
    };
    let revision = escaped(&repository.revision, false);
    format!("{base}/api/{kind}/{}/revision/{revision}", repository.name)
}

/// As a URL has it. A revision is one part of the path, slashes and all.
fn escaped(name: &str, is_path: bool) -> String {
    let escaped = |byte: u8| match byte {
        b'/' if is_path => "/".to_owned(),
        _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(escaped).collect()
}

impl Progress {
    fn tell(&mut self, what: &str, bytes: u64, size: Option<u64>) {
        if self.told.is_some_and(|told| told.elapsed() < REPORT_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let part = size.map_or(0.0, |size| bytes as f64 / size.max(1) as f64).min(1.0);
        let (files, of) = (self.part.0 as f64, self.part.1.max(1) as f64);
        let done = self.done as f64 + (files + part) / of;
        let of = size.map_or_else(String::new, |size| format!(" of {}", text::size(size)));
        let speed = bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let operation = format!("{what}: {}{of}, {}/s", text::size(bytes), speed_of(speed));
        let line =
            json!({"progress": done * 100.0 / self.of.max(1) as f64, "operation": operation});
        // An agent that listens no more ends us by the lifeline.
        writeln!(io::stdout(), "{line}").ok();
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
pub(super) fn speed_of(bytes_a_second: f64) -> String {
    text::size(bytes_a_second as u64)
}

/// Copies and, if there is a hash to compare with, compares.
fn copy(mut from: impl Read, mut to: &File, sha256: Option<&str>) -> Result<(), Refused> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ours(&error)),
        };
        hash.update(&chunk[..length]);
        to.write_all(&chunk[..length]).map_err(|error| ours(&error))?;
    }
    let found = text::hex(&hash.finalize());
    match sha256 {
        Some(wanted) if wanted != found => {
            Err(bad_input(format!("an input's sha256 is {found}, the job says {wanted}")))
        }
        _ => Ok(()),
    }
}

fn misplaced(path: &Path, error: &io::Error) -> Refused {
    let told = format!("{} cannot be laid out: {error}", path.display());
    if is_of_the_job(error) { bad_input(told) } else { internal(told) }
}

fn not_fetched(error: fetch::Error) -> Refused {
    match error {
        fetch::Error::Theirs(error) => download_failed(error),
        fetch::Error::Ours(error) => internal(error),
    }
}

fn download_failed(error: String) -> Refused {
    Refused { reason: Reason::DownloadFailed, stage: Stage::Inputs, error }
}

fn bad_input(error: String) -> Refused {
    Refused { reason: Reason::BadInput, stage: Stage::Inputs, error }
}

fn ours(error: &io::Error) -> Refused {
    internal(format!("cannot lay out the inputs: {error}"))
}

fn internal(error: String) -> Refused {
    Refused { reason: Reason::Internal, stage: Stage::Inputs, error }
}
