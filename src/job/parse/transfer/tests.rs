//! What goes in and out, in both spellings, and all that can be wrong with it.

use serde_json::json;

use super::*;
use crate::work::{Archive, Form, Input, Origin, Output, Repository, RepositoryKind, Upload};

const HOUR: Duration = Duration::from_secs(3600);

fn transfer(input: &Value) -> Result<Transfer, Vec<String>> {
    let mut problems = Problems::default();
    let transfer = problems.transfer(input.as_object().unwrap(), HOUR, false);
    let all = [problems.bad, problems.too_large].concat();
    if all.is_empty() { Ok(transfer) } else { Err(all) }
}

fn input(origin: Origin, path: &str, unpack: Option<Archive>) -> Input {
    Input { origin, path: path.into(), sha256: None, unpack }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

#[test]
fn a_job_request_of_computehorde_is_understood_as_it_is() {
    let document = serde_json::from_str(include_str!("horde.json")).unwrap();
    let Transfer { inputs, outputs, times } = transfer(&document).unwrap();
    let empty_zip = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";
    let repository = Repository {
        kind: RepositoryKind::Model,
        name: "huggingface/model".into(),
        revision: "main".into(),
        files: vec!["*.safetensors".into(), "config.json".into()],
        token: None,
    };
    let url = |url: &str| Origin::Url(url.into());
    assert_eq!(
        inputs,
        [
            input(Origin::Inline(empty_zip.into()), "", Some(Archive::Zip)),
            input(url("https://storage.example/in.zip?sig=a"), "data", Some(Archive::Zip)),
            input(url("https://storage.example/weights.bin"), "models/weights.bin", None),
            input(Origin::HuggingFace(repository), "hf", None),
        ]
    );
    let output = |path: &str, except: &[&str], zip, to| Output {
        path: path.into(),
        except: except.iter().map(|path| (*path).into()).collect(),
        zip,
        to: Some(to),
    };
    let upload = |url: &str, headers, form| Upload { url: url.into(), headers, form };
    let headers = vec![pair("x-amz-meta-a", "b")];
    let two = Form::Post(vec![pair("key", "two.csv"), pair("policy", "p")]);
    let rest = Form::Post(vec![pair("key", "rest.zip")]);
    let one = upload("https://storage.example/one?sig=b", headers, Form::Put);
    assert_eq!(
        outputs,
        [
            output("one.csv", &[], false, one),
            output(
                "sub/two.csv",
                &[],
                false,
                upload("https://storage.example/bucket", vec![], two)
            ),
            output(
                "**",
                &["one.csv", "sub/two.csv"],
                true,
                upload("https://storage.example/rest", vec![], rest)
            ),
        ]
    );
    let secs = Duration::from_secs;
    assert_eq!(times, Times { inputs: secs(60), run: secs(300), outputs: secs(30) });
}

#[test]
fn our_own_spelling_says_the_same() {
    let sha256 = "A".repeat(64);
    let told = transfer(&json!({
        "inputs": [
            {"url": "https://a/b", "path": "./x//y", "sha256": sha256},
            {"inline": "aGk=", "path": "z.tar.gz", "unpack": "tar.gz"},
            {"huggingface": {"repo": "o/n", "type": "dataset", "files": ["a"]}},
        ],
        "outputs": [{"path": "*.csv"}, {"path": "a", "put": {"url": "http://a/b", "headers": {"a": "b"}}},
                    {"path": "**", "zip": true, "post": {"url": "http://a/b", "fields": {"k": "v"}}}],
    }));
    let Transfer { inputs, outputs, times } = told.unwrap();
    assert_eq!(
        (inputs[0].path.as_str(), inputs[0].sha256.as_deref()),
        ("x/y", Some(&*"a".repeat(64)))
    );
    assert_eq!(inputs[1].unpack, Some(Archive::TarGz));
    assert!(
        matches!(&inputs[2].origin, Origin::HuggingFace(Repository { name, .. }) if name == "o/n")
    );
    assert_eq!((&outputs[0].to, outputs[2].zip), (&None, true));
    assert_eq!(times.inputs, HOUR / 5);
    assert_eq!(transfer(&json!({})).unwrap().inputs, []);
}

#[test]
fn every_problem_is_named_and_no_secret_is() {
    let told = transfer(&json!({
        "inputs": [
            {"url": "file:///etc/passwd", "path": "../x"},
            {"url": "http://a/b", "inline": "aGk="},
            {"inline": "?", "path": "x", "unpack": "rar"},
            {"huggingface": {"repo": "../x", "revision": "a/../b"}},
        ],
        "outputs": [
            {"path": "/etc/passwd", "put": {"url": "http://a/?secret"}},
            {"path": "*", "put": {"url": "ftp://secret"}},
            {"path": "a", "put": {"url": "http://a/", "headers": {"Host": "b", "a\nb": "c"}}},
        ],
        "upload_time_limit": 0,
    }))
    .unwrap_err()
    .join("\n");
    for wanted in [
        "inputs[0].url must be an http(s) URL",
        "inputs[0].path is \"../x\", but must be a path below the input folder: this one goes up",
        "inputs[1] must have one of url, inline and huggingface",
        "inputs[2].inline is not base64",
        "inputs[2].unpack is \"rar\", but must be one of zip, tar, tar.gz",
        "inputs[3].huggingface.repo must be the name of a repository",
        "inputs[3].huggingface.revision is",
        "outputs[0].path is \"/etc/passwd\", but must be a path below the output folder",
        "outputs[1].put brings one file, and its path may mean many: name it, or say zip",
        "outputs[1].put.url must be an http(s) URL",
        "outputs[2].put.headers has Host, which is not for a job to say",
        "outputs[2].put.headers has one that is none: a b",
        "upload_time_limit is 0, but must be a number of seconds above 0",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(!told.contains("secret"), "{told}");
    let told = transfer(
        &json!({"inputs": [{"url": "http://a/b", "path": "x"}, {"inline": "", "path": "x"}],
                                "volume": {"volume_type": "multi_volume", "volumes": [
                                    {"volume_type": "multi_volume", "volumes": []}]}}),
    );
    let told = told.unwrap_err().join("\n");
    for wanted in ["two inputs have the path x", "inputs and volume say the same", "volume_type is"]
    {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
}

#[test]
fn a_path_that_could_leave_its_folder_is_none() {
    for path in ["/a", "..", "../a", "a/../b", "a/..", "a\0b", "a\nb", &"x".repeat(256)] {
        assert!(below(path).is_err(), "{path:?}");
    }
    assert_eq!(below(&"x/".repeat(600)), Err("this one is over 1024 bytes"));
    for (path, clean) in
        [("a", "a"), ("./a//b/", "a/b"), ("", ""), ("a/..b", "a/..b"), ("...", "...")]
    {
        assert_eq!(below(path).as_deref(), Ok(clean));
    }
}

#[test]
fn a_stage_has_the_time_it_asks_for_or_a_share() {
    let secs = Duration::from_secs;
    let told = |times: Times| [times.inputs, times.run, times.outputs].map(|time| time.as_secs());
    assert_eq!(told(times(secs(5000), [None; 3], true, true)), [1000, 3000, 1000]);
    assert_eq!(told(times(secs(5000), [None; 3], true, false)), [1000, 4000, 1000]);
    assert_eq!(told(times(secs(5000), [None; 3], false, false)), [1000, 5000, 1000]);
    assert_eq!(told(times(secs(100), [None; 3], true, true)), [20, 60, 300], "to look through");
    let own = [5, 30, 10].map(|time| Some(secs(time)));
    assert_eq!(told(times(secs(100), own, true, true)), [5, 30, 10]);
    assert_eq!(told(times(secs(20), own, true, true)), [5, 20, 10], "no more than the whole");
    assert_eq!(told(times(secs(100), own, true, false)), [5, 30, 300], "nothing is uploaded");
    let own = [Some(secs(90)), None, None];
    assert_eq!(told(times(secs(100), own, true, true)), [90, 20, 300]);
}

#[test]
fn no_stage_has_no_time() {
    let limits = [None, Some(time(f64::MIN_POSITIVE)), Some(time(1.0)), Some(time(f64::MAX))];
    for whole in limits.into_iter().flatten() {
        for n in 0..limits.len().pow(3) * 4 {
            let own = [n, n / 4, n / 16].map(|n| limits[n % 4]);
            let (downloads, uploads) = (n / 64 % 2 == 1, n / 128 == 1);
            let Times { inputs, run, outputs } = times(whole, own, downloads, uploads);
            let least = [inputs, run, outputs].into_iter().min().unwrap_or_default();
            assert!(!least.is_zero(), "{whole:?} {own:?} {downloads} {uploads}");
        }
    }
}
