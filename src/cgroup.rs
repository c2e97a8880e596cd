//! The control groups that this process is in, and where their files are.
//!
//! Both versions are looked at, as a machine may have either or both. A controller is in one of them
//! only, and its files are not there in the other.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The one hierarchy of version 2, which has no list of controllers.
pub(crate) const V2: &str = "";

/// The number in the line `name number`.
pub(crate) fn line_of(stat: &str, name: &str) -> Option<u64> {
    let mut words = stat.lines().filter_map(|line| line.split_once(' '));
    words.find(|(word, _)| *word == name)?.1.trim().parse().ok()
}

/// Where the hierarchies are mounted, and which group of each is ours.
pub(crate) struct Hierarchies {
    mounts: Vec<Mount>,
    /// `/proc/self/cgroup`, or that of whose groups they are.
    ours: String,
}

struct Mount {
    /// Names of version 1's controllers among other options, or [`V2`].
    controllers: String,
    /// The group that is seen at `point`.
    top: PathBuf,
    point: PathBuf,
}

/// Our group, and the one at which the view upwards ends.
pub(crate) struct Chain {
    pub(crate) group: PathBuf,
    pub(crate) top: PathBuf,
}

impl Hierarchies {
    /// `root` is `/`.
    pub(crate) fn read(root: &Path) -> Self {
        Self::of(root, "self")
    }

    /// The groups of another process, as they are seen from here.
    pub(crate) fn of_process(root: &Path, pid: u32) -> Self {
        Self::of(root, &pid.to_string())
    }

    fn of(root: &Path, process: &str) -> Self {
        let text = |name| fs::read_to_string(root.join("proc").join(name)).unwrap_or_default();
        let mounts = text("self/mountinfo");
        let mounts = mounts.lines().filter_map(|line| Mount::parse(line, root)).collect();
        Self { mounts, ours: text(&format!("{process}/cgroup")) }
    }

    pub(crate) fn chain(&self, controller: &str) -> Option<Chain> {
        let path = self.ours.lines().find_map(|line| path_in(line, controller))?;
        let fits = |mount: &&Mount| is_listed(&mount.controllers, controller);
        let mut mounts = self.mounts.iter().filter(fits);
        // In a container the path may be the host's, which is not seen here: then ours is all that
        // is mounted.
        let all = |mount: &Mount| Chain { group: mount.point.clone(), top: mount.point.clone() };
        let seen = mounts.clone().find_map(|mount| mount.chain(Path::new(path)));
        seen.or_else(|| mounts.next().map(all))
    }
}

/// The path in a line such as `4:cpu,cpuacct:/docker/1f`, if it is about that controller.
fn path_in<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    is_listed(controllers, controller).then_some(path)
}

fn is_listed(list: &str, name: &str) -> bool {
    list.split(',').any(|listed| listed == name)
}

impl Mount {
    /// From a line of mountinfo: `32 31 0:29 TOP POINT rw shared:9 - cgroup cgroup rw,memory`.
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let controllers = match system.next()? {
            "cgroup2" => V2,
            "cgroup" => system.nth(1)?,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        let (top, point) = (unescaped(place.next()?), unescaped(place.next()?));
        let point = root.join(point.trim_start_matches('/'));
        Some(Self { controllers: controllers.to_owned(), top: top.into(), point })
    }

    fn chain(&self, path: &Path) -> Option<Chain> {
        let inside = path.strip_prefix(&self.top).ok()?;
        // From within a namespace, groups outside of it are `/../…`.
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let group = self.point.join(inside);
        (is_inside && group.is_dir()).then(|| Chain { group, top: self.point.clone() })
    }
}

impl Chain {
    /// From ours upwards.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Path> {
        self.group.ancestors().take_while(|group| group.starts_with(&self.top))
    }
}

/// mountinfo writes these four as octal numbers, as it has other uses for them.
fn unescaped(path: &str) -> String {
    let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    path.replace("\\134", "\\")
}
