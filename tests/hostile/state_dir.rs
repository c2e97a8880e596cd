//! A state directory that another user owns, fills with links, or can enter; and what root gives away in it.

use serde_json::json;

use crate::support::{Backend, Home};

#[test]
fn a_sandbox_is_tried_where_nobody_else_can_enter() {
    let (home, backend) = (Home::new(), Backend::start());
    // Where everybody may wait for what is given away.
    let env = [("TMPDIR", "/nowhere")];
    let _worker = home.worker_with(&backend.url(), &["--allow", "script"], &env);
    let registered = backend.wait_for("POST /api/providers/register", 1).body;
    assert_eq!(registered["specs"]["job_kinds"][4], json!("script"));
}
