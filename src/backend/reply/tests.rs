//! What is kept of bodies, good ones and those of a backend gone wrong.

use std::io::repeat;

use super::*;

fn read(body: &str) -> Body {
    read_from(body, 0)
}

fn read_from(body: &str, from: usize) -> Body {
    // A piece at a time, so that everything is cut somewhere.
    let pieces = BufReader::with_capacity(3, body.as_bytes());
    Body::read(pieces, Look::from(from)).unwrap()
}

fn ids(look: &Look) -> Vec<&str> {
    look.jobs.iter().map(|job| job.id.as_str()).collect()
}

fn list(jobs: impl IntoIterator<Item = String>) -> String {
    let jobs: Vec<String> = jobs.into_iter().collect();
    format!(r#"{{"success":true,"pendingJobs":[{}]}}"#, jobs.join(","))
}

fn jobs(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!(r#"{{"id":"job-{n}"}}"#)).collect()
}

#[test]
fn the_fields_that_matter_and_the_jobs_are_kept_and_nothing_else() {
    let body = read(
        r#" { "success" : true , "other": {"error":[1,{"a":"}"}]}, "error":"no\"}", "pendingJobs" : [
            { "id" : "a" , "inputData" : { "script" : "x = [ 1 ]" , "n" : [ 1 , -2.5e3 , null ] } } ,
            {"modelType":"compute","id":"b"} , {"id":"c"} ] , "heartbeatIntervalMs":5000} "#,
    );
    let fields = body.fields.unwrap();
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["error", "heartbeatIntervalMs", "success"]);
    assert_eq!(fields["error"].as_deref(), Some(r#""no\"}""#));
    assert_eq!(ids(&body.look), ["a", "b", "c"]);
    let texts: Vec<_> = body.look.jobs.iter().map(|job| job.text.as_deref().unwrap()).collect();
    assert_eq!(
        texts,
        [
            r#"{"inputData":{"script":"x = [ 1 ]","n":[1,-2.5e3,null]}}"#,
            r#"{"modelType":"compute"}"#,
            "{}"
        ]
    );
    assert!(!body.look.is_partial() && body.look.odd.is_empty());
}

#[test]
fn a_body_that_is_no_json_object_is_none() {
    for (body, why) in [
        ("<html>", "an HTML page instead of JSON (a captive portal or a proxy?): <html>"),
        ("", "no JSON object (ended in the middle): "),
        ("17", "no JSON object (expected an object): 17"),
        ("[1]", "no JSON object (it is a list): [1]"),
        (r#"{"a":1}}"#, r#"no JSON object (trailing characters): {"a":1}}"#),
        (r#"{"a":1"#, r#"no JSON object (ended in the middle): {"a":1"#),
        (r#"{"a":"1"#, r#"no JSON object (ended in the middle): {"a":"1"#),
        (
            r#"{"pendingJobs":[{"id":"#,
            r#"no JSON object (ended in the middle): {"pendingJobs":[{"id":"#,
        ),
        (r#"{"a":[1 2]}"#, r#"no JSON object (expected a comma or an end): {"a":[1 2]}"#),
        (r#"{"a" 1}"#, r#"no JSON object (expected a colon): {"a" 1}"#),
        (r#"{"a":}"#, r#"no JSON object (expected a value): {"a":}"#),
        (r"{a:1}", r"no JSON object (expected a field's name): {a:1}"),
    ] {
        assert_eq!(read(body).fields.unwrap_err(), why, "{body}");
    }
}

#[test]
fn a_job_without_a_usable_id_is_skipped_and_the_others_are_not() {
    let long = "x".repeat(10_000);
    for (job, why) in [
        (r#"{"modelType":"compute"}"#, r#"has no id: {"modelType":"compute"}"#),
        (r#"{"id":""}"#, "has an invalid id: "),
        (r#"{"id":"../../etc"}"#, "has an invalid id: ../../etc"),
        (r#"{"id":"a\u0000b"}"#, "has an invalid id: ab"),
        (r#"{"id":17}"#, "has an invalid id: 17"),
        (r#"{"id":null}"#, "has an invalid id: null"),
        (r#"{"id":{"id":"a"}}"#, r#"has an invalid id: {"id":"a"}"#),
        (r#"{"id":"a","id":"b"}"#, r#"has an invalid id: "a""b""#),
        (
            &format!(r#"{{"id":"{long}"}}"#),
            r#"has an invalid id: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"#,
        ),
        ("17", "has no id: 17"),
        (r#"["id","a"]"#, r#"has no id: ["id","a"]"#),
        (r#""id""#, r#"has no id: "id""#),
    ] {
        let body = read(&list([job.to_owned(), r#"{"id":"good"}"#.into()]));
        assert_eq!(ids(&body.look), ["good"], "{job}");
        assert_eq!(body.look.odd, [format!("job skipped: it {why}")]);
    }
}

#[test]
fn a_job_whose_text_is_broken_or_too_large_still_has_its_id() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let large = "x".repeat(9 << 20);
    for (value, kept) in [
        (deep.as_str(), true),
        ("1e999", true),
        (r#""\ud800""#, true),
        ("nonsense", true),
        ("[}", true),
        (&format!("\"{large}\""), false),
        // Nothing to read, but some 32 bytes each when it is parsed.
        (&format!("[0{}]", ",0".repeat(300_000)), false),
        (&format!("[0{}]", ",{}".repeat(20_000)), false),
    ] {
        let job = format!(r#"{{"inputData":{value},"id":"odd"}}"#);
        let body = read(&list([job, r#"{"id":"good"}"#.into()]));
        assert_eq!(ids(&body.look), ["odd", "good"]);
        assert_eq!(body.look.jobs[0].text.is_some(), kept, "{}", text::cap(value, 20));
        assert!(body.fields.is_ok());
    }
}

#[test]
fn a_field_with_an_absurd_name_is_left_out_of_its_job() {
    let body = read(&list([format!(r#"{{"{}":1,"id":"a","b":2}}"#, "x".repeat(1000))]));
    assert_eq!(body.look.jobs[0].text.as_deref(), Some(r#"{"b":2}"#));
}

#[test]
fn a_list_that_is_too_long_for_one_look_is_looked_at_in_turns() {
    let body = list(jobs(0..150));
    let mut from = 0;
    for (range, next) in [(0..64, 64), (64..128, 128), (128..150, 0), (0..64, 64)] {
        let look = read_from(&body, from).look;
        let wanted: Vec<String> = range.map(|n| format!("job-{n}")).collect();
        assert_eq!(ids(&look), wanted);
        assert!(look.is_partial());
        from = look.next();
        assert_eq!(from, next);
    }
    assert_eq!(read(&list(jobs(0..64))).look.next(), 0, "it was looked at whole");
    assert!(!read(&list(jobs(0..64))).look.is_partial());
    // Meanwhile it has become shorter.
    let look = read_from(&list(jobs(0..3)), 64).look;
    assert_eq!((ids(&look), look.next()), (vec![], 0));
}

#[test]
fn what_has_no_id_takes_nobodys_turn() {
    let junk = vec![r#"{"id":"../x"}"#.to_owned(); 1000];
    let look = read(&list([junk, jobs(0..2)].concat())).look;
    assert_eq!(ids(&look), ["job-0", "job-1"]);
    assert_eq!(look.odd.len(), JOBS_MAX);
}

#[test]
fn large_jobs_come_one_after_the_other() {
    let large = |n| format!(r#"{{"id":"large-{n}","inputData":"{}"}}"#, "x".repeat(5 << 20));
    let body = list([large(0), large(1), r#"{"id":"small"}"#.into()]);
    let first = read(&body).look;
    assert_eq!((ids(&first), first.next()), (vec!["large-0"], 1));
    let second = read_from(&body, 1).look;
    assert_eq!((ids(&second), second.next()), (vec!["large-1", "small"], 0));
    assert!(second.jobs.iter().all(|job| job.text.is_some()));
}

#[test]
fn a_job_that_was_asked_about_may_be_wrapped() {
    let body = read(r#"{"success":true,"job":{"status":"RUNNING","job":{}},"status":"ok"}"#);
    assert_eq!(body.job.unwrap()["status"].as_deref(), Some("\"RUNNING\""));
    assert_eq!(body.fields.unwrap()["status"].as_deref(), Some("\"ok\""));
}

#[test]
fn a_polled_list_is_a_list_and_no_object() {
    let body = read(r#"[{"id":"a"},{"id":"b"}]"#);
    assert_eq!((ids(&body.look), body.is_list), (vec!["a", "b"], true));
    assert!(body.fields.is_err());
}

#[test]
fn a_field_beyond_its_bound_is_told_to_be_so() {
    let ids = vec![r#""job""#; 100_000].join(",");
    let body = read(&format!(r#"{{"success":true,"cancelJobs":[{ids}]}}"#));
    let cancel = wire::field::<Vec<Value>>(&body.fields.unwrap(), "cancelJobs");
    assert_eq!(cancel, Err("its cancelJobs is too large".into()));
}

#[test]
fn an_endless_value_ends_with_what_it_is_read_from() {
    let endless = r#"{"success":true,"pendingJobs":[{"id":"a","x":""#.as_bytes();
    let body = endless.chain(repeat(b'x').take(20 << 20));
    let body = Body::read(body, Look::default()).unwrap();
    assert!(body.fields.unwrap_err().starts_with("no JSON object (ended in the middle)"));
}

/// All that is kept of a body, and what is said of one that is none.
fn kept(bytes: impl Read) -> (String, Result<Fields, String>) {
    let Body { fields, job, look, is_list, .. } = Body::read(bytes, Look::from(0)).unwrap();
    let next = look.next();
    assert!(look.jobs.len() <= JOBS_MAX && look.odd.len() <= JOBS_MAX);
    (format!("{is_list} {job:?} {:?} {:?} {next}", look.jobs, look.odd), fields)
}

#[test]
fn fuzz_reply() {
    const WORDS: [&str; 16] = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\\"",
        "\\",
        ",",
        ":",
        "null",
        "1e999",
        "\"id\":",
        "\"pendingJobs\":[",
        "\"success\":true",
        "\"cancelJobs\":[",
        "\\ud800",
    ];
    crate::fuzz::run("reply", &WORDS, |bytes| {
        let whole = kept(bytes);
        // However it is cut on its way.
        assert_eq!(kept(BufReader::with_capacity(3, bytes)), whole);
        match whole {
            (jobs, Ok(_)) => jobs,
            (_, Err(why)) => {
                // Another reader finds no object in it either.
                let other = serde_json::from_slice::<serde_json::Map<String, Value>>(bytes);
                assert!(other.is_err(), "{why}: {other:?}");
                why
            }
        }
    });
}
