//! Which container engine there is, and whether it can hold a job to its limits: what it only promises
//! is worth nothing, so one that would ignore a limit is not used.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::complaint;
use super::seccomp;
use crate::work::Blame;

/// How long an engine may take to tell what it can do.
const INFO: Duration = Duration::from_secs(20);

/// Whose command line is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Podman,
    Docker,
}

impl Speech {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// By the name of its program.
    fn of(program: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("docker") { Self::Docker } else { Self::Podman }
    }

    /// What to ask it, an answer a field.
    fn questions(self) -> &'static str {
        match self {
            Self::Podman => {
                "{{.Host.Security.Rootless}}|{{.Host.CgroupsVersion}}|{{.Host.CgroupControllers}}|\
                 {{.Host.Security.SECCOMPProfilePath}}"
            }
            Self::Docker => {
                "{{.SecurityOptions}}|{{.MemoryLimit}}|{{.SwapLimit}}|{{.PidsLimit}}|{{.CPUCfsQuota}}"
            }
        }
    }
}

/// An engine that holds jobs to their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    pub(crate) speech: Speech,
    pub(super) program: PathBuf,
    /// What its client needs to know of this machine.
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Its containers are processes of ours, in a user namespace.
    pub(super) rootless: bool,
    /// What its containers may ask of the kernel, where that is less than it allows by itself.
    pub(crate) seccomp: Option<String>,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.display().fmt(f)
    }
}

impl Engine {
    /// The one that is asked for, else podman, else docker.
    pub(crate) fn find(
        asked: Option<&Path>,
        env: &[(&'static str, OsString)],
    ) -> Result<Self, String> {
        if let Some(program) = asked {
            return Self::try_out(program, env);
        }
        let by_name = |speech: Speech| Self::try_out(Path::new(speech.name()), env);
        by_name(Speech::Podman)
            .or_else(|first| by_name(Speech::Docker).map_err(|second| format!("{first}; {second}")))
    }

    fn try_out(program: &Path, env: &[(&'static str, OsString)]) -> Result<Self, String> {
        let (program, env) = (program.to_owned(), env.to_vec());
        let engine =
            Self { speech: Speech::of(&program), program, env, rootless: false, seccomp: None };
        let told = engine.ask()?;
        let (told, name) = (told.as_str(), engine.program.display());
        let rootless = match engine.speech {
            Speech::Podman => podman_objection(told),
            Speech::Docker => docker_objection(told),
        };
        let rootless = rootless.map_err(|why| format!("{name}: {why}"))?;
        let seccomp = match engine.speech {
            Speech::Podman => seccomp::stricter(told.rsplit('|').next().unwrap_or_default())
                .map_err(|why| format!("{name}: {why}"))?,
            // Its own rules are strict enough for what has no capability.
            Speech::Docker => None,
        };
        Ok(Self { rootless, seccomp, ..engine })
    }

    /// What it can do, in one line.
    fn ask(&self) -> Result<String, String> {
        let answer = self.call(&["info", "--format", self.speech.questions()], INFO)?;
        // The daemon that docker cannot reach is told on stderr, with an empty answer and success.
        let told = answer.out.into_iter().find(|line| line.contains('|'));
        let told = told.filter(|_| answer.code == Some(0));
        told.ok_or_else(|| {
            format!("{} does not work: {}", self.program.display(), complaint(&answer.err))
        })
    }

    /// Whose fault it is that a container cannot be made or started. An engine that still answers may have
    /// met an image that no engine could run.
    pub(crate) fn blame(&self) -> Blame {
        if self.ask().is_ok() { Blame::Unclear } else { Blame::Worker }
    }
}

/// Whether podman runs without root, if it can limit what it runs.
fn podman_objection(told: &str) -> Result<bool, String> {
    let mut fields = told.split('|').map(str::trim);
    let mut field = || fields.next().unwrap_or_default();
    let (rootless, version, controllers) = (field() == "true", field(), field());
    if rootless && version == "v1" {
        return Err("without root it ignores all limits on control groups of version 1: run the \
                    worker as root, or boot with systemd.unified_cgroup_hierarchy=1"
            .into());
    }
    let has = |name: &&str| controllers.trim_matches(['[', ']']).split(' ').any(|has| has == *name);
    match ["memory", "pids", "cpu"].into_iter().find(|name| !has(name)) {
        None => Ok(rootless),
        Some(name) => Err(format!(
            "it cannot limit containers, as the control group controller {name} is not handed to \
             it: for a user's own podman, set Delegate=cpu memory pids for user@.service"
        )),
    }
}

/// The same for docker, which is used as root only.
fn docker_objection(told: &str) -> Result<bool, String> {
    let mut fields = told.split('|').map(str::trim);
    if fields.next().unwrap_or_default().contains("name=rootless") {
        return Err("without root its containers cannot write to a job's folder: use podman".into());
    }
    let limits = ["memory", "swap", "number of processes", "processors"];
    let missing = limits.into_iter().find(|_| fields.next() != Some("true"));
    match missing {
        None => Ok(false),
        Some("swap") => Err("it cannot limit swap: boot with swapaccount=1".into()),
        Some(what) => Err(format!("it cannot limit a container's {what} on this machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_would_ignore_a_limit_is_not_used() {
        let root = "false|v1|[cpuset cpu cpuacct blkio memory devices freezer pids]";
        assert_eq!(podman_objection(root), Ok(false));
        assert_eq!(podman_objection("true|v2|[cpu memory pids]"), Ok(true));
        let why = |told| podman_objection(told).unwrap_err();
        assert!(why("true|v1|[]").starts_with("without root it ignores all limits"));
        assert!(why("true|v2|[memory pids]").contains("controller cpu is not handed"));
        assert!(why("").contains("controller memory"));
        let seccomp = "[name=seccomp,profile=default]|true|true|true|true";
        assert_eq!(docker_objection(seccomp), Ok(false));
        let why = |told| docker_objection(told).unwrap_err();
        assert!(
            why("[name=seccomp,profile=default name=rootless]|true|true|true|true")
                .contains("use podman")
        );
        assert!(why("[]|true|false|true|true").contains("swapaccount=1"));
        assert!(why("[]|true|true|false|true").contains("number of processes"));
        assert!(why("[]|").contains("memory"));
    }

    #[test]
    fn an_engine_that_is_not_there_says_so() {
        let missing = Engine::find(Some(Path::new("/nowhere/podman")), &[]).unwrap_err();
        assert!(missing.starts_with("/nowhere/podman cannot be run: "), "{missing}");
    }
}
