//! What a script job asks for.

use serde_json::Value;

use super::{Asked, Problems, given, source};
use crate::work::{Code, Script};

const CODE_MAX: usize = 4 << 20;

impl Problems {
    pub(super) fn script(&mut self, asked: &Asked<'_>, allowed: &[String]) -> Option<Script> {
        let code = self.code(asked);
        let entry = given(asked.advanced, "entryPoint").and_then(|entry| entry.as_str());
        let mut entry = entry.unwrap_or_default().split_whitespace();
        let program = entry.next().unwrap_or_default();
        let interpreter = self.interpreter(asked, allowed, code.as_ref(), program);
        let args = match given(asked.input, "args") {
            // Behind the program and its file.
            None => {
                let rest = entry.skip(1).map(Value::from).collect();
                self.texts("entryPoint", Some(&Value::Array(rest)))
            }
            args => self.texts("args", args),
        };
        let (env, share) = (self.env(asked), self.share(asked));
        Some(Script { code: code?, interpreter: interpreter?, args, env, share })
    }

    fn code(&mut self, asked: &Asked<'_>) -> Option<Code> {
        let before = self.bad.len();
        let given = self.one_of(&[
            ("script", given(asked.input, "script")),
            ("raw_script", given(asked.input, "raw_script")),
            ("scriptUrl", given(asked.input, "scriptUrl")),
            ("fileUrl", asked.wire.file_url.as_ref()),
        ]);
        let Some((name, text)) = given else {
            if self.bad.len() == before {
                self.bad.push("script is missing: give its text, or a scriptUrl".into());
            }
            return None;
        };
        if name.ends_with("Url") {
            if !source::is_url(text) {
                self.bad(name, &text.into(), "an http(s) URL");
            }
            return Some(Code::Url(text.to_owned()));
        }
        if text.len() > CODE_MAX {
            self.bad
                .push(format!("{name} is longer than {} MiB: give a scriptUrl", CODE_MAX >> 20));
        }
        Some(Code::Text(text.to_owned()))
    }

    /// What it names, or what it is by its first line, its file's name or its command, or the first
    /// that is allowed.
    fn interpreter(
        &mut self,
        asked: &Asked<'_>,
        allowed: &[String],
        code: Option<&Code>,
        program: &str,
    ) -> Option<String> {
        let file = [given(asked.input, "fileName"), asked.wire.file_name.as_ref()];
        let file = file.into_iter().flatten().find_map(|name| name.as_str());
        let url = match code {
            Some(Code::Url(url)) => Some(url.split(['?', '#']).next().unwrap_or(url)),
            Some(Code::Text(_)) | None => None,
        };
        let line = match code {
            Some(Code::Text(text)) => by_first_line(text),
            Some(Code::Url(_)) | None => None,
        };
        let guessed = || {
            let by_file = file.and_then(by_extension).or_else(|| url.and_then(by_extension));
            line.or(by_file).or_else(|| by_command(program))
        };
        let value = given(asked.input, "interpreter");
        let name = match value {
            Some(value) => by_command(value.as_str().unwrap_or_default()),
            None => guessed().or_else(|| Some(allowed.first()?.clone())),
        };
        if let Some(name) = name.filter(|name| allowed.contains(name)) {
            return Some(name);
        }
        let known = allowed.join(", ");
        match value {
            Some(value) => self.bad("interpreter", value, &format!("one of {known}")),
            None => self.bad.push(format!("it is a script for none of {known}: say interpreter")),
        }
        None
    }
}

/// `python3` for `#!/usr/bin/env python3`.
fn by_first_line(code: &str) -> Option<String> {
    let line = code.lines().next()?.strip_prefix("#!")?;
    let mut words = line.split_whitespace();
    let path = words.next()?;
    by_command(if path.ends_with("/env") { words.next()? } else { path })
}

fn by_extension(file: &str) -> Option<String> {
    match file.rsplit_once('.')?.1 {
        "py" => Some("python3".to_owned()),
        "sh" | "bash" => Some("bash".to_owned()),
        _ => None,
    }
}

