//! What is kept of what a server sends, against one of the test's own.

use std::net::TcpListener;
use std::thread;

use super::*;

const HELLO: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";

/// Fetches from a server that answers every request with these bytes and ends the connection. Returns
/// what was kept, or why nothing was.
fn fetched(reply: &[u8], sha256: Option<&str>) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/file?token=secret", listener.local_addr().unwrap());
    let serve = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![];
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        // Whoever has heard enough may be gone.
        stream.write_all(reply).ok();
    };
    let done = thread::scope(|scope| {
        scope.spawn(serve);
        fetch(Wanted { url: &url, sha256, private: true }, &path, &mut |_, _| {})
    });
    match done {
        Ok(()) => Ok(std::fs::read(&path).unwrap()),
        Err(Error::Theirs(error)) => {
            let (shown, _) = url.split_once('?').unwrap();
            Err(error.strip_prefix(&format!("cannot download {shown}: ")).unwrap().to_owned())
        }
        Err(Error::Ours(error)) => panic!("{error}"),
    }
}

fn reply(length: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

#[test]
fn a_file_is_kept_if_it_is_whole_and_has_the_hash() {
    let whole = reply("Content-Length: 12", "hello world\n");
    assert_eq!(fetched(&whole, None), Ok(b"hello world\n".to_vec()));
    assert_eq!(fetched(&whole, Some(HELLO)), Ok(b"hello world\n".to_vec()));
    let other = "0".repeat(64);
    assert_eq!(
        fetched(&whole, Some(&other)),
        Err(format!("its sha256 is {HELLO}, the job says {other}"))
    );
    let chunked = reply("Transfer-Encoding: chunked", "c\r\nhello world\n\r\n0\r\n\r\n");
    assert_eq!(fetched(&chunked, Some(HELLO)), Ok(b"hello world\n".to_vec()));
}

#[test]
fn a_file_that_ends_too_early_is_none() {
    for cut in [
        reply("Content-Length: 13", "hello world\n"),
        reply("Transfer-Encoding: chunked", "c\r\nhello"),
        reply("Transfer-Encoding: chunked", "c\r\nhello world\n\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
        vec![],
    ] {
        let told = fetched(&cut, None);
        assert!(told.is_err(), "{told:?} of {}", String::from_utf8_lossy(&cut));
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let told = fetched(&reply("Content-Length: 99999999999999", ""), None);
    assert_eq!(told, Err("it has 90.9 TiB, the most is 10 GiB".into()));
}

#[test]
fn what_a_server_says_instead_is_told() {
    let told = fetched(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", None);
    assert_eq!(told, Err("the server answered 403".into()));
}

#[test]
fn a_disk_that_cannot_keep_the_file_is_no_fault_of_the_servers() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let serve = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&reply("Content-Length: 1", "x")).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(serve);
        let wanted = Wanted { url: &url, sha256: None, private: true };
        let done = fetch(wanted, Path::new("/nowhere/file"), &mut |_, _| {});
        let told = format!("cannot keep {url}: No such file or directory (os error 2)");
        assert_eq!(done, Err(Error::Ours(told)));
    });
}

#[test]
fn nothing_secret_of_a_url_is_shown() {
    for (url, wanted) in [
        ("https://me:secret@a.example/b?c=secret#d", "https://a.example/b"),
        ("http://a.example?secret", "http://a.example"),
        ("http://a.example/b@c", "http://a.example/b@c"),
        ("http://me:se@cret@[::1]:80/x", "http://[::1]:80/x"),
    ] {
        assert_eq!(shown(url), wanted);
    }
}

#[test]
fn an_address_of_no_public_network_is_none() {
    for private in [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001:0:7f00:1::80ff:fffe",
        "2001:1ff::1",
        "3fff:fff::1",
        "::127.0.0.1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2001:200::1",
        "3fff:1000::1",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}
