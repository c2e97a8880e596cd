//! What scripts and containers have in common: inputs, outputs, times, and what a program finds and says.
//! The tests of both show it by the same jobs.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::table::Rows;
use crate::support::{Host, Reply, Storage, Stored};

/// A worker, the servers that its jobs name, and what makes a job of a text for a shell.
pub(crate) struct Desk {
    pub(crate) host: Host,
    pub(crate) storage: Storage,
    pub(crate) program: fn(&str) -> Value,
}

/// Tells all that is in the input folder, as `name=content`.
const TELL: &str = r#"cd $WORKER_INPUT_DIR; said=
for file in $(find . -type f | sort); do said="$said ${file#./}=$(cat $file)"; done
echo "{\"result\": \"${said# }\"}""#;

/// Leaves three files, one word each.
const LEAVE: &str = "cd $WORKER_OUTPUT_DIR; mkdir d d/e; printf one >a.txt; printf two >d/b.csv; \
                     printf three >d/e/c.csv";

impl Desk {
    /// A job for a shell, with more said in its `inputData`.
    pub(crate) fn job(&self, text: &str, more: &Value) -> Value {
        let mut job = (self.program)(text);
        for (name, value) in more.as_object().unwrap() {
            job["inputData"][name] = value.clone();
        }
        job
    }

    #[track_caller]
    pub(crate) fn result(&self, text: &str, more: &Value) -> Value {
        self.host.result(&self.job(text, more))
    }

    /// What is in the input folder of a job.
    #[track_caller]
    fn tells(&self, more: &Value, wanted: &str) {
        assert_eq!(self.result(TELL, more)["value"], wanted, "{more:#}");
    }

    /// The paths that a job tells that leaves three files.
    #[track_caller]
    fn takes(&self, more: &Value, wanted: &[&str]) -> Value {
        let result = self.result(LEAVE, more);
        let told: Vec<&str> =
            artefacts(&result).iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(told, wanted, "{more:#}");
        result
    }

    fn kept(&self, artefact: &Value) -> Vec<u8> {
        let cid = artefact["cid"].as_str().unwrap();
        std::fs::read(self.host.home.path(&format!("state/artefacts/{cid}"))).unwrap()
    }
}

