//! Scripts: other people's programs, each in a sandbox with its work folder and nothing else.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::local::{THIS, mark};
use crate::process::{Bound, Bounds, Child, Program, Sandbox, Stream, View, Woken, find_program};
use crate::work::{Code, JobId, Script};

/// The folder below the work folder in which the script and its environment lie.
const CODE: &str = "code";

/// Where in the work folder bubblewrap notes what becomes of a script.
pub(crate) const STATUS_FILE: &str = "status";

/// The folders that a script may write to, with what they are called in the sandbox.
const WRITABLE: [(&str, &str); 3] = [("out", "/output"), ("tmp", "/tmp"), ("shm", "/dev/shm")];

/// And those that it reads.
const READABLE: [(&str, &str); 2] = [("in", "/input"), (CODE, "/code")];

/// Sets the job's variables where nothing outside of the sandbox, and nothing that has a privilege, sees
/// them, and becomes the interpreter.
const LAUNCH: &str = r#"cd /output && . /code/env && exec "$@" </dev/null"#;

/// How long the trial may take.
const TRIAL: Duration = Duration::from_secs(20);

/// What the trial ends with if nothing it looked at was wrong.
const FINE: &str = "looked";

/// Looks around in the sandbox with a shell's own means, and says what should not be there.
const LOOK: &str = r#"
while read -r name value; do
    case $name in
        CapInh: | CapPrm: | CapEff: | CapAmb:)
            case $value in *[!0]*) echo "a program keeps privileges there ($name $value)" ;; esac ;;
        NoNewPrivs:) [ "$value" = 1 ] || echo "a program can gain privileges there" ;;
        Uid:) case $value in 65534[!0-9]*) ;; *) echo "a program has this user there: $value" ;; esac ;;
    esac
done </proc/self/status
while read -r name value; do
    case $name in Inter-* | face* | lo:*) ;; *) echo "a program sees the network $name there" ;; esac
done </proc/net/dev
n=0
for process in /proc/[0-9]*; do n=$((n + 1)); done
[ "$n" -le 4 ] || echo "a program sees other processes there"
for path in /x /usr/x /etc/x /dev/x /code/x /input/x; do
    if (: >"$path") 2>/dev/null; then echo "a program can write to $path there"; fi
done
for path in /output/x /tmp/x /dev/shm/x; do
    (: >"$path") 2>/dev/null || echo "a program cannot write to $path there"
done
for path in /root /home /run /var "$1"; do
    if [ -e "$path" ]; then echo "a program sees $path there"; fi
done
echo looked
"#;

/// Those of the interpreters that there are.
pub(crate) fn interpreters(wanted: &[String]) -> Vec<String> {
    wanted.iter().filter(|name| find_program(name).is_some()).cloned().collect()
}

/// Lays out what the sandbox is to show: the script, if it came with the job, and its variables.
pub(crate) fn lay_out(
    sandbox: &Sandbox,
    id: &JobId,
    script: &Script,
    work: &Path,
) -> io::Result<()> {
    make_folders(work)?;
    let put = |name: &str, text: &str| {
        let mut file = File::options();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        file.open(work.join(CODE).join(name))?.write_all(text.as_bytes())
    };
    if let Code::Text(text) = &script.code {
        put("script", text)?;
    }
    put("env", &environment(id, script))?;
    hand_over(sandbox, work)
}

/// The work folder itself stays ours, so that nobody else gets to those in it but by the sandbox.
fn hand_over(sandbox: &Sandbox, work: &Path) -> io::Result<()> {
    sandbox.hand_over(work, WRITABLE.into_iter().chain(READABLE).map(|(name, _)| name))
}

/// Whether a script ran, and came to an end by itself.
pub(crate) fn has_ended(work: &Path) -> bool {
    // Noted of nothing that was never begun.
    fs::read_to_string(work.join(STATUS_FILE)).is_ok_and(|status| status.contains("exit-code"))
}

fn make_folders(work: &Path) -> io::Result<()> {
    let mut folders = WRITABLE.into_iter().chain(READABLE);
    let make = |name| DirBuilder::new().recursive(true).mode(0o700).create(work.join(name));
    folders.try_for_each(|(name, _)| make(name))
}

/// The script in its sandbox, within its bounds. `limit` is the subcommand that sets them.
pub(crate) fn script(
    sandbox: &Sandbox,
    limit: &str,
    script: &Script,
    work: &Path,
    bounds: &Bounds,
) -> Result<Program, String> {
    let interpreter = find_program(&script.interpreter)
        .ok_or_else(|| format!("{} is no longer there", script.interpreter))?;
    let mut command = vec![interpreter.into(), OsString::from("/code/script")];
    command.extend(script.args.iter().map(OsString::from));
    let launch = ["/bin/sh", "-c", LAUNCH, "sh"].map(OsString::from);
    Ok(program(sandbox, limit, work, bounds, &[launch.to_vec(), command].concat()))
}

