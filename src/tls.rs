//! Whom we believe on the other side of a TLS connection.

use std::path::Path;

use ureq::http::{Request, Response};
use ureq::middleware::MiddlewareNext;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Body, SendBody};

use crate::clock;

/// Refuses what would panic: the TLS library knows no time before 1970.
pub(crate) fn after_1970(
    request: Request<SendBody<'_>>,
    next: MiddlewareNext<'_>,
) -> Result<Response<Body>, ureq::Error> {
    if request.uri().scheme_str() == Some("https") && clock::is_before_1970() {
        return Err(ureq::Error::Tls("the clock of this machine stands before 1970: set it"));
    }
    next.handle(request)
}

/// The public certificates, and the provider's own where one is given.
pub(crate) fn trusting(ca_cert: Option<&Path>) -> Result<TlsConfig, String> {
    let Some(file) = ca_cert else { return Ok(TlsConfig::default()) };
    let told = |what: String| format!("--ca-cert {}: {what}", file.display());
    let pem = std::fs::read(file).map_err(|error| told(error.to_string()))?;
    let mut trusted: Vec<Certificate<'static>> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let public = trusted.len();
    for item in ureq::tls::parse_pem(&pem) {
        match item.map_err(|error| told(error.to_string()))? {
            PemItem::Certificate(certificate) => trusted.push(certificate),
            _ => return Err(told("holds something else than certificates".into())),
        }
    }
    if trusted.len() == public {
        return Err(told("holds no certificate in PEM form".into()));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&trusted)).build())
}

/// What to do about a server that shows the certificate of an authority as its own, by the words of the
/// refusal.
pub(crate) fn authority_as_server(refusal: &str) -> Option<&'static str> {
    refusal.contains("CaUsedAsEndEntity").then_some(
        "make it anew as a server's, with openssl req -x509 -addext basicConstraints=critical,CA:FALSE, \
         and give that as --ca-cert",
    )
}
