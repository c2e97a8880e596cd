//! What a container job asks for, in our spelling, the real backend's and ComputeHorde's.

use serde_json::Value;

use super::program::is_empty;
use super::{Asked, Problems, given};
use crate::backend::wire;
use crate::runner;
use crate::work::{Container, Horde};

const IMAGE_MAX: usize = 500;
const PATH_MAX: usize = 500;
const GPUS_MAX: u64 = 64;
const CODE_MAX: usize = 4 << 20;

/// Engines read no longer line of an environment.
const LINE_MAX: usize = 60 << 10;

/// What only ComputeHorde's job requests have.
const HORDE: [&str; 6] =
    ["docker_image", "docker_run_cmd", "raw_script", "volume", "artifacts_dir", "output_upload"];

/// Whether a job that is called by no name of ours is one for a container.
pub(super) fn has_image(wire: &wire::Job) -> bool {
    let field = |object: &Option<Value>, name| {
        let value = object.as_ref().and_then(|object| object.get(name));
        value.is_some_and(|value| !is_empty(value))
    };
    field(&wire.input_data, "image")
        || field(&wire.input_data, "docker_image")
        || field(&wire.advanced_config, "dockerImage")
}

impl Problems {
    pub(super) fn container(&mut self, asked: &Asked<'_>, allowed: &[String]) -> Option<Container> {
        let image = self.image(asked, allowed);
        let command = self.container_command(asked);
        let gpus = given(asked.input, "gpus").map_or(Some(0), |value| {
            let count = value.as_u64().filter(|count| *count <= GPUS_MAX);
            let count = count.and_then(|count| u32::try_from(count).ok());
            if count.is_none() {
                self.bad("gpus", value, &format!("a whole number from 0 to {GPUS_MAX}"));
            }
            count
        });
        let is_horde = HORDE.iter().any(|name| given(asked.input, name).is_some());
        let horde = is_horde.then(|| self.horde(asked));
        let (env, share) = (self.env(asked), self.share(asked));
        // Engines read it from a file of lines.
        let broken = env.iter().filter(|(_, value)| value.contains(['\n', '\r']));
        let broken = broken.map(|(name, _)| format!("env {name} has more than one line"));
        self.bad.extend(broken);
        let long = env.iter().filter(|(name, value)| name.len() + value.len() >= LINE_MAX);
        let long = long.map(|(name, _)| format!("env {name} is over {} KiB", LINE_MAX >> 10));
        self.bad.extend(long);
        Some(Container { image: image?, command, env, gpus: gpus?, share, horde })
    }

    fn image(&mut self, asked: &Asked<'_>, allowed: &[String]) -> Option<String> {
        let before = self.bad.len();
        let image = self.one_of(&[
            ("image", given(asked.input, "image")),
            ("docker_image", given(asked.input, "docker_image")),
        ]);
        let wizard = given(asked.advanced, "dockerImage").filter(|image| !is_empty(image));
        let image = image.or_else(|| self.one_of(&[("dockerImage", wizard)]));
        let Some((name, image)) = image else {
            if self.bad.len() == before {
                self.bad.push("image is missing: say what to run, such as python:3.12".into());
            }
            return None;
        };
        if !is_image(image) {
            self.bad(name, &image.into(), "the name of an image, such as python:3.12");
        } else if !runner::is_allowed(image, allowed) {
            let one_of = format!("one that this worker allows: {}", allowed.join(", "));
            self.bad(name, &image.into(), &one_of);
        }
        Some(image.to_owned())
    }

