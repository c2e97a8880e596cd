//! The hidden subcommand that takes what another's program has left: finds it, hashes it, and brings it
//! where the job wants it. A child of the agent, since all of it may be made to do harm.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::ArgMatches;
use serde_json::json;
use ureq::Agent;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::engine::{bounds, when_let_go};
use super::learn::{REPORT_EVERY, Refused};
use super::supply::speed_of;
use crate::beneath::{Folder, Found, is_of_the_job};
use crate::cid::{self, Address};
use crate::exit::Exit;
use crate::job::{
    Artefact, RESULT, Removal, Removed, Skipped, Uploaded, answer, kept_dir, take_charge,
};
use crate::pattern::{Star, fits, is_pattern};
use crate::upload::{Sent, upload};
use crate::work::{Output, Reason, Stage};
use crate::{config, fetch, text, tls};

/// How many files are looked at, how many of them taken, and how many of what is none are told of.
const LIST_MAX: usize = 20_000;
const FILES_MAX: usize = 1000;
const SKIPPED_MAX: usize = 100;

/// How many files all outputs may take, of which several may mean the same.
const TAKEN_MAX: usize = 2 * FILES_MAX;

/// What an archive of outputs is called.
const ZIP: &str = "output.zip";

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    when_let_go(&bounds(args)?, || {
        let (_, output) =
            config::job_folders().context("this subcommand is for the agent's use")?;
        let work = output.parent().context("the output folder is in no other")?.to_owned();
        let mut porter = Porter::new(&output, &work)?;
        porter.carry()?;
        answer(&work, &porter.removed).map_err(internal)?;
        Ok(())
    })
}

/// Brings the outputs away.
struct Porter {
    charge: Removal,
    folder: Folder,
    work: PathBuf,
    agent: Agent,
    /// The files, and how long they are.
    files: BTreeMap<String, u64>,
    removed: Removed,
    /// Bytes of what was not uploaded, by all outputs: many may mean the same files.
    kept: u64,
    /// What could not be brought where it was to go.
    failed: Vec<String>,
    progress: Progress,
}

struct Progress {
    done: usize,
    of: usize,
    began: Instant,
    told: Option<Instant>,
}

impl Porter {
    fn new(output: &Path, work: &Path) -> Result<Self, Refused> {
        let charge: Removal = take_charge(work).map_err(internal)?;
        let trust = tls::trusting(charge.network.ca_cert.as_deref()).map_err(internal)?;
        let unread = |error: io::Error| unreadable("the output folder", &error);
        let folder = Folder::open(output).map_err(unread)?;
        let (found, is_all) = folder.list(LIST_MAX).map_err(unread)?;
        if !is_all {
            return Err(bad(format!("the program left more than {LIST_MAX} files and folders")));
        }
        let (files, skipped) = sorted(found);
        let progress =
            Progress { done: 0, of: charge.outputs.len(), began: Instant::now(), told: None };
        Ok(Self {
            agent: fetch::agent(charge.network.private, trust),
            charge,
            folder,
            work: work.to_owned(),
            files,
            removed: Removed { artefacts: vec![], skipped },
            kept: 0,
            failed: vec![],
            progress,
        })
    }

