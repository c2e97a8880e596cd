//! A sandbox for a program that nobody here knows, made by bubblewrap: namespaces of its own, no network,
//! no privileges, the system for reading only, and of this machine's files nothing but what is put in.
//!
//! Whoever is root maps no users: in a namespace of users its number would go on being root's, to which
//! the kernel shows and allows more. The program is another user then, who owns nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::process::geteuid;

use super::family::MARK;
use super::seccomp;
use crate::beneath::Folder;

/// Who runs in the sandbox.
pub(super) const NOBODY: u32 = 65534;

/// Where programs of the system are, in this order, whatever this process finds in its environment.
const SYSTEM: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What programs are made of, besides `/usr`: folders, or links into it.
const ROOTS: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// What of `/etc` a program may need, and tells nothing of this machine.
const ETC: [&str; 8] = [
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "ssl",
];

/// Stands in a line for the number of the file that system calls are filtered by.
pub(crate) const FILTER: &str = "{filter}";

/// Stands in a line for the number of a file in which bubblewrap notes what becomes of the program.
pub(crate) const STATUS: &str = "{status}";

/// How sandboxes are made on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    bwrap: PathBuf,
    user: User,
}

/// How the program becomes nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
enum User {
    /// By this program, since we are root.
    Other { setpriv: PathBuf },
    /// In a namespace of users, in which it can make no others, where bubblewrap knows how.
    Mapped { is_last: bool },
}

/// What is put into a sandbox.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// Folders that are seen under a name of their own, for reading.
    pub(crate) read: &'a [(PathBuf, &'static str)],
    /// The same, for writing.
    pub(crate) write: &'a [(PathBuf, &'static str)],
}

impl Sandbox {
    /// How it may work here, the best first. It is for the caller to try.
    pub(crate) fn ways() -> Result<Vec<Self>, String> {
        let need = |name: &str, package: &str| {
            find(name).ok_or_else(|| format!("{name} is missing: install {package}"))
        };
        let bwrap = need("bwrap", "bubblewrap")?;
        let mut users = vec![];
        if geteuid().is_root() {
            users.push(User::Other { setpriv: need("setpriv", "util-linux")? });
        }
        if !is_true_root() {
            users.extend([true, false].map(|is_last| User::Mapped { is_last }));
        }
        Ok(users.into_iter().map(|user| Self { bwrap: bwrap.clone(), user }).collect())
    }

    /// The line that runs a command in a sandbox.
    pub(crate) fn line(&self, view: &View<'_>, command: &[OsString]) -> Vec<OsString> {
        let mut line = Line(vec![self.bwrap.clone().into()]);
        line.say("--unshare-ipc --unshare-net --unshare-pid --unshare-uts");
        line.say("--die-with-parent --new-session --hostname sandbox");
        line.say(match &self.user {
            User::Other { .. } => "--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID",
            User::Mapped { is_last: true } => "--unshare-user --disable-userns",
            User::Mapped { is_last: false } => "--unshare-user",
        });
        if let User::Mapped { .. } = self.user {
            line.say("--cap-drop ALL --uid 65534 --gid 65534");
        }
        if seccomp::filter().is_some() {
            line.say("--seccomp");
            line.say(FILTER);
        }
        line.say("--json-status-fd");
        line.say(STATUS);
        // It tells where the work folder is.
        line.say("--unsetenv");
        line.say(MARK);
        line.system();
        line.say("--proc /proc --dev /dev");
        for (from, to) in view.read {
            line.mount("--ro-bind", from, to);
        }
        for (from, to) in view.write {
            line.mount("--bind", from, to);
        }
        // What bubblewrap makes itself is in memory, and would be taken for nobody's.
        line.say("--remount-ro /dev --remount-ro / --chdir / --");
        if let User::Other { setpriv } = &self.user {
            line.0.push(setpriv.clone().into());
            line.say(
                "--reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --no-new-privs --",
            );
        }
        line.0.extend_from_slice(command);
        line.0
    }

    /// Gives these of a folder's, with all that is in them, to the one who runs in the sandbox.
    pub(crate) fn hand_over<'a>(
        &self,
        folder: &Path,
        mut names: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        match self.user {
            User::Mapped { .. } => Ok(()),
            User::Other { .. } => {
                let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                let folder = Folder::open(folder)?;
                names.try_for_each(|name| folder.give(Path::new(name), user, group))
            }
        }
    }
}

/// Not only in a namespace of users, as in a container that an ordinary user has started.
fn is_true_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // Ours, theirs, and how many.
    let is_roots = |line: &str| line.split_whitespace().nth(1) == Some("0");
    geteuid().is_root() && map.lines().next().is_none_or(is_roots)
}

/// An absolute path of a program of the system.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    SYSTEM.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

struct Line(Vec<OsString>);

impl Line {
    fn say(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn mount(&mut self, how: &str, from: &Path, to: &str) {
        self.0.extend([how.into(), from.into(), to.into()]);
    }

    fn system(&mut self) {
        self.say("--ro-bind /usr /usr");
        for name in ROOTS {
            let path = Path::new("/").join(name);
            let how = match fs::read_link(&path) {
                Ok(target) => ["--symlink".into(), target.into(), path.into()],
                Err(_) if path.is_dir() => ["--ro-bind".into(), path.clone().into(), path.into()],
                Err(_) => continue,
            };
            self.0.extend(how);
        }
        // Or it would be a folder that only its maker can read.
        self.say("--dir /etc");
        for name in ETC {
            let path = format!("/etc/{name}");
            self.say("--ro-bind-try");
            self.0.extend([OsString::from(&path), OsString::from(&path)]);
        }
    }
}
