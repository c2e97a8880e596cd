//! The command line that makes a container: from plain data, the same for both engines but where they
//! differ. Nothing secret is on it, since whoever is on this machine can read it: the environment is in
//! a file.

use std::time::Duration;

use super::engine::{Engine, Speech};

/// What bears our labels is ours; the first tells whose.
pub(super) const LABEL_OWNER: &str = "qubix-worker.owner";
const LABEL_JOB: &str = "qubix-worker.job";

/// What its consumer calls the job.
const LABEL_ID: &str = "qubix-worker.id";

/// How much of what a container prints the engine keeps.
const LOG_MAX: &str = "16m";

/// The variables that docker's client sets by its own settings.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Open files of one process.
const FILES: u64 = 4096;

/// A container to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// Whose it is: of this worker, on this state directory.
    pub(crate) owner: String,
    /// The key of its job, and its id.
    pub(crate) job: String,
    pub(crate) id: String,
    pub(crate) image: String,
    /// Run in place of the image's own entry point.
    pub(crate) command: Vec<String>,
    /// Handed to the image's own entry point.
    pub(crate) args: Vec<String>,
    /// A file of `NAME=value` lines.
    pub(crate) env_file: String,
    /// The names in it.
    pub(crate) env: Vec<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) user: (u32, u32),
    /// In bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: f64,
    pub(crate) processes: u64,
    /// Of all containers together, since these have one user: none is to starve another.
    pub(crate) processes_of_all: u64,
    /// Bytes of one file.
    pub(crate) file_size: u64,
    /// By their UUIDs.
    pub(crate) gpus: Vec<String>,
    /// A file that says what it may ask of the kernel; without it the engine's own rules hold.
    pub(crate) seccomp: Option<String>,
    /// After so long the engine ends it, where it can: the agent may be gone by then.
    pub(crate) time: Duration,
}

/// A folder or file of this machine that is seen inside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mount {
    pub(crate) host: String,
    pub(crate) inside: String,
    pub(crate) read_only: bool,
}

