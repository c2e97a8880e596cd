//! Adds files to an IPFS node by Kubo's HTTP API, so that others can fetch them by their address.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header;
use ureq::{Agent, Body, SendBody};

use crate::cid::Cid;
use crate::config::BackendUrl;
use crate::text;

/// For a node that is there, on this machine or near it.
const CONNECT: Duration = Duration::from_secs(10);

/// For all of it, a large file too.
const ADD: Duration = Duration::from_secs(60);

/// The most of an answer that is read.
const REPLY_MAX: u64 = 64 << 10;

/// The node has its own defaults for what makes an address; these are the ones that ours are made by.
const QUERY: &str = "cid-version=1&raw-leaves=true&hash=sha2-256&chunker=size-262144&pin=true&quieter=true&progress=false";

/// Offers the file to the node. That it could not be added takes nothing from the job whose file it is:
/// there is one warning.
pub(crate) fn publish(api: &BackendUrl, file: &Path, cid: &Cid) {
    match add(api, file, cid) {
        Ok(()) => log::debug!("added to the IPFS node cid={cid}"),
        Err(why) => log::warn!("{cid} was not added to the IPFS node at {}: {why}", api.base),
    }
}

/// The node's answer to a file that was added.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Added {
    hash: String,
}

/// The node's answer to one that was not.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    message: String,
}

fn add(api: &BackendUrl, file: &Path, cid: &Cid) -> Result<(), String> {
    let open = || File::open(file).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, file) =
        open().map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    // What separates the parts must not stand in them; and no file can hold its own address.
    let head = format!(
        "--{cid}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{cid}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{cid}--\r\n");
    let total = (head.len() + tail.len()) as u64 + length;
    let mut body = head.as_bytes().chain(file.take(length)).chain(tail.as_bytes());
    let response = agent(api)
        .post(format!("{}/api/v0/add?{QUERY}", api.base))
        .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={cid}"))
        .header(header::CONTENT_LENGTH, total)
        .send(SendBody::from_reader(&mut body))
        .map_err(|error| text::one_line(&error.to_string(), 200))?;
    let status = response.status().as_u16();
    let answer =
        read(response.into_body()).map_err(|error| format!("its answer broke off: {error}"))?;
    let shown = || text::one_line(&answer, 200);
    if status != 200 {
        let told = serde_json::from_str::<Refused>(&answer)
            .map(|refused| text::one_line(&refused.message, 200));
        return Err(format!("it answers {status}: {}", told.unwrap_or_else(|_| shown())));
    }
    // One JSON object a line; the last one is the file.
    let last = answer.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let Ok(Added { hash }) = serde_json::from_str(last) else {
        return Err(format!("it answers {}", shown()));
    };
    if hash.parse::<Cid>().is_ok_and(|named| named == *cid) {
        return Ok(());
    }
    Err(format!(
        "it calls the file {}: its version makes addresses in another way",
        text::one_line(&hash, 80)
    ))
}

fn agent(api: &BackendUrl) -> Agent {
    let builder = Agent::config_builder();
    let builder = if api.is_loopback { builder.proxy(None) } else { builder };
    builder
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(ADD))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("qubix-worker/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

fn read(body: Body) -> io::Result<String> {
    let mut bytes = vec![];
    body.into_reader().take(REPLY_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;
    use crate::cid::{Version, address};
    use crate::serve::{Reply, Request, Response, Server};

    /// Stops the server also where a test fails.
    struct Stop<'a>(&'a Server);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }

    /// What became of a file with these bytes at a node that answers like this.
    fn added(bytes: &[u8], answer: impl Fn(&Request) -> Reply + Sync) -> Result<(), String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let cid = address(&mut &*bytes, Version::V1).unwrap().cid;
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let base = format!("http://{}", server.addr());
        let api = BackendUrl { origin: base.clone(), base, is_loopback: true };
        thread::scope(|scope| {
            let serve = || server.serve(bytes.len() + 1000, &answer);
            thread::Builder::new().spawn_scoped(scope, serve).unwrap();
            let _stop = Stop(&server);
            add(&api, file.path(), &cid)
        })
    }

    fn says(status: u16, body: &str) -> Reply {
        let content_type = "application/json";
        Reply::Whole(Response { status, content_type, headers: vec![], body: body.into() })
    }

    /// A node in a few lines: takes the one part out of the form, and tells its address.
    fn node(request: &Request) -> Reply {
        let form = request.header("content-type").unwrap_or_default();
        let boundary = form.strip_prefix("multipart/form-data; boundary=").unwrap();
        let tail = format!("\r\n--{boundary}--\r\n");
        let head_end = request.body.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (head, rest) = request.body.split_at(head_end);
        assert!(head.starts_with(format!("--{boundary}\r\n").as_bytes()));
        assert!(String::from_utf8_lossy(head).contains("form-data; name=\"file\"; filename="));
        let mut file = rest.strip_suffix(tail.as_bytes()).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/v0/add"));
        let Ok(address) = address(&mut file, Version::V1) else { return Reply::Reset };
        says(200, &format!("{{\"Name\":\"x\",\"Hash\":\"{}\",\"Size\":\"9\"}}\n", address.cid))
    }

    #[test]
    fn the_node_gets_the_file_and_no_byte_else() {
        for bytes in [&b""[..], b"hello world\n", b"\r\n--x--\r\n", &[7; 700_000]] {
            assert_eq!(added(bytes, node), Ok(()));
        }
    }

    #[test]
    fn a_node_that_makes_another_address_is_told_of() {
        let v0 = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
        let other = |_: &Request| says(200, &format!("{{\"Hash\":\"{v0}\"}}"));
        assert_eq!(
            added(b"hello world\n", other),
            Err(format!("it calls the file {v0}: its version makes addresses in another way"))
        );
    }

    #[test]
    fn what_a_node_says_against_it_is_told_in_one_line() {
        let told = |status, body: &'static str| added(b"x", move |_| says(status, body));
        let full = r#"{"Message":"pin: disk\nfull","Code":0,"Type":"error"}"#;
        assert_eq!(told(500, full), Err("it answers 500: pin: disk full".into()));
        assert_eq!(told(403, "<html>"), Err("it answers 403: <html>".into()));
        assert_eq!(told(200, "<html>"), Err("it answers <html>".into()));
        assert_eq!(told(200, ""), Err("it answers ".into()));
        let gone = added(b"x", |_| Reply::Reset);
        assert!(gone.is_err_and(|why| !why.contains('\n')));
    }
}
