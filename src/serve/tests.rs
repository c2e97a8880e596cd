//! Requests over real sockets, well-formed and not.

use std::{
    io::{BufRead as _, BufReader},
    sync::mpsc,
};

use super::*;

const MAX_BODY: usize = 1000;

fn text(body: &str) -> Response {
    Response {
        status: 200,
        content_type: "text/plain",
        headers: vec![],
        body: body.as_bytes().to_vec(),
    }
}

/// Says what it was asked, or fails in the way the path asks for.
fn echo(request: &Request) -> Reply {
    let body =
        format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(&request.body));
    match request.path.as_str() {
        "/reset" => Reply::Reset,
        "/cut" => Reply::CutBody(text("12345678")),
        _ => Reply::Whole(text(&body)),
    }
}

/// Runs `client` against a server on a free port, which must then stop.
fn with_server(handler: impl Fn(&Request) -> Reply + Sync, client: impl FnOnce(&Server)) {
    struct Stop<'a>(&'a Server);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, || server.serve(MAX_BODY, &handler)).unwrap();
        let _stop = Stop(&server);
        client(&server);
    });
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, request: &str) {
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Returns the status and as much of the body as came.
    fn receive(&mut self) -> (String, String) {
        let mut length = 0;
        let mut status = String::new();
        self.0.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = String::new();
        self.0.by_ref().take(length).read_to_string(&mut body).unwrap();
        (status.split(' ').nth(1).unwrap_or_default().to_owned(), body)
    }

    fn ask(&mut self, request: &str) -> (String, String) {
        self.send(request);
        self.receive()
    }

    fn at_end(&mut self) -> bool {
        self.0.fill_buf().unwrap().is_empty()
    }
}

fn answer(status: &str, body: &str) -> (String, String) {
    (status.to_owned(), body.to_owned())
}

#[test]
fn port_0_becomes_a_real_one_and_a_connection_serves_many_requests() {
    with_server(echo, |server| {
        assert_ne!(server.addr().port(), 0);
        let mut client = Client::of(server);
        assert_eq!(client.ask("GET /a?b HTTP/1.1\r\n\r\n"), answer("200", "GET /a "));
        assert_eq!(
            client.ask("POST /c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"),
            answer("200", "POST /c hi")
        );
    });
}

#[test]
fn requests_sent_in_one_go_are_answered_in_order() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        client.send("POST /1 HTTP/1.1\r\nContent-Length: 1\r\n\r\naGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_eq!(client.receive(), answer("200", "POST /1 a"));
        assert_eq!(client.receive(), answer("200", "GET /2 "));
        assert!(client.at_end());
    });
}

#[test]
fn a_body_beyond_the_bound_is_refused_even_while_it_is_being_sent() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        let body = "x".repeat(4 * 1024 * 1024);
        let request = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(client.ask(&request), answer("413", ""));
        assert!(client.at_end());
    });
}

#[test]
fn a_body_without_a_length_is_refused() {
    with_server(echo, |server| {
        let request = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(Client::of(server).ask(request), answer("411", ""));
    });
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        let head = "POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        assert_eq!(client.ask(head), answer("100", ""));
        assert_eq!(client.ask("ok"), answer("200", "POST / ok"));
    });
}

#[test]
fn a_head_request_gets_no_body() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        client.send("HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut all = String::new();
        client.0.read_to_string(&mut all).unwrap();
        assert!(all.contains("Content-Length: 7\r\n") && all.ends_with("\r\n\r\n"), "{all}");
    });
}

#[test]
fn a_cut_reply_promises_the_whole_and_ends_halfway() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        client.send("GET /cut HTTP/1.1\r\n\r\n");
        let mut all = String::new();
        client.0.read_to_string(&mut all).unwrap();
        assert!(all.contains("Content-Length: 8\r\n") && all.ends_with("\r\n\r\n1234"), "{all}");
    });
}

#[test]
fn a_reset_reply_sends_no_byte() {
    with_server(echo, |server| {
        let mut client = Client::of(server);
        client.send("GET /reset HTTP/1.1\r\n\r\n");
        let error = client.0.fill_buf().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_connection_beyond_the_bound_is_closed_and_the_others_go_on() {
    with_server(echo, |server| {
        let mut clients: Vec<_> = (0..MAX_CONNECTIONS).map(|_| Client::of(server)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("GET / HTTP/1.1\r\n\r\n"), answer("200", "GET / "));
        }
        assert!(Client::of(server).at_end());
        assert_eq!(clients[0].ask("GET / HTTP/1.1\r\n\r\n"), answer("200", "GET / "));
    });
}

#[test]
fn stopping_ends_the_connections_that_are_open() {
    let (sender, receiver) = mpsc::channel();
    with_server(echo, |server| {
        let mut client = Client::of(server);
        assert_eq!(client.ask("GET / HTTP/1.1\r\n\r\n"), answer("200", "GET / "));
        sender.send(client).unwrap();
    });
    assert!(receiver.recv().unwrap().at_end());
}

#[test]
fn a_handler_that_panics_ends_the_server_and_is_noticed() {
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let panics = |_: &Request| -> Reply { panic!("on purpose") };
    let ended = thread::scope(|scope| {
        let serving =
            thread::Builder::new().spawn_scoped(scope, || server.serve(MAX_BODY, panics)).unwrap();
        Client::of(&server).send("GET / HTTP/1.1\r\n\r\n");
        serving.join()
    });
    assert_eq!(ended.unwrap_err().downcast_ref::<&str>(), Some(&"a scoped thread panicked"));
}

#[test]
fn an_address_that_means_any_is_reached_on_the_loopback() {
    let check = |bound: &str, expect: &str| {
        assert_eq!(reachable(bound.parse().unwrap()).to_string(), expect);
    };
    check("0.0.0.0:80", "127.0.0.1:80");
    check("[::]:80", "[::1]:80");
    check("127.0.0.2:80", "127.0.0.2:80");
}