    /// One text is for a shell, as it is in a Dockerfile.
    fn container_command(&mut self, asked: &Asked<'_>) -> Vec<String> {
        let input = asked.input;
        let ours = given(input, "command").map(|value| ("command", value));
        let horde = given(input, "docker_run_cmd").map(|value| ("docker_run_cmd", value));
        let entry = given(asked.advanced, "entryPoint").map(|value| ("entryPoint", value));
        if ours.is_some() && horde.is_some() {
            self.bad.push("command and docker_run_cmd are given: give one of them".into());
        }
        let mut command = match ours.or(horde).or(entry) {
            Some((_, Value::String(line))) if line.is_empty() => vec![],
            Some((name, line @ Value::String(_))) => {
                let mut shell = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
                shell.extend(self.texts(name, Some(&Value::Array(vec![line.clone()]))));
                shell
            }
            Some((name, list)) => self.texts(name, Some(list)),
            None => vec![],
        };
        command.extend(self.texts("args", given(input, "args")));
        command
    }

    fn horde(&mut self, asked: &Asked<'_>) -> Horde {
        let script = self.one_of(&[("raw_script", given(asked.input, "raw_script"))]);
        if script.is_some_and(|(_, text)| text.len() > CODE_MAX) {
            self.bad.push(format!("raw_script is longer than {} MiB", CODE_MAX >> 20));
        }
        let artifacts = self.one_of(&[("artifacts_dir", given(asked.input, "artifacts_dir"))]);
        if let Some((name, path)) = artifacts.filter(|(_, path)| !is_folder(path)) {
            self.bad(name, &path.into(), "the absolute path of a folder, such as /artifacts");
        }
        let own = |given: Option<(_, &str)>| given.map(|(_, text)| text.to_owned());
        Horde { script: own(script), artifacts: own(artifacts) }
    }
}

/// What an engine's command line takes for an image and for nothing else.
fn is_image(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte);
    text.len() <= IMAGE_MAX
        && text.bytes().all(fit)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && is_from_a_registry(text)
}

/// Podman takes `dir:/path` and the like for files of this machine, whose names begin as a host and its
/// port do.
fn is_from_a_registry(image: &str) -> bool {
    let parts: Vec<&str> = image.split('/').collect();
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let has_place = match (parts.as_slice(), parts[0].split_once(':')) {
        ([_, _, ..], Some((_, port))) => is_port(port),
        _ => true,
    };
    has_place && parts.iter().all(|part| !part.is_empty())
}

