//! The heads of HTTP/1.1 messages: a request's from bytes, or the status that refuses it; a response's to text.
//!
//! Pure, so that every malformed head can be tried without a socket.

use super::Response;

const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As sent (still percent-encoded), without the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns the first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum KeepAlive {
    Yes,
    No,
}

#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) size: usize,
    pub(super) body: usize,
    pub(super) keep_alive: KeepAlive,
    pub(super) expects_continue: bool,
}

/// Returns nothing while the head is incomplete, and the status to refuse it with when it is not acceptable.
pub(super) fn parse_head(bytes: &[u8], max_body: usize) -> Result<Option<Head>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let size = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= MAX_HEAD => size,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let target = parsed.path.unwrap_or_default();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: target.split_once('?').map_or(target, |(path, _)| path).to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), text(header.value)))
            .collect(),
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(411);
    }
    let body = body_length(&request)?;
    if body > max_body {
        return Err(413);
    }
    let keep_alive = keep_alive(&request, parsed.version);
    let expects_continue =
        request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    Ok(Some(Head { request, size, body, keep_alive, expects_continue }))
}

/// Two lengths that differ would let two readers see two different requests in the same bytes.
fn body_length(request: &Request) -> Result<usize, u16> {
    let mut lengths =
        request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let Some((_, first)) = lengths.next() else { return Ok(0) };
    if lengths.any(|(_, other)| other != first)
        || first.is_empty()
        || !first.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(400);
    }
    // Of digits alone, only a number that does not fit fails to parse.
    first.parse().map_err(|_error| 413)
}

fn keep_alive(request: &Request, version: Option<u8>) -> KeepAlive {
    let wish = request.header("connection").unwrap_or_default().to_ascii_lowercase();
    match version {
        Some(1) if !wish.contains("close") => KeepAlive::Yes,
        _ if wish.contains("keep-alive") && !wish.contains("close") => KeepAlive::Yes,
        _ => KeepAlive::No,
    }
}

pub(super) fn response_head(response: &Response, keep_alive: KeepAlive) -> String {
    let Response { status, content_type, headers, body } = response;
    let connection = match keep_alive {
        KeepAlive::Yes => "keep-alive",
        KeepAlive::No => "close",
    };
    // The reason phrase may be empty (RFC 9112, 4), and nobody reads it.
    let mut head = format!("HTTP/1.1 {status} \r\nContent-Type: {content_type}\r\n");
    head.extend([
        "Content-Length: ",
        &body.len().to_string(),
        "\r\nConnection: ",
        connection,
        "\r\n",
    ]);
    for (name, value) in headers {
        head.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<Option<(usize, usize, KeepAlive)>, u16>) {
        let head = parse_head(text.as_bytes(), 100);
        assert_eq!(
            head.map(|head| head.map(|head| (head.size, head.body, head.keep_alive))),
            expect,
            "{text}"
        );
    }

    #[test]
    fn a_request_is_read_without_its_query() {
        let head = parse_head(b"GET /a%20b?c=d HTTP/1.1\r\nX-Key: v\r\n\r\n", 0).unwrap().unwrap();
        let headers = vec![("X-Key".to_owned(), "v".to_owned())];
        let expect =
            Request { method: "GET".to_owned(), path: "/a%20b".to_owned(), headers, body: vec![] };
        assert_eq!(head.request, expect);
        assert_eq!(head.request.header("x-kEY"), Some("v"));
    }

    #[test]
    fn an_incomplete_head_waits_for_more() {
        check("", Ok(None));
        check("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None));
        check("GET / HTTP/1.1\r\n\r\n", Ok(Some((18, 0, KeepAlive::Yes))));
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_in_headers() {
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD)), Err(431));
        check(&format!("GET /{}", "a".repeat(MAX_HEAD)), Err(431));
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1)), Err(431));
    }

    #[test]
    fn only_a_body_of_known_and_acceptable_length_is_taken() {
        let with = |headers: &str| format!("POST / HTTP/1.1\r\n{headers}\r\n");
        check(&with("Content-Length: 100\r\n"), Ok(Some((40, 100, KeepAlive::Yes))));
        check(&with("Content-Length: 101\r\n"), Err(413));
        check(&with("Content-Length: 99999999999999999999\r\n"), Err(413));
        check(&with("Content-Length: +1\r\n"), Err(400));
        check(&with("Content-Length:\r\n"), Err(400));
        check(&with("Content-Length: 1\r\nContent-Length: 2\r\n"), Err(400));
        check(&with("Transfer-Encoding: chunked\r\n"), Err(411));
        check("nonsense\r\n\r\n", Err(400));
    }

    #[test]
    fn a_connection_is_kept_unless_the_client_or_its_version_says_otherwise() {
        check("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", Ok(Some((37, 0, KeepAlive::No))));
        check("GET / HTTP/1.0\r\n\r\n", Ok(Some((18, 0, KeepAlive::No))));
        check(
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
            Ok(Some((42, 0, KeepAlive::Yes))),
        );
    }

    #[test]
    fn a_response_tells_the_length_of_its_body_and_what_becomes_of_the_connection() {
        let headers = vec![("Retry-After", "5".to_owned())];
        let response =
            Response { status: 503, content_type: "text/plain", headers, body: b"wait".to_vec() };
        assert_eq!(
            response_head(&response, KeepAlive::No),
            "HTTP/1.1 503 \r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\
             Retry-After: 5\r\n\r\n"
        );
    }

    #[test]
    fn fuzz_head() {
        const WORDS: [&str; 12] = [
            "\r\n",
            "\n",
            "GET ",
            "POST ",
            " HTTP/1.1",
            " HTTP/1.0",
            "Content-Length: 7\r\n",
            "Connection: close\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            ": ",
            "\r\n\r\n",
        ];
        crate::fuzz::run("head", &WORDS, |bytes| match parse_head(bytes, 100) {
            Ok(None) => {
                assert!(bytes.len() < MAX_HEAD);
                "more".into()
            }
            Ok(Some(head)) => {
                assert!(head.size <= bytes.len().min(MAX_HEAD) && head.body <= 100);
                let again = parse_head(&bytes[..head.size], 100);
                assert_eq!(again.as_ref(), Ok(&Some(head)));
                let head = again.unwrap().unwrap();
                assert_written_it_reads_the_same(&head.request);
                format!("{} {:?}", head.request.headers.len(), head.keep_alive)
            }
            Err(status) => {
                let name = char::from_u32(u32::from(status)).unwrap();
                format!("refused {name}")
            }
        });
    }

    /// What is read of a head is all there was to it.
    fn assert_written_it_reads_the_same(request: &Request) {
        let headers: String =
            request.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("{} {} HTTP/1.1\r\n{headers}\r\n", request.method, request.path);
        match parse_head(text.as_bytes(), 100) {
            Ok(Some(head)) => assert_eq!(head.request, *request),
            // Of a target that is nothing but a query there is no path to ask for again.
            other if request.path.is_empty() => assert_eq!(other, Err(400), "{text}"),
            // It may be longer, by what stands for bytes that are no text.
            other => assert_eq!(other, Err(431), "{text}"),
        }
    }
}
