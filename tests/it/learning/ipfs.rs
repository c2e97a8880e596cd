//! What jobs make is offered to an IPFS node, and nothing waits for that.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use super::{ended, result, training};
use crate::support::Home;

#[test]
fn a_node_that_does_not_answer_holds_up_neither_a_delivery_nor_the_next_job() {
    let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let api = format!("http://{}", node.local_addr().unwrap());
    let jobs = ["first", "next"]
        .map(|id| training(id, json!({"dataset": "iris", "epochs": 1, "seed": id.len()})));
    let told = ended(&Home::new(), &jobs, &["--ipfs-api", &api]);
    let [first, _] = [result(&told[0]), result(&told[1])];
    // The connection waited to be accepted, and has what was sent meanwhile.
    let (mut asked, _) = node.accept().unwrap();
    let mut head = [0; 300];
    asked.read_exact(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("POST /api/v0/add?"), "{head}");
    assert!(head.contains(first["artefacts"][0]["cid"].as_str().unwrap()), "{head}");
}