/// The text that sets a script's variables: ours first, so that the job's own count more.
fn environment(id: &JobId, script: &Script) -> String {
    let ours = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("USER", "nobody"),
        ("LOGNAME", "nobody"),
        ("LANG", "C.UTF-8"),
        // Or progress would be heard of at the end.
        ("PYTHONUNBUFFERED", "1"),
        ("WORKER_JOB_ID", id.as_str()),
        ("WORKER_INPUT_DIR", "/input"),
        ("WORKER_OUTPUT_DIR", "/output"),
    ];
    let theirs = script.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let quoted = |value: &str| value.replace('\'', r"'\''");
    let line = |(name, value)| format!("export {name}='{}'\n", quoted(value));
    ours.into_iter().chain(theirs).map(line).collect()
}

fn program(
    sandbox: &Sandbox,
    limit: &str,
    work: &Path,
    bounds: &Bounds,
    command: &[OsString],
) -> Program {
    let below = |(from, to): (&str, &'static str)| (work.join(from), to);
    let view = View { read: &READABLE.map(below), write: &WRITABLE.map(below) };
    let mut args: Vec<OsString> = vec![limit.into(), bounds.to_string().into()];
    args.extend(sandbox.line(&view, command));
    Program {
        mark: mark(work),
        path: THIS.into(),
        args,
        env: vec![("PATH", "/usr/bin:/bin".into())],
        // The sandbox begins elsewhere: it only keeps its status here.
        dir: work.to_owned(),
        is_wrapped: true,
    }
}

/// Finds the way in which a sandbox really works here, by a look around in it; or why none does, and how to
/// help it. `limit` is the subcommand that sets limits, `hidden` what must not be seen.
pub(crate) fn find_sandbox(limit: &str, hidden: &Path) -> Result<Sandbox, String> {
    let mut last = String::new();
    for sandbox in Sandbox::ways()? {
        match try_out(&sandbox, limit, hidden) {
            Ok(()) => return Ok(sandbox),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// A folder that only we can enter: in the state directory, unless that is not there yet or not ours alone. One that
/// is left by a kill is removed with the other temporary files.
fn place_to_try(state_dir: &Path) -> io::Result<TempDir> {
    let is_ours_alone = |dir: &fs::Metadata| {
        dir.is_dir() && dir.uid() == geteuid().as_raw() && dir.mode() & 0o077 == 0
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp");
    if fs::symlink_metadata(state_dir).is_ok_and(|dir| is_ours_alone(&dir)) {
        builder.tempdir_in(state_dir)
    } else {
        builder.tempdir()
    }
}

fn try_out(sandbox: &Sandbox, limit: &str, hidden: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("bubblewrap cannot be tried: {error}");
    let none = |error: io::Error| format!("there is no folder to try it in: {error}");
    let work = place_to_try(hidden).map_err(none)?;
    let work = work.path();
    make_folders(work).map_err(none)?;
    hand_over(sandbox, work).map_err(|error| {
        format!("files cannot be given to nobody ({error}): run the worker as an ordinary user")
    })?;
    let look = ["/bin/sh", "-c", LOOK, "sh"].map(OsString::from).into_iter();
    let command: Vec<OsString> = look.chain([hidden.into()]).collect();
    let bounds = Bounds(vec![(Bound::Core, 0)]);
    let program = program(sandbox, limit, work, &bounds, &command);
    let lines = said(&program).map_err(failed)?;
    match lines.as_slice() {
        [(Stream::Stdout, line)] if line == FINE => Ok(()),
        [] => Err("bubblewrap does not come to an end".to_owned()),
        [(Stream::Stderr, first), ..] => Err(format!(
            "{first}: this machine, or a container that the worker is in, may forbid namespaces; allow \
             them (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces=15000)"
        )),
        [(_, first), ..] => Err(first.clone()),
    }
}

/// All that it prints, within a bound; nothing if that is over first.
fn said(program: &Program) -> io::Result<Vec<(Stream, String)>> {
    let mut child = Child::start(program, None)?;
    let mut lines = vec![];
    let mut sink = |stream, line: &str| lines.push((stream, line.to_owned()));
    let until = Instant::now() + TRIAL;
    child.release()?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(vec![]);
        }
        if child.wait(left, None, &mut sink)? == Woken::Exited {
            child.finish(&mut sink)?;
            return Ok(lines);
        }
    }
}