/// A folder that a mount can be made at: it hides nothing that a container needs.
fn is_folder(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    let own = [
        "/proc",
        "/sys",
        "/dev",
        "/etc",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/usr",
        "/input",
        "/output",
        "/volume",
        "/script.py",
    ];
    let text = text.strip_suffix('/').unwrap_or(text);
    let hides =
        |own: &str| text == own || text.strip_prefix(own).is_some_and(|t| t.starts_with('/'));
    text.len() <= PATH_MAX
        && text.starts_with('/')
        && text != "/tmp"
        && text.bytes().all(fit)
        && text.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part))
        && !own.into_iter().any(hides)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::parse::tests::{listed, terms};
    use crate::job::parse::{Terms, parse};
    use crate::work::{Decline, Kind, Share, Task};

    fn task(job: &Value) -> Result<Task, Decline> {
        let terms = Terms { kinds: Kind::ALL.to_vec(), ..terms() };
        parse(listed(&job.to_string()), &terms).job.map(|job| job.task)
    }

    #[track_caller]
    fn container(job: &Value) -> Container {
        match task(job) {
            Ok(Task::Container(container)) => container,
            other => panic!("{other:?}"),
        }
    }

    fn refused(input: Value) -> String {
        let job = json!({"id": "a", "jobType": "container", "inputData": input});
        let decline = task(&job).unwrap_err();
        assert_eq!(decline.code.name(), "bad_input");
        decline.reason
    }

    #[test]
    fn the_documented_job_is_understood() {
        let input = json!({"image": "python:3.12", "command": ["python", "-c"], "args": ["1", 2],
            "env": {"A": 1}, "gpus": 2, "memoryGb": 0.5, "cpus": 1.5});
        let wanted = Container {
            image: "python:3.12".into(),
            command: ["python", "-c", "1", "2"].map(str::to_owned).to_vec(),
            env: vec![("A".into(), "1".into())],
            gpus: 2,
            share: Share { memory: Some(512 << 20), cpus: Some(1.5) },
            horde: None,
        };
        assert_eq!(container(&json!({"id": "a", "jobType": "Docker", "inputData": input})), wanted);
    }

    #[test]
    fn a_job_of_no_name_of_ours_that_has_an_image_is_one() {
        for job in [
            json!({"id": "a", "modelType": "gpt2", "inputData": {"image": "busybox"}}),
            json!({"id": "a", "inputData": {"docker_image": "busybox"}}),
            json!({"id": "a", "advancedConfig": {"dockerImage": "busybox"}, "inputData": {}}),
        ] {
            assert_eq!(container(&job).image, "busybox", "{job}");
        }
        let known = json!({"id": "a", "modelType": "compute", "inputData": {"image": "busybox"}});
        assert!(matches!(task(&known), Ok(Task::Compute(_))));
    }

    #[test]
    fn computehordes_spelling_is_understood() {
        let job = json!({"id": "a", "inputData": {"docker_image": "ghcr.io/a/b@sha256:0a",
            "docker_run_cmd": ["python", "/script.py"], "raw_script": "print(1)",
            "artifacts_dir": "/artifacts", "env": {}}});
        let Container { image, command, horde, .. } = container(&job);
        assert_eq!(image, "ghcr.io/a/b@sha256:0a");
        assert_eq!(command, ["python", "/script.py"]);
        let wanted =
            Horde { script: Some("print(1)".into()), artifacts: Some("/artifacts".into()) };
        assert_eq!(horde, Some(wanted));
    }

    #[test]
    fn one_text_is_a_command_for_a_shell() {
        let job = json!({"id": "a", "advancedConfig": {"dockerImage": "b", "entryPoint": "a b"}});
        assert_eq!(container(&job).command, ["/bin/sh", "-c", "a b"]);
    }

    #[test]
    fn files_of_this_machine_are_no_images() {
        for image in ["dir:/etc/x", "tarball:/home/a.tar", "docker://a", "oci:a/b", "a//b", "a/"] {
            assert!(refused(json!({"image": image})).contains("but must be the name"), "{image}");
        }
        for image in ["a:1", "registry:5000/a", "ghcr.io/a/b@sha256:0a", "localhost/a"] {
            let job = json!({"id": "a", "jobType": "container", "inputData": {"image": image}});
            assert_eq!(container(&job).image, image);
        }
    }

    #[test]
    fn outputs_hide_nothing_of_a_container() {
        for path in ["/a", "/a/", "/tmp/a", "/root/artifacts", "/processed"] {
            assert!(is_folder(path), "{path}");
        }
        for path in [
            "",
            "/",
            "//",
            "a",
            "//proc",
            "/a//b",
            "/a/..",
            "/tmp",
            "/tmp/",
            "/proc/",
            "/volume",
            "/script.py",
            "/input/a",
        ] {
            assert!(!is_folder(path), "{path}");
        }
    }

    #[test]
    fn every_problem_of_a_container_is_named() {
        assert_eq!(
            refused(json!({"image": "--privileged", "command": ["a\u{0}"], "gpus": -1,
                "env": {"LD_LIBRARY_PATH": "/x"}, "cpus": "all", "artifacts_dir": "/proc/x"})),
            "image is \"--privileged\", but must be the name of an image, such as python:3.12; \
             command holds a NUL, which no program can be given: \"a␀\"; gpus is -1, but must be a \
             whole number from 0 to 64; artifacts_dir is \"/proc/x\", but must be the absolute \
             path of a folder, such as /artifacts; env may not set LD_LIBRARY_PATH, which changes \
             what a program loads; cpus is \"all\", but must be a number above 0"
        );
        assert_eq!(refused(json!({})), "image is missing: say what to run, such as python:3.12");
        assert_eq!(
            refused(json!({"image": "a", "docker_image": "b"})),
            "image and docker_image are given: give one of them"
        );
    }
}