    fn carry(&mut self) -> Result<(), Refused> {
        let outputs = std::mem::take(&mut self.charge.outputs);
        if outputs.is_empty() {
            let all =
                Output { path: "**".into(), except: vec![RESULT.into()], zip: false, to: None };
            return self.output(&all);
        }
        for output in &outputs {
            self.output(output)?;
            self.progress.done += 1;
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        let error = self.failed.join("; ");
        Err(Refused { reason: Reason::UploadFailed, stage: Stage::Outputs, error })
    }

    fn output(&mut self, output: &Output) -> Result<(), Refused> {
        let is_wanted = |path: &str| {
            fits(&output.path, path, Star::OfAName) && !output.except.iter().any(|not| not == path)
        };
        let files: Vec<(String, u64)> = self
            .files
            .iter()
            .filter(|(path, _)| is_wanted(path))
            .map(|(path, bytes)| (path.clone(), *bytes))
            .collect();
        self.bounded(&files)?;
        if output.zip {
            return self.zip(output, &files);
        }
        if files.is_empty() && !(output.to.is_none() && is_pattern(&output.path)) {
            self.failed.push(self.nothing_at(&output.path));
        }
        for (path, bytes) in &files {
            let file =
                self.folder.read(Path::new(path)).map_err(|error| unreadable(path, &error))?;
            self.bring(output, path, (&file, *bytes), None)?;
        }
        Ok(())
    }

    fn bounded(&self, files: &[(String, u64)]) -> Result<(), Refused> {
        let most = self.charge.bytes_max;
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        if files.len() > FILES_MAX {
            return Err(bad(format!(
                "the program left {} files, the most is {FILES_MAX}",
                files.len()
            )));
        }
        if bytes > most {
            let (bytes, most) = (text::size(bytes), text::size(most));
            return Err(bad(format!("the program left {bytes}, the most is {most}")));
        }
        Ok(())
    }

    /// What a person needs to know who finds nothing where a file was to be.
    fn nothing_at(&self, path: &str) -> String {
        let skipped = self.removed.skipped.iter().find(|skipped| skipped.path == path);
        match skipped {
            Some(skipped) => format!("{path} is {} and was not taken", skipped.reason),
            None => format!("the program left no {path}"),
        }
    }

    fn zip(&mut self, output: &Output, files: &[(String, u64)]) -> Result<(), Refused> {
        let file = tempfile::tempfile_in(&self.work).map_err(|error| ours(&error))?;
        let mut zip = ZipWriter::new(file);
        for (path, bytes) in files {
            let mut file =
                self.folder.read(Path::new(path)).map_err(|error| unreadable(path, &error))?;
            let options = SimpleFileOptions::default().large_file(*bytes >= 1 << 31);
            zip.start_file(path.as_str(), options).map_err(|error| internal(error.to_string()))?;
            io::copy(&mut file, &mut zip).map_err(|error| ours(&error))?;
        }
        let file = zip.finish().map_err(|error| internal(error.to_string()))?;
        let bytes = file.metadata().map_err(|error| ours(&error))?.len();
        self.bring(output, ZIP, (&file, bytes), Some(files.len()))
    }

    /// One file to where it is wanted, or else to what is kept.
    fn bring(
        &mut self,
        output: &Output,
        path: &str,
        (file, bytes): (&File, u64),
        files: Option<usize>,
    ) -> Result<(), Refused> {
        if output.to.is_none() {
            self.kept += bytes;
        }
        if self.kept > self.charge.bytes_max || self.removed.artefacts.len() >= TAKEN_MAX {
            let most = text::size(self.charge.bytes_max);
            return Err(bad(format!(
                "its outputs come to more than {most} to be kept, or {TAKEN_MAX} files"
            )));
        }
        let mut whole = file;
        whole.rewind().map_err(|error| ours(&error))?;
        let address = match &output.to {
            None => self.keep(whole),
            Some(_) => cid::address(&mut whole, cid::Version::V1),
        };
        let Address { cid, sha256, bytes: read } =
            address.map_err(|error| unreadable(path, &error))?;
        if read != bytes {
            return Err(bad(format!("{path} changed while it was read")));
        }
        let mut artefact = Artefact { path: path.into(), bytes, sha256, cid, files, upload: None };
        if let Some(to) = &output.to {
            let name = path.rsplit('/').next().unwrap_or(path);
            let progress = &mut self.progress;
            progress.began = Instant::now();
            let mut report = |sent| progress.tell(path, sent, bytes);
            match upload(&self.agent, to, Sent { file, bytes, name }, &mut report) {
                Ok(status) => {
                    artefact.upload = Some(Uploaded { url: fetch::shown(&to.url), status });
                }
                Err(error) => {
                    self.failed.push(format!("{path}: {error}"));
                    return Ok(());
                }
            }
        }
        self.removed.artefacts.push(artefact);
        Ok(())
    }

    /// Beside the output folder under its address, from where the agent takes it into its store. A copy,
    /// which is ours whoever the file belongs to; it is hashed as it is made.
    fn keep(&self, file: &File) -> io::Result<Address> {
        let dir = kept_dir(&self.work);
        std::fs::create_dir_all(&dir)?;
        let mut copy = tempfile::NamedTempFile::new_in(&dir)?;
        let address = cid::address(&mut Copied { from: file, to: &mut copy }, cid::Version::V1)?;
        copy.as_file().sync_all()?;
        copy.persist(dir.join(address.cid.to_string()))?;
        Ok(address)
    }
}

/// Reads, and writes what was read.
struct Copied<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Copied<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.to.write_all(&buffer[..length])?;
        Ok(length)
    }
}

/// The files, and what is none.
fn sorted(found: Vec<Found>) -> (BTreeMap<String, u64>, Vec<Skipped>) {
    let (mut files, mut skipped) = (BTreeMap::new(), vec![]);
    for Found { path, bytes } in found {
        match (path.to_str(), bytes) {
            (Some(path), Ok(bytes)) if !path.chars().any(char::is_control) => {
                files.insert(path.to_owned(), bytes);
            }
            (_, bytes) if skipped.len() < SKIPPED_MAX => {
                let path = text::one_line(&path.to_string_lossy(), 200);
                let reason = bytes.err().unwrap_or("a file whose name is no text").into();
                skipped.push(Skipped { path, reason });
            }
            (_, _) => {}
        }
    }
    (files, skipped)
}

impl Progress {
    fn tell(&mut self, path: &str, bytes: u64, of: u64) {
        if self.told.is_some_and(|told| told.elapsed() < REPORT_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let done = self.done as f64 + bytes as f64 / of.max(1) as f64;
        let speed = bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let (bytes, of_bytes) = (text::size(bytes), text::size(of));
        let operation = format!("outputs: {path}, {bytes} of {of_bytes}, {}/s", speed_of(speed));
        let percent = (done * 100.0 / self.of.max(1) as f64).min(100.0);
        let line = json!({"progress": percent, "operation": operation});
        // An agent that listens no more ends us by the lifeline.
        writeln!(io::stdout(), "{line}").ok();
    }
}

fn bad(error: String) -> Refused {
    Refused { reason: Reason::BadInput, stage: Stage::Outputs, error }
}

fn unreadable(path: &str, error: &io::Error) -> Refused {
    let told = format!("{path} cannot be read: {error}");
    if is_of_the_job(error) { bad(told) } else { internal(told) }
}

fn ours(error: &io::Error) -> Refused {
    internal(format!("cannot take the outputs: {error}"))
}

fn internal(error: String) -> Refused {
    Refused { reason: Reason::Internal, stage: Stage::Outputs, error }
}