/// The arguments that make the container, and do not start it.
pub(super) fn create(plan: &Plan, engine: &Engine) -> Vec<String> {
    let mut args = Args(vec!["create".into()]);
    args.option("--name", &plan.name);
    args.option("--label", &format!("{LABEL_OWNER}={}", plan.owner));
    args.option("--label", &format!("{LABEL_JOB}={}", plan.job));
    args.option("--label", &format!("{LABEL_ID}={}", plan.id));
    // Whether it is there was seen to before.
    args.option("--pull", "never");
    args.isolation(plan, engine);
    args.limits(plan, engine);
    args.option("--env-file", &plan.env_file);
    args.no_proxies(plan, engine.speech);
    for mount in &plan.mounts {
        args.option("--mount", &bind(mount, engine.speech));
    }
    args.gpus(plan, engine.speech);
    args.log(engine.speech);
    let mut command = plan.command.iter();
    if let Some(program) = command.next() {
        args.option("--entrypoint", program);
    }
    args.0.push(plan.image.clone());
    args.0.extend(command.chain(&plan.args).cloned());
    args.0
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// In one word: a value that begins with a dash is none of the engine's options.
    fn option(&mut self, name: &str, value: &str) {
        self.0.push(format!("{name}={value}"));
    }

    fn isolation(&mut self, plan: &Plan, engine: &Engine) {
        self.option("--network", "none");
        self.flag("--read-only");
        if engine.speech == Speech::Podman {
            // Else it mounts writable folders of its own over the image's.
            self.option("--read-only-tmpfs", "false");
            // The image's own would be on a disk on which nobody looks at how much they hold.
            self.option("--image-volume", "tmpfs");
            // Nor this machine's list of hosts; docker writes one of its own.
            self.flag("--no-hosts");
            // Where SELinux keeps containers from the machine's files, ours are made the container's.
            self.option("--security-opt", "label=disable");
        }
        // Counted as its memory. Podman would copy what the image has there.
        let own = if engine.speech == Speech::Podman { ",notmpcopyup" } else { "" };
        self.option("--tmpfs", &format!("/tmp:rw,nosuid,nodev,exec,mode=1777{own}"));
        self.option("--cap-drop", "all");
        self.option("--security-opt", "no-new-privileges");
        if let Some(file) = &plan.seccomp {
            self.option("--security-opt", &format!("seccomp={file}"));
        }
        let (user, group) = plan.user;
        self.option("--user", &format!("{user}:{group}"));
        if engine.rootless {
            // What it writes is ours then.
            self.option("--userns", "keep-id");
        }
        // A first process that is none of the job's: signals mean to the job's what they mean elsewhere,
        // and what it leaves behind is reaped.
        self.flag("--init");
    }

    /// An engine's own settings may name a proxy, with its password, for all containers.
    fn no_proxies(&mut self, plan: &Plan, speech: Speech) {
        if speech == Speech::Podman {
            self.option("--http-proxy", "false");
            return;
        }
        for name in PROXIES {
            for name in [name.to_owned(), name.to_lowercase()] {
                // Without a value: it is not to be there.
                if !plan.env.contains(&name) {
                    self.option("--env", &name);
                }
            }
        }
    }

    fn limits(&mut self, plan: &Plan, engine: &Engine) {
        let memory = plan.memory.to_string();
        self.option("--memory", &memory);
        // With swap, of which it gets none.
        self.option("--memory-swap", &memory);
        self.option("--cpus", &format!("{:.2}", plan.cpus));
        self.option("--pids-limit", &plan.processes.to_string());
        // Below everything else that runs.
        self.option("--cpu-shares", "128");
        self.option("--oom-score-adj", "500");
        for (name, value) in [
            ("nofile", FILES),
            ("nproc", plan.processes_of_all),
            ("fsize", plan.file_size),
            ("core", 0),
        ] {
            self.option("--ulimit", &format!("{name}={value}:{value}"));
        }
        if engine.speech == Speech::Podman {
            self.option("--timeout", &plan.time.as_secs().to_string());
        }
    }

    fn gpus(&mut self, plan: &Plan, speech: Speech) {
        if plan.gpus.is_empty() {
            return;
        }
        match speech {
            Speech::Podman => {
                for gpu in &plan.gpus {
                    self.option("--device", &format!("nvidia.com/gpu={gpu}"));
                }
            }
            // Quoted, or a comma would begin another option of it.
            Speech::Docker => {
                self.option("--gpus", &format!("\"device={}\"", plan.gpus.join(",")));
            }
        }
    }

    /// Into files of the engine's, bounded: they are read again by an agent that was away.
    fn log(&mut self, speech: Speech) {
        match speech {
            Speech::Podman => self.option("--log-driver", "k8s-file"),
            Speech::Docker => {
                self.option("--log-driver", "json-file");
                self.option("--log-opt", "max-file=2");
            }
        }
        self.option("--log-opt", &format!("max-size={LOG_MAX}"));
    }
}

fn bind(mount: &Mount, speech: Speech) -> String {
    let mut fields = vec![
        "type=bind".to_owned(),
        field(&format!("src={}", mount.host)),
        field(&format!("dst={}", mount.inside)),
    ];
    if mount.read_only {
        fields.push(if speech == Speech::Podman { "ro=true" } else { "readonly" }.into());
    }
    fields.join(",")
}