/// The last part of its path, by the name that it has here.
fn by_command(program: &str) -> Option<String> {
    match program.rsplit('/').next()? {
        "" => None,
        "python" => Some("python3".to_owned()),
        "sh" => Some("bash".to_owned()),
        name => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::parse::tests::{listed, terms};
    use crate::job::parse::{Offer, Terms, parse};
    use crate::work::{Kind, Share, Task};

    fn offer(job: &Value) -> Offer {
        let terms = Terms { kinds: Kind::ALL.to_vec(), ..terms() };
        parse(listed(&job.to_string()), &terms)
    }

    #[track_caller]
    fn script(job: &Value) -> Script {
        match offer(job).job.unwrap().task {
            Task::Script(script) => script,
            other => panic!("{other:?}"),
        }
    }

    fn with(input: Value) -> Value {
        json!({"id": "a", "jobType": "script", "inputData": input})
    }

    fn refused(input: Value) -> String {
        let decline = offer(&with(input)).job.unwrap_err();
        assert_eq!(decline.code.name(), "bad_input");
        decline.reason
    }

    #[test]
    fn a_command_with_a_nul_is_refused() {
        let job = json!({"id": "a", "jobType": "script", "inputData": {"script": "x"},
            "advancedConfig": {"entryPoint": "python a.py a\u{0}b"}});
        let decline = offer(&job).job.unwrap_err();
        assert!(decline.reason.contains("entryPoint holds a NUL"), "{}", decline.reason);
    }

    #[test]
    fn the_job_of_the_real_backend_is_understood() {
        let job = json!({
            "id": "a", "jobType": "custom_script", "modelType": "custom", "framework": "pytorch",
            "fileName": "a.py", "fileUrl": "", "inputData": {"script": "print(1)"},
            "requiredVRAM": 8, "requiredRAM": 16,
            "advancedConfig": {"entryPoint": "python a.py --fast", "dockerImage": "python:3.11",
                "maxDuration": 24, "environmentVars": {"K": "V"}, "outputDestination": "local"},
        });
        let wanted = Script {
            code: Code::Text("print(1)".into()),
            interpreter: "python3".into(),
            args: vec!["--fast".into()],
            env: vec![("K".into(), "V".into())],
            share: Share { memory: Some(16 << 30), cpus: None },
        };
        assert_eq!((script(&job), offer(&job).kind), (wanted, "script".to_owned()));
    }

    #[test]
    fn the_interpreter_is_told_by_what_there_is() {
        for (input, wanted) in [
            (json!({"script": "echo", "interpreter": "bash"}), "bash"),
            (json!({"script": "echo", "interpreter": "/usr/bin/python"}), "python3"),
            (json!({"script": "#!/bin/sh\necho"}), "bash"),
            (json!({"script": "#!/usr/bin/env python3 -u\n"}), "python3"),
            (json!({"script": "echo", "fileName": "a.sh"}), "bash"),
            (json!({"scriptUrl": "https://a/b.sh?c=d.py"}), "bash"),
            (json!({"script": "print(1)"}), "python3"),
        ] {
            assert_eq!(script(&with(input.clone())).interpreter, wanted, "{input}");
        }
    }

    #[test]
    fn what_only_a_url_is_given_of_is_fetched() {
        let job = json!({"id": "a", "jobType": "script", "fileUrl": "https://a/b.py"});
        assert_eq!(script(&job).code, Code::Url("https://a/b.py".into()));
    }

    #[test]
    fn less_memory_than_anything_starts_with_is_refused() {
        for gb in [1e-12, 1e-6, 0.0005, 0.001, 0.004, 0.0156] {
            let told = refused(json!({"script": "x", "memoryGb": gb}));
            let wanted = format!(
                "memoryGb is {}, but must be at least 16 MiB: with less no program starts",
                json!(gb)
            );
            assert_eq!(told, wanted);
        }
        let share = script(&with(json!({"script": "x", "memoryGb": 0.015625}))).share;
        assert_eq!(share.memory, Some(16 << 20));
    }

    #[test]
    fn every_problem_of_a_script_is_named() {
        assert_eq!(
            refused(json!({"interpreter": "perl", "script": "", "scriptUrl": "ftp://a",
                "args": ["a\u{0}b"], "env": {"LD_PRELOAD": "x", "A=B": "1", "WORKER_JOB_ID": "x",
                "OK": [1]}, "memoryGb": 0})),
            "scriptUrl is \"ftp://a\", but must be an http(s) URL; interpreter is \"perl\", but \
             must be one of python3, bash; args holds a NUL, which no program can be given: \
             \"a␀b\"; env has a name that is none: \"A=B\"; env may not set LD_PRELOAD, which \
             changes what a program loads; env OK is [1], but must be a text, a number or a \
             boolean; env may not set WORKER_JOB_ID: WORKER_… is the worker's; memoryGb is 0, but \
             must be a number above 0"
        );
        assert_eq!(
            refused(json!({"script": "x", "scriptUrl": "https://a"})),
            "script and scriptUrl are given: give one of them"
        );
        assert_eq!(refused(json!({})), "script is missing: give its text, or a scriptUrl");
        assert_eq!(
            refused(json!({"script": "#!/usr/bin/perl\n"})),
            "it is a script for none of python3, bash: say interpreter"
        );
    }
}
