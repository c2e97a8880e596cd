//! A storage server: files by their paths, parts of them where asked, and uploads by PUT and by forms, as
//! presigned addresses take them; over HTTP or HTTPS. What is to go wrong is said by the path's rule.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request: its first line, its head in lower case, and its body.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) call: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Stored {
    /// The fields of a form by their names, in the order in which they came.
    pub(crate) fn form(&self) -> Vec<(String, Vec<u8>)> {
        let boundary = self.head.split("boundary=").nth(1).and_then(|rest| rest.lines().next());
        let Some(boundary) = boundary else { return vec![] };
        let mut parts = vec![];
        for part in split(&self.body, format!("--{boundary}").as_bytes()) {
            let mut halves = split(part, b"\r\n\r\n");
            let (Some(head), Some(content)) = (halves.next(), halves.next()) else { continue };
            let head = String::from_utf8_lossy(head);
            let name = head.split("name=\"").nth(1).and_then(|rest| rest.split('"').next());
            let content = content.strip_suffix(b"\r\n").unwrap_or(content);
            parts.push((name.unwrap_or_default().to_owned(), content.to_vec()));
        }
        parts
    }
}

fn split<'a>(mut text: &'a [u8], by: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let at = text.windows(by.len()).position(|window| window == by);
        ended = at.is_none();
        let part = &text[..at.unwrap_or(text.len())];
        text = at.map_or(&[], |at| &text[at + by.len()..]);
        Some(part)
    })
}

/// What presigned addresses have behind their `?`.
const SIGNATURE: &str = "X-Amz-Expires=600&X-Amz-Signature=hidden";

#[derive(Debug, Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    /// Paths that are not served without a signature.
    signed: BTreeSet<String>,
    /// Paths that are never answered.
    stalled: BTreeSet<String>,
    /// So many requests for this path end in the middle of the answer, or are refused.
    faults: BTreeMap<String, usize>,
    seen: Vec<Stored>,
}

/// Runs until the test process ends.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) url: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Storage {
    pub(crate) fn http() -> Self {
        Self::serve(None)
    }

    /// The certificate is signed by `tests/it/tls/ca.pem`.
    pub(crate) fn https() -> Self {
        Self::serve(Some(tls_config()))
    }

    fn serve(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match tls {
            None => format!("http://127.0.0.1:{port}"),
            Some(_) => format!("https://localhost:{port}"),
        };
        let storage = Self { url, shelf: Arc::default() };
        let served = storage.clone();
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (served, tls) = (served.clone(), tls.clone());
                let answer = move || match tls {
                    None => served.answer(stream),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        served.answer(StreamOwned::new(session, stream));
                    }
                };
                thread::Builder::new().name("stored".into()).spawn(answer).unwrap();
            }
        };
        thread::Builder::new().name("storage".into()).spawn(accept).unwrap();
        storage
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) -> String {
        self.with(|shelf| shelf.files.insert(path.to_owned(), content.to_vec()));
        format!("{}{path}", self.url)
    }

    /// An address that is good for this path alone, of a file or for an upload.
    pub(crate) fn presigned(&self, path: &str) -> String {
        self.with(|shelf| shelf.signed.insert(path.to_owned()));
        format!("{}{path}?{SIGNATURE}", self.url)
    }

    /// Requests for this path are read, and no more.
    pub(crate) fn stall(&self, path: &str) -> String {
        self.with(|shelf| shelf.stalled.insert(path.to_owned()));
        format!("{}{path}", self.url)
    }

    /// The requests for this path, oldest first.
    pub(crate) fn asked(&self, path: &str) -> Vec<Stored> {
        let is_for = |stored: &Stored| stored.call.split([' ', '?']).nth(1) == Some(path);
        self.seen().into_iter().filter(is_for).collect()
    }

    /// The next requests for this path fail.
    pub(crate) fn fail(&self, path: &str, times: usize) {
        self.with(|shelf| shelf.faults.insert(path.to_owned(), times));
    }

    pub(crate) fn seen(&self) -> Vec<Stored> {
        self.with(|shelf| shelf.seen.clone())
    }

    fn with<T>(&self, change: impl FnOnce(&mut Shelf) -> T) -> T {
        change(&mut self.shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One request a connection.
    fn answer(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        let lines = stream.by_ref().lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let Some(call) = head.first().map(|line| line.trim_end_matches(" HTTP/1.1").to_owned())
        else {
            return;
        };
        let head = head.join("\n").to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let path = call.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
        let is_get = call.starts_with("GET");
        let is_signed = call.contains(SIGNATURE);
        let (file, fails, is_refused, is_stalled) = self.with(|shelf| {
            shelf.seen.push(Stored { call, head: head.clone(), body });
            let left = shelf.faults.get_mut(&path).filter(|left| **left > 0);
            let fails = left.map(|left| *left -= 1).is_some();
            let is_refused = shelf.signed.contains(&path) && !is_signed;
            let is_stalled = shelf.stalled.contains(&path);
            (shelf.files.get(&path).cloned(), fails, is_refused, is_stalled)
        });
        if is_stalled {
            // Until whoever asks has heard enough.
            stream.read_exact(&mut [0]).ok();
            return;
        }
        let answer = match (is_get, file) {
            (_, _) if is_refused => {
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
            }
            (true, Some(file)) => part(&file, &head, fails),
            (true, None) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            (false, _) if fails => {
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
            }
            (false, _) => b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".to_vec(),
        };
        // Whoever has heard enough may be gone.
        stream.get_mut().write_all(&answer).and_then(|()| stream.get_mut().flush()).ok();
    }
}

/// For `localhost`, by a certificate that `tests/it/tls/ca.pem` has signed.
pub(crate) fn tls_config() -> Arc<ServerConfig> {
    let file = |name| format!("{}/tests/it/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

/// The file or what was asked of it; half of that if it is to fail.
fn part(file: &[u8], head: &str, fails: bool) -> Vec<u8> {
    let from = head.split("range: bytes=").nth(1).and_then(|range| range.split('-').next());
    let from: usize = from.map_or(0, |from| from.parse().unwrap());
    let (rest, all) = (&file[from..], file.len());
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}", all - 1),
    };
    let sent = if fails { &rest[..rest.len() / 2] } else { rest };
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"one\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    [head.as_bytes(), sent].concat()
}
