//! Downloads what a job names by its URL: resumed where it was cut, bounded, checked.

mod net;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::Timespec;
use sha2::{Digest as _, Sha256};
use ureq::http::{HeaderMap, Response, header};
use ureq::{Agent, Body};

pub(crate) use net::{Cut, agent, shown};

use crate::retry;
use crate::text;

/// The largest file, if nothing smaller is asked for.
pub(crate) const BYTES_MAX: u64 = 10 << 30;
const CHUNK: usize = 64 << 10;

/// How often in a row it is tried without getting further, and how often in all.
pub(crate) const TRIES: u32 = 5;
const TRIES_IN_ALL: u32 = 200;

/// The most of a server's own words.
const SAID_MAX: u64 = 1000;

/// What is to be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// In hexadecimal, if the job gave one.
    pub(crate) sha256: Option<&'a str>,
    /// Goes to this server and to none that it leads to.
    pub(crate) token: Option<&'a str>,
    pub(crate) bytes_max: u64,
}

/// Why there is no file, in one line for a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The server's fault, or that of whoever named it.
    Theirs(String),
    /// This machine cannot keep it.
    Ours(String),
}

/// Writes the file, and calls `report` with the bytes so far and, if known, in all.
pub(crate) fn fetch(
    agent: &Agent,
    wanted: Wanted<'_>,
    to: &Path,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Error> {
    let created = File::create(to);
    let file = created
        .map_err(|error| Error::Ours(format!("cannot keep {}: {error}", shown(wanted.url))))?;
    fetch_into(agent, wanted, &file, report).map(|_| ())
}

/// The same into a file that is open, and empty. Returns how long it is.
pub(crate) fn fetch_into(
    agent: &Agent,
    wanted: Wanted<'_>,
    to: &File,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<u64, Error> {
    let told = |error: String| format!("cannot download {}: {error}", shown(wanted.url));
    let mut kept = Kept { file: to, hash: Sha256::new(), bytes: 0, furthest: 0, version: None };
    let (mut in_vain, mut tries) = (0, 0);
    let mut rng = fastrand::Rng::new();
    loop {
        let before = kept.furthest;
        let error = match kept.attempt(agent, &wanted, report) {
            Ok(()) => break,
            Err(Stop::Cut(Cut::Again(error))) => error,
            Err(Stop::Cut(Cut::Over(error))) => return Err(Error::Theirs(told(error))),
            Err(Stop::Ours(error)) => {
                let error = format!("cannot keep {}: {error}", shown(wanted.url));
                return Err(Error::Ours(error));
            }
        };
        (in_vain, tries) = (if kept.furthest > before { 1 } else { in_vain + 1 }, tries + 1);
        if in_vain >= TRIES || tries >= TRIES_IN_ALL {
            return Err(Error::Theirs(told(format!("{error}, {tries} times"))));
        }
        wait(in_vain - 1, &mut rng);
    }
    let found = text::hex(&kept.hash.finalize());
    match wanted.sha256 {
        Some(wanted) if wanted != found => {
            Err(Error::Theirs(told(format!("its sha256 is {found}, the job says {wanted}"))))
        }
        _ => Ok(kept.bytes),
    }
}

/// Before the next try. Only children wait here, which are ended from outside.
pub(crate) fn wait(failures: u32, rng: &mut fastrand::Rng) {
    let time = if cfg!(test) { Duration::from_millis(1) } else { retry::delay(failures, rng) };
    // The shorter wait after a signal does no harm.
    let time = Timespec::try_from(time).ok();
    rustix::event::poll(&mut [], time.as_ref()).ok();
}

enum Stop {
    Cut(Cut),
    Ours(io::Error),
}

/// What has come of a file so far.
struct Kept<'a> {
    file: &'a File,
    hash: Sha256,
    bytes: u64,
    /// The most there ever was.
    furthest: u64,
    /// By what the server can tell that it still has the same file.
    version: Option<String>,
}

impl Kept<'_> {
    fn attempt(
        &mut self,
        agent: &Agent,
        wanted: &Wanted<'_>,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Stop> {
        let mut request = agent.get(wanted.url);
        if let Some(token) = wanted.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let resumed = self.version.as_ref().filter(|_| self.bytes > 0);
        if let Some(version) = resumed {
            let range = format!("bytes={}-", self.bytes);
            request = request.header(header::RANGE, range).header(header::IF_RANGE, version);
        }
        let reply = request.call().map_err(|error| Stop::Cut(Cut::of_error(&error)))?;
        match reply.status().as_u16() {
            206 if resumed.is_some() && begins_at(reply.headers(), self.bytes) => {}
            200 => self.begin_anew(reply.headers()).map_err(Stop::Ours)?,
            206 | 416 => {
                self.version = None;
                return Err(Stop::Cut(Cut::Again("the server resumed it at a wrong place".into())));
            }
            status => return Err(Stop::Cut(Cut::of_status(status, ""))),
        }
        self.receive(reply, wanted.bytes_max, report)
    }

    fn begin_anew(&mut self, headers: &HeaderMap) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hash, self.bytes, self.version) = (Sha256::new(), 0, version(headers));
        Ok(())
    }

    fn receive(
        &mut self,
        reply: Response<Body>,
        bytes_max: u64,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Stop> {
        let over = |problem| Err(Stop::Cut(Cut::Over(problem)));
        let size = reply.body().content_length().map(|rest| self.bytes.saturating_add(rest));
        if size.is_some_and(|size| size > bytes_max) {
            return over(too_large(size, bytes_max));
        }
        let mut body = reply.into_body().into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Cut(Cut::Again(error.to_string()))),
            };
            if self.bytes + length as u64 > bytes_max {
                return over(too_large(None, bytes_max));
            }
            self.file.write_all(&chunk[..length]).map_err(Stop::Ours)?;
            self.hash.update(&chunk[..length]);
            self.bytes += length as u64;
            self.furthest = self.furthest.max(self.bytes);
            report(self.bytes, size);
        }
        if size.is_some_and(|size| size != self.bytes) {
            let problem = format!("it ended after {} bytes", self.bytes);
            return Err(Stop::Cut(Cut::Again(problem)));
        }
        Ok(())
    }
}

/// What a server says instead of what it was asked for.
pub(crate) fn said(reply: Response<Body>) -> String {
    let mut said = vec![];
    // What cannot be read is not said.
    reply.into_body().into_reader().take(SAID_MAX).read_to_end(&mut said).ok();
    String::from_utf8_lossy(&said).into_owned()
}

/// What another request can be bound to: a weak tag cannot, which only says that it is as good.
fn version(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let tag = text(header::ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text(header::LAST_MODIFIED))
}

fn begins_at(headers: &HeaderMap, at: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

fn too_large(size: Option<u64>, most: u64) -> String {
    let size = size.map_or_else(|| "more".into(), text::size);
    format!("it has {size}, the most is {}", text::size(most))
}

#[cfg(test)]
mod tests;
