//! Scripts that do not want to go.

use serde_json::json;

use super::living;
use crate::support::{Host, SCRIPTS, script};

#[test]
fn one_that_does_not_hear_is_killed_after_its_grace() {
    let mut host = Host::start(&[]);
    let mut deaf = script("bash", "trap '' TERM INT HUP; while :; do sleep 4242001; done");
    deaf["timeoutSeconds"] = json!(1);
    let failed = host.run(&deaf);
    assert_eq!(failed["error"], "timeout after 1s in stage run");
    assert_eq!(living("4242001"), [""; 0]);
    host.goes_on();
}

#[test]
fn what_forks_away_ends_with_its_script() {
    let mut host = Host::start(&[]);
    let text = "setsid -f sh -c 'trap \"\" TERM HUP; sleep 4242002; sleep 4242002'; \
                env -i setsid -f nohup sleep 4242002 >/dev/null 2>&1; (sleep 4242002 &) & exit 0";
    assert_eq!(host.run(&script("bash", text))["status"], "completed");
    assert_eq!(living("4242002"), [""; 0]);
    host.goes_on();
}

#[test]
fn one_that_closes_its_output_is_watched_to_its_end() {
    let mut host = Host::start(&[]);
    let text = "exec >&- 2>&- <&-; sleep 0.3; exit 7";
    assert_eq!(host.run(&script("bash", text))["error"], "exit code 7");
    host.goes_on();
}

#[test]
fn one_that_stops_itself_and_its_parents_is_ended() {
    let mut host = Host::start(&[]);
    let mut stopped = script("bash", "kill -STOP 1 $PPID; kill -STOP $$; sleep 4242003");
    stopped["timeoutSeconds"] = json!(1);
    assert_eq!(host.run(&stopped)["error"], "timeout after 1s in stage run");
    assert_eq!(living("4242003"), [""; 0]);
    host.goes_on();
}

#[test]
fn nothing_of_a_script_outlives_an_agent_that_is_killed() {
    let mut host = Host::start(&[]);
    let id = host.offer(&script("bash", "trap '' TERM; setsid -f sleep 4242004; sleep 4242004"));
    host.backend.wait_for(&format!("POST /api/jobs/{id}/progress"), 1);
    while living("sleep 4242004").len() < 2 {
        host.backend.wait_beats(1);
    }
    host.worker.kill();
    let again = host.home.worker(&host.backend.url(), &SCRIPTS);
    again.wait_log("registered");
    assert_eq!(living("sleep 4242004"), [""; 0]);
    assert_eq!(host.completion(&id)["errorDetails"]["reason"], "lost");
}