/// One field of a list with commas between.
fn field(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(speech: Speech, rootless: bool) -> Engine {
        Engine { speech, program: speech.name().into(), env: vec![], rootless, seccomp: None }
    }

    fn plan() -> Plan {
        let mount = |host: &str, inside: &str, read_only| Mount {
            host: host.into(),
            inside: inside.into(),
            read_only,
        };
        Plan {
            name: "qubix-worker-1f-1".into(),
            owner: "3f0c".into(),
            job: "1f".into(),
            id: "job-1".into(),
            image: "docker.io/library/python:3.12".into(),
            command: vec!["python".into(), "-c".into(), "1".into()],
            args: vec![],
            env_file: "/s/env".into(),
            env: vec!["HOME".into(), "https_proxy".into()],
            mounts: vec![
                mount("/s/in", "/input", true),
                mount("/s, \"of\" mine/out", "/output", false),
            ],
            user: (65534, 65534),
            memory: 512 << 20,
            cpus: 1.5,
            processes: 4096,
            processes_of_all: 32768,
            file_size: 20 << 30,
            gpus: vec![],
            seccomp: None,
            time: Duration::from_secs(3620),
        }
    }

    const COMMON: [&str; 11] = [
        "create",
        "--name=qubix-worker-1f-1",
        "--label=qubix-worker.owner=3f0c",
        "--label=qubix-worker.job=1f",
        "--label=qubix-worker.id=job-1",
        "--pull=never",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp:rw,nosuid,nodev,exec,mode=1777",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
    ];

    const LIMITS: [&str; 10] = [
        "--memory=536870912",
        "--memory-swap=536870912",
        "--cpus=1.50",
        "--pids-limit=4096",
        "--cpu-shares=128",
        "--oom-score-adj=500",
        "--ulimit=nofile=4096:4096",
        "--ulimit=nproc=32768:32768",
        "--ulimit=fsize=21474836480:21474836480",
        "--ulimit=core=0:0",
    ];

    #[test]
    fn docker_is_told_all_of_it() {
        let mut wanted = COMMON.to_vec();
        wanted.extend(["--user=65534:65534", "--init"]);
        wanted.extend(LIMITS);
        wanted.extend([
            "--env-file=/s/env",
            "--env=HTTP_PROXY",
            "--env=http_proxy",
            "--env=HTTPS_PROXY",
            "--env=FTP_PROXY",
            "--env=ftp_proxy",
            "--env=NO_PROXY",
            "--env=no_proxy",
            "--env=ALL_PROXY",
            "--env=all_proxy",
            "--mount=type=bind,src=/s/in,dst=/input,readonly",
            "--mount=type=bind,\"src=/s, \"\"of\"\" mine/out\",dst=/output",
            "--log-driver=json-file",
            "--log-opt=max-file=2",
            "--log-opt=max-size=16m",
            "--entrypoint=python",
            "docker.io/library/python:3.12",
            "-c",
            "1",
        ]);
        assert_eq!(create(&plan(), &engine(Speech::Docker, false)), wanted);
    }

    #[test]
    fn podman_is_told_what_only_it_has() {
        let told = create(&plan(), &engine(Speech::Podman, false));
        let docker = create(&plan(), &engine(Speech::Docker, false));
        let own: Vec<_> = told.iter().filter(|arg| !docker.contains(arg)).collect();
        assert_eq!(
            own,
            [
                "--read-only-tmpfs=false",
                "--image-volume=tmpfs",
                "--no-hosts",
                "--security-opt=label=disable",
                "--tmpfs=/tmp:rw,nosuid,nodev,exec,mode=1777,notmpcopyup",
                "--timeout=3620",
                "--http-proxy=false",
                "--mount=type=bind,src=/s/in,dst=/input,ro=true",
                "--log-driver=k8s-file",
            ]
        );
        let told = create(&plan(), &engine(Speech::Podman, true));
        assert!(told.contains(&"--userns=keep-id".into()));
    }

    #[test]
    fn only_the_allotted_gpus_are_given() {
        let plan = Plan { gpus: vec!["GPU-1".into(), "GPU-2".into()], ..plan() };
        let told = create(&plan, &engine(Speech::Docker, false));
        assert!(told.contains(&"--gpus=\"device=GPU-1,GPU-2\"".into()));
        let told = create(&plan, &engine(Speech::Podman, false));
        assert!(told.contains(&"--device=nvidia.com/gpu=GPU-1".into()));
        assert!(told.contains(&"--device=nvidia.com/gpu=GPU-2".into()));
    }

    #[test]
    fn an_images_own_entry_point_is_run_where_no_other_is_asked_for() {
        let plan = Plan { command: vec![], args: vec!["--help".into()], ..plan() };
        let told = create(&plan, &engine(Speech::Podman, false));
        assert_eq!(told[told.len() - 2..], ["docker.io/library/python:3.12", "--help"]);
        assert!(!told.iter().any(|arg| arg.starts_with("--entrypoint")));
    }
}
