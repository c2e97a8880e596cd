//! A backend behind TLS, whose certificate is signed by an authority of our own. The key beside this
//! file is good for nothing else than this; with it are signed too, each by itself, a certificate that has
//! expired and one of another name.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{Home, run};

const REPLY: &str = r#"{"success":true,"provider":{"id":"p"},"pendingJobs":[]}"#;

pub(crate) fn file(name: &str) -> String {
    format!("{}/tests/it/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Answers every request alike until the test process ends, with this certificate. Returns the URL.
pub(crate) fn serve(certificate: &str) -> String {
    let certificate = CertificateDer::from_pem_file(file(certificate)).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    thread::Builder::new()
        .name("tls backend".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                // A client that does not trust us hangs up in the middle.
                answer(stream.unwrap(), &config).ok();
            }
        })
        .unwrap();
    url
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<()> {
    let session = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    let mut request = vec![0; 64 << 10];
    // Small requests come in one piece.
    let _read = stream.read(&mut request)?;
    let length = REPLY.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{REPLY}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_and_one_we_were_given_is_not() {
    let (home, url) = (Home::new(), serve("server.pem"));
    let mut stranger = home.worker(&url, &[]);
    stranger.wait_log("invalid peer certificate: UnknownIssuer");
    stranger.stop();
    assert!(!stranger.log().contains("registered"), "{}", stranger.log());

    let mut worker = home.worker(&url, &["--ca-cert", &file("ca.pem")]);
    worker.wait_log("registered");
    worker.stop();
}

#[test]
fn a_file_that_holds_no_certificates_is_refused_by_name() {
    let home = Home::new();
    for name in ["server.key", "mod.rs", "missing.pem"] {
        let path = file(name);
        let (code, _, log) = run(&["--state-dir", &home.path("state"), "--ca-cert", &path]);
        assert_eq!(code, 2, "{log}");
        assert!(log.contains(&format!("--ca-cert {path}: ")), "{log}");
    }
}
