//! Brings a file to where a job wants it: one request, PUT or the form of a presigned POST, tried again
//! when it may help.

use std::fs::File;
use std::io::{self, Read, Seek as _};

use ureq::http::{Response, header};
use ureq::{Agent, Body, SendBody};

use crate::fetch::{Cut, TRIES, said, shown, wait};
use crate::work::{Form, Upload};

/// A file to be sent, and how it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) file: &'a File,
    pub(crate) bytes: u64,
    pub(crate) name: &'a str,
}

/// Sends the file, and calls `report` with the bytes so far. Returns the status it was taken with, or why
/// it was not.
pub(crate) fn upload(
    agent: &Agent,
    to: &Upload,
    sent: Sent<'_>,
    report: &mut dyn FnMut(u64),
) -> Result<u16, String> {
    let mut rng = fastrand::Rng::new();
    for tries in 1.. {
        let error = match attempt(agent, to, sent, report) {
            Ok(status) => return Ok(status),
            Err(Cut::Again(error)) if tries < TRIES => error,
            Err(Cut::Again(error)) => {
                let error = format!("cannot upload to {}: {error}, {tries} times", shown(&to.url));
                return Err(error);
            }
            Err(Cut::Over(error)) => {
                return Err(format!("cannot upload to {}: {error}", shown(&to.url)));
            }
        };
        log::info!("upload to {} failed, trying again: {error}", shown(&to.url));
        wait(tries - 1, &mut rng);
    }
    unreachable!("the last try returns")
}

fn attempt(
    agent: &Agent,
    to: &Upload,
    sent: Sent<'_>,
    report: &mut dyn FnMut(u64),
) -> Result<u16, Cut> {
    let mut file = sent.file;
    let unreadable = |error: io::Error| Cut::Over(format!("{} cannot be read: {error}", sent.name));
    file.rewind().map_err(unreadable)?;
    let mut counted = Counted { file: file.take(sent.bytes), bytes: 0, report };
    let reply = match &to.form {
        Form::Put => send(agent, to, "PUT", sent.bytes, &mut counted, None),
        Form::Post(fields) => {
            let boundary = format!("part-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            let head = form_head(&boundary, fields, sent.name);
            let tail = format!("\r\n--{boundary}--\r\n");
            let length = (head.len() + tail.len()) as u64 + sent.bytes;
            let mut body = head.as_bytes().chain(&mut counted).chain(tail.as_bytes());
            let kind = format!("multipart/form-data; boundary={boundary}");
            send(agent, to, "POST", length, &mut body, Some(kind))
        }
    };
    let reply = reply.map_err(|error| Cut::of_error(&error))?;
    match reply.status().as_u16() {
        status @ 200..300 => Ok(status),
        // The body would have to be sent once more, to somebody whom the job has not named.
        status @ 300..400 => Err(Cut::Over(format!("the server answered {status}, elsewhere"))),
        status => Err(Cut::of_status(status, &said(reply))),
    }
}

fn send(
    agent: &Agent,
    to: &Upload,
    method: &str,
    length: u64,
    body: &mut dyn Read,
    form: Option<String>,
) -> Result<Response<Body>, ureq::Error> {
    let request = if method == "PUT" { agent.put(&to.url) } else { agent.post(&to.url) };
    let mut request = request
        .config()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .header(header::CONTENT_LENGTH, length);
    for (name, value) in &to.headers {
        // The boundary of a form is ours to say.
        if form.is_none() || !name.eq_ignore_ascii_case("content-type") {
            request = request.header(name, value);
        }
    }
    if let Some(form) = form {
        request = request.header(header::CONTENT_TYPE, form);
    }
    request.send(SendBody::from_reader(&mut { body }))
}

/// The fields, and the beginning of the part that is the file: it comes last, as S3 wants it.
fn form_head(boundary: &str, fields: &[(String, String)], name: &str) -> String {
    let part = |(field, value): &(String, String)| {
        let field = quoted(field);
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
        )
    };
    let parts: String = fields.iter().map(part).collect();
    let name = quoted(name);
    format!(
        "{parts}--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; \
         filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
}

/// As browsers write names in forms.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

struct Counted<'a, R> {
    file: R,
    bytes: u64,
    report: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.bytes += length as u64;
        (self.report)(self.bytes);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