fn artefacts(result: &Value) -> &[Value] {
    result["artefacts"].as_array().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `f/word`, which holds that, in an archive.
fn zipped() -> Vec<u8> {
    let mut zip = ZipWriter::new(io::Cursor::new(vec![]));
    zip.start_file("f/word", SimpleFileOptions::default()).unwrap();
    zip.write_all(b"word").unwrap();
    zip.finish().unwrap().into_inner()
}

fn tarred() -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(4);
    tar.append_data(&mut header, "f/word", b"word".as_slice()).unwrap();
    tar.into_inner().unwrap()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(vec![], Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn inline(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn inputs(desk: &Desk, rows: &Rows) {
    sources(desk, rows);
    archives(desk, rows);
    repositories(desk, rows);
    volumes(desk, rows);
}

fn sources(desk: &Desk, rows: &Rows) {
    let (storage, tls) = (&desk.storage, Storage::https());
    storage.put("/plain", b"plain");
    storage.put("/cut", b"cut-on-its-way");
    storage.fail("/cut", 2);
    tls.put("/safe", b"safe");
    rows.show(&["inputs[].url", "inputs[].path"]);
    desk.tells(
        &json!({"inputs": [
            {"url": storage.presigned("/plain"), "path": "a"},
            {"url": format!("{}/cut", storage.url), "path": "b/c/d"},
            {"url": tls.presigned("/safe"), "path": "e"},
        ]}),
        "a=plain b/c/d=cut-on-its-way e=safe",
    );
    assert!(storage.asked("/cut")[2].head.contains("range: bytes="), "it was gone on with");
    rows.show(&["inputs[].url ipfs://<cid>"]);
    let earlier = desk.result("cd $WORKER_OUTPUT_DIR; printf earlier >made", &json!({}));
    let cid = artefacts(&earlier)[0]["cid"].as_str().unwrap();
    desk.tells(&json!({"inputs": [{"url": format!("ipfs://{cid}"), "path": "a"}]}), "a=earlier");
    rows.show(&["inputs[].inline", "inputs[].sha256"]);
    let hash = sha256(b"word");
    let word = inline(b"word");
    desk.tells(
        &json!({"inputs": [
            {"inline": word, "path": "a", "sha256": hash},
            {"inline": word, "path": "b", "sha256": hash.to_uppercase()},
        ]}),
        "a=word b=word",
    );
    for (origin, reason) in [
        (json!({"inline": inline(b"other")}), "bad_input"),
        (json!({"url": storage.presigned("/plain")}), "download_failed"),
    ] {
        let mut input = origin.clone();
        (input["path"], input["sha256"]) = (json!("a"), json!(hash));
        let failed = desk.host.run(&desk.job(TELL, &json!({"inputs": [input]})));
        assert_eq!(failed["errorDetails"]["reason"], reason, "{failed:#}");
        assert!(failed["error"].as_str().unwrap().contains("the job says"), "{failed:#}");
    }
}

fn archives(desk: &Desk, rows: &Rows) {
    for (row, name, archive) in [
        ("inputs[].unpack zip", "zip", zipped()),
        ("inputs[].unpack tar", "tar", tarred()),
        ("inputs[].unpack tar.gz", "tar.gz", packed(&tarred())),
    ] {
        rows.show(&[row]);
        let url = desk.storage.put(&format!("/{name}"), &archive);
        desk.tells(
            &json!({"inputs": [
                {"url": url, "path": "a", "unpack": name, "sha256": sha256(&archive)},
                {"inline": inline(&archive), "unpack": name},
            ]}),
            "a/f/word=word f/word=word",
        );
    }
}

fn repositories(desk: &Desk, rows: &Rows) {
    let storage = &desk.storage;
    let list = json!({"siblings": [{"rfilename": "a.json"}, {"rfilename": "d/b.json"}, {"rfilename": "c.bin"}]});
    for (listed, files) in [
        ("/api/models/o/n/revision/main", "/o/n/resolve/main"),
        ("/api/datasets/o/n/revision/main", "/datasets/o/n/resolve/main"),
        ("/api/spaces/o/n/revision/main", "/spaces/o/n/resolve/main"),
        ("/api/models/o/n/revision/v1%2Fx", "/o/n/resolve/v1%2Fx"),
    ] {
        storage.put(listed, list.to_string().as_bytes());
        for name in ["a.json", "d/b.json", "c.bin"] {
            let word = format!("{}/{name}", files.trim_start_matches('/'));
            storage.put(&format!("{files}/{name}"), word.as_bytes());
        }
    }
    let of = |huggingface: Value| json!({"inputs": [{"huggingface": huggingface, "path": "r"}]});
    rows.show(&["inputs[].huggingface.repo"]);
    let all = "r/a.json=o/n/resolve/main/a.json r/c.bin=o/n/resolve/main/c.bin r/d/b.json=o/n/resolve/main/d/b.json";
    desk.tells(&of(json!({"repo": "o/n"})), all);
    for (kind, told) in [
        ("model", "r/a.json=o/n/resolve/main/a.json"),
        ("dataset", "r/a.json=datasets/o/n/resolve/main/a.json"),
        ("space", "r/a.json=spaces/o/n/resolve/main/a.json"),
    ] {
        rows.show(&[&format!("inputs[].huggingface.type {kind}")]);
        desk.tells(&of(json!({"repo": "o/n", "type": kind, "files": ["a.json"]})), told);
    }
    rows.show(&["inputs[].huggingface.revision", "inputs[].huggingface.files as a text"]);
    let told = "r/a.json=o/n/resolve/v1%2Fx/a.json r/d/b.json=o/n/resolve/v1%2Fx/d/b.json";
    desk.tells(&of(json!({"repo": "o/n", "revision": "v1/x", "files": "*.json"})), told);
    rows.show(&["inputs[].huggingface.files"]);
    let told = "r/c.bin=o/n/resolve/main/c.bin r/d/b.json=o/n/resolve/main/d/b.json";
    desk.tells(&of(json!({"repo": "o/n", "files": ["d/*", "c.bin"]})), told);
    rows.show(&["inputs[].huggingface.token"]);
    let before = storage.asked("/o/n/resolve/main/c.bin").len();
    let told = "r/c.bin=o/n/resolve/main/c.bin";
    desk.tells(&of(json!({"repo": "o/n", "files": "c.bin", "token": "hf_secret"})), told);
    let asked = &storage.asked("/o/n/resolve/main/c.bin")[before];
    assert!(asked.head.contains("authorization: bearer hf_secret"), "{}", asked.head);
}

fn volumes(desk: &Desk, rows: &Rows) {
    let (storage, zip) = (&desk.storage, zipped());
    storage.put("/volume.zip", &zip);
    storage.put("/file", b"file");
    let one = |mut volume: Value, kind: &str| {
        volume["volume_type"] = json!(kind);
        rows.show(&[&format!("volume.volume_type {kind}")]);
        volume
    };
    let of = |volume: &Value| json!({"volume": volume});
    let inline = one(json!({"contents": inline(&zip)}), "inline");
    desk.tells(&of(&inline), "f/word=word");
    let url = one(
        json!({"contents": storage.presigned("/volume.zip"), "relative_path": "in"}),
        "zip_url",
    );
    rows.show(&["volume.relative_path"]);
    desk.tells(&of(&url), "in/f/word=word");
    let file =
        one(json!({"url": storage.presigned("/file"), "relative_path": "x/y"}), "single_file");
    desk.tells(&of(&file), "x/y=file");
    let hub = one(
        json!({"repo_id": "o/n", "repo_type": "dataset", "relative_path": "hub", "token": "hf_other",
               "revision": "main", "allow_patterns": ["a.*"]}),
        "huggingface_volume",
    );
    rows.show(&["volume.repo_type", "volume.revision", "volume.allow_patterns", "volume.token"]);
    let told = "hub/a.json=datasets/o/n/resolve/main/a.json";
    desk.tells(&of(&hub), told);
    let asked = storage.asked("/datasets/o/n/resolve/main/a.json").pop().unwrap();
    assert!(asked.head.contains("authorization: bearer hf_other"), "{}", asked.head);
    let several = one(json!({"volumes": [inline, url, file, hub]}), "multi_volume");
    desk.tells(&of(&several), &format!("f/word=word {told} in/f/word=word x/y=file"));
}

pub(crate) fn outputs(desk: &Desk, rows: &Rows) {
    rows.show(&["without outputs"]);
    let result = desk.takes(&json!({}), &["a.txt", "d/b.csv", "d/e/c.csv"]);
    let kept: Vec<Vec<u8>> = artefacts(&result).iter().map(|one| desk.kept(one)).collect();
    assert_eq!(kept, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    for (shown, path, taken) in [
        (&["outputs[].path", "outputs[].path alone"][..], "a.txt", &["a.txt"][..]),
        (&["outputs[].path with *"], "d/*.csv", &["d/b.csv"]),
        (&["outputs[].path with **"], "**/*.csv", &["d/b.csv", "d/e/c.csv"]),
        (&[], "**", &["a.txt", "d/b.csv", "d/e/c.csv"]),
    ] {
        rows.show(shown);
        let result = desk.takes(&json!({"outputs": [{"path": path}]}), taken);
        assert_eq!(artefacts(&result)[0].get("upload"), None, "it is kept");
    }
    uploads(desk, rows);
    of_computehorde(desk, rows);
}

/// The request that has brought something there.
#[track_caller]
fn brought(desk: &Desk, path: &str, method: &str) -> Stored {
    let asked = desk.storage.asked(path).pop().unwrap_or_else(|| panic!("nothing came to {path}"));
    assert!(asked.call.starts_with(method), "{}", asked.call);
    asked
}

fn field(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

/// The names of an archive's files.
fn names(archive: &[u8]) -> Vec<String> {
    let archive = zip::ZipArchive::new(io::Cursor::new(archive)).unwrap();
    let mut names: Vec<String> =
        archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    names.sort();
    names
}

fn uploads(desk: &Desk, rows: &Rows) {
    let storage = &desk.storage;
    rows.show(&["outputs[].put.url", "outputs[].put.headers"]);
    let put = json!({"url": storage.presigned("/put"), "headers": {"x-amz-meta-a": "b"}});
    let result = desk.takes(&json!({"outputs": [{"path": "a.txt", "put": put}]}), &["a.txt"]);
    let told = json!({"url": format!("{}/put", storage.url), "status": 201});
    assert_eq!(artefacts(&result)[0]["upload"], told, "its signature is not told");
    let Stored { head, body, .. } = brought(desk, "/put", "PUT");
    assert!(head.contains("x-amz-meta-a: b"), "{head}");
    assert_eq!(body, b"one");

    rows.show(&["outputs[].post.url", "outputs[].post.fields", "outputs[].post.headers"]);
    let post = json!({"url": storage.presigned("/post"), "fields": {"key": "run/${filename}", "policy": "p"},
                      "headers": {"x-own": "c"}});
    desk.takes(&json!({"outputs": [{"path": "d/*.csv", "post": post}]}), &["d/b.csv"]);
    let posted = brought(desk, "/post", "POST");
    assert!(posted.head.contains("x-own: c"), "{}", posted.head);
    assert_eq!(
        posted.form(),
        [field("key", "run/${filename}"), field("policy", "p"), field("file", "two")]
    );

    rows.show(&["outputs[].zip"]);
    let tls = Storage::https();
    let zip = json!({"path": "**/*.csv", "zip": true});
    let mut to = zip.clone();
    to["put"] = json!({"url": tls.presigned("/zip")});
    let result = desk.takes(&json!({"outputs": [zip, to]}), &["output.zip", "output.zip"]);
    let kept = desk.kept(&artefacts(&result)[0]);
    assert_eq!(names(&kept), ["d/b.csv", "d/e/c.csv"]);
    assert_eq!(names(&tls.asked("/zip")[0].body), ["d/b.csv", "d/e/c.csv"]);
    assert_eq!(artefacts(&result)[1]["files"], 2);
}

fn of_computehorde(desk: &Desk, rows: &Rows) {
    let storage = &desk.storage;
    let one = |mut upload: Value, kind: &str, path: &str| {
        upload["output_upload_type"] = json!(kind);
        upload["url"] = json!(storage.presigned(path));
        rows.show(&[&format!("output_upload.output_upload_type {kind}")]);
        upload
    };
    let of = |upload: &Value| json!({"output_upload": upload});
    let all = ["a.txt", "d/b.csv", "d/e/c.csv"];
    rows.show(&["output_upload.form_fields", "output_upload.signed_headers"]);
    let headers = json!({"x-signed": "s"});
    let posted = one(
        json!({"form_fields": {"key": "k"}, "signed_headers": headers}),
        "zip_and_http_post",
        "/horde/zip-post",
    );
    desk.takes(&of(&posted), &["output.zip"]);
    let posted = brought(desk, "/horde/zip-post", "POST");
    assert!(posted.head.contains("x-signed: s"), "{}", posted.head);
    let form = posted.form();
    assert_eq!(
        (&form[0], names(&form[1].1)),
        (&field("key", "k"), all.map(str::to_owned).to_vec())
    );

    let put = one(json!({"signed_headers": headers}), "zip_and_http_put", "/horde/zip-put");
    desk.takes(&of(&put), &["output.zip"]);
    let Stored { head, body, .. } = brought(desk, "/horde/zip-put", "PUT");
    assert!(head.contains("x-signed: s"), "{head}");
    assert_eq!(names(&body), all);

    let file =
        json!({"relative_path": "a.txt", "form_fields": {"key": "k"}, "signed_headers": headers});
    let posted = one(file, "single_file_post", "/horde/post");
    desk.takes(&of(&posted), &["a.txt"]);
    assert_eq!(
        brought(desk, "/horde/post", "POST").form(),
        [field("key", "k"), field("file", "one")]
    );

    let put = one(json!({"relative_path": "d/b.csv"}), "single_file_put", "/horde/put");
    desk.takes(&of(&put), &["d/b.csv"]);
    assert_eq!(brought(desk, "/horde/put", "PUT").body, b"two");

    rows.show(&["output_upload.system_output"]);
    let rest = one(json!({}), "zip_and_http_put", "/horde/rest");
    let several =
        one(json!({"uploads": [posted, put], "system_output": rest}), "multi_upload", "/unused");
    desk.takes(&of(&several), &["a.txt", "d/b.csv", "output.zip"]);
    assert_eq!(names(&brought(desk, "/horde/rest", "PUT").body), ["d/e/c.csv"]);
}

pub(crate) fn times(desk: &Desk, rows: &Rows) {
    let url = desk.storage.stall("/never");
    let endless = "trap exit TERM; while :; do sleep 0.1; done";
    for (row, stage, text, more) in [
        ("download_time_limit", "inputs", LEAVE, json!({"inputs": [{"url": url, "path": "a"}]})),
        ("execution_time_limit", "run", endless, json!({})),
        (
            "upload_time_limit",
            "outputs",
            LEAVE,
            json!({"outputs": [{"path": "a.txt", "put": {"url": url}}], "execution_time_limit": 30}),
        ),
    ] {
        rows.show(&[row]);
        let mut more = more.clone();
        more[row] = json!(1);
        let failed = desk.host.run(&desk.job(text, &more));
        let details = ["reason", "blame", "stage"].map(|name| &failed["errorDetails"][name]);
        assert_eq!(details, ["timeout", "job", stage], "{failed:#}");
        if stage != "outputs" {
            assert_eq!(failed["error"], format!("timeout after 1s in stage {stage}"));
        }
    }
}

pub(crate) fn finds_and_says(desk: &Desk, rows: &Rows) {
    rows.show(&["finds WORKER_JOB_ID", "finds WORKER_INPUT_DIR", "finds WORKER_OUTPUT_DIR"]);
    rows.show(&[r#"prints {"result": …}"#]);
    let text = r#"echo "{\"result\": [\"$WORKER_JOB_ID\", \"$WORKER_INPUT_DIR\", \"$WORKER_OUTPUT_DIR\"]}""#;
    assert_eq!(desk.result(text, &json!({}))["value"], json!(["job-1", "/input", "/output"]));
    rows.show(&[r#"prints {"result": {…}}"#]);
    assert_eq!(desk.result(r#"echo '{"result": {"a": 1}}'"#, &json!({}))["a"], 1);
    rows.show(&["leaves result.json"]);
    let file = r#"echo '{"result": {"a": 1}}'; cd $WORKER_OUTPUT_DIR; echo 'TOLD' >result.json"#;
    for (told, place, wanted) in [(r#"{"b": 2}"#, "/b", json!(2)), ("[3]", "/value", json!([3]))] {
        let result = desk.result(&file.replace("TOLD", told), &json!({}));
        assert_eq!(result.pointer(place), Some(&wanted), "{result:#}");
        assert_eq!(result.get("a"), None, "what was printed does not count");
        assert_eq!(artefacts(&result).len(), 0, "it is no file of the job's");
    }
    rows.show(&["is told in artefacts", "is told in skipped"]);
    let text = "cd $WORKER_OUTPUT_DIR; printf word >a; ln -s a link; mkfifo pipe";
    let result = desk.result(text, &json!({}));
    let told = &artefacts(&result)[0];
    let hash = sha256(b"word");
    assert_eq!(
        [&told["path"], &told["bytes"], &told["sha256"]],
        [&json!("a"), &json!(4), &json!(hash)]
    );
    let skipped = |path: &str, reason: &str| json!({"path": path, "reason": reason});
    let wanted = json!([skipped("link", "a symbolic link"), skipped("pipe", "a pipe")]);
    assert_eq!(result["skipped"], wanted);
    progress(desk, rows);
}

/// A job that says how far it is and goes on until the backend takes it away.
fn progress(desk: &Desk, rows: &Rows) {
    let endless = "trap exit TERM; while :; do sleep 0.1; done";
    for (row, line, operation) in [
        (r#"prints {"progress": 40}"#, r#"{"progress": 40}"#, "starting"),
        (
            r#"prints {"progress": 40, "operation": "…"}"#,
            r#"{"progress": 40, "operation": "half way"}"#,
            "half way",
        ),
    ] {
        rows.show(&[row]);
        let id = desk.host.offer(&desk.job(&format!("echo '{line}'; {endless}"), &json!({})));
        let call = format!("POST /api/jobs/{id}/progress");
        desk.host.backend.wait(row, |seen| {
            // The program is the part between its inputs and its outputs: 10 to 90.
            let is_told =
                |told: &Value| told["progress"] == 42 && told["currentOperation"] == operation;
            seen.iter().any(|request| request.is(&call) && is_told(&request.body)).then_some(())
        });
        let away = json!({"success": true, "pendingJobs": [], "cancelJobs": [id]}).to_string();
        desk.host.backend.always("POST /api/providers/*/heartbeat", Reply::json(200, away));
        desk.host.worker.wait_log(&format!("job cancelled job={id}"));
    }
}
