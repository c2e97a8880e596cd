//! What images are called, which of them the owner allows, and which are not run.

use std::path::{Component, Path};

use super::engine::Speech;

/// The full name of an image: engines look short ones up in different places.
pub(crate) fn full_name(image: &str) -> String {
    let named = image.split_once('/').filter(|(host, _)| is_host(host)).is_some();
    let full = match (named, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    let last = full.rsplit('/').next().unwrap_or(&full);
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

/// Whether the owner allows it: by its full name, or as it is written.
pub(crate) fn is_allowed(image: &str, patterns: &[String]) -> bool {
    let full = full_name(image);
    let has_host = image.split_once('/').is_some_and(|(host, _)| is_host(host));
    let mut patterns = patterns.iter().filter(|pattern| !has_host || names_host(pattern));
    patterns.any(|pattern| fits(&full, pattern) || fits(image, pattern))
}

/// What the kernel shows there is no image's to replace, nor to begin in: a folder of `/proc` may be one of the
/// runtime's own files.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Why an image with these volumes and this working directory is not run.
pub(super) fn objection<'a>(
    volumes: impl Iterator<Item = &'a str>,
    dir: &str,
    speech: Speech,
) -> Option<String> {
    if is_kernels(dir) {
        return Some(format!("begins in {}: give it another WORKDIR", shown(dir)));
    }
    for volume in volumes {
        if is_kernels(volume) || names(volume).is_empty() {
            return Some(format!("has {} as its volume: build it without", shown(volume)));
        }
        if speech == Speech::Docker {
            return Some(
                "has volumes, which this worker's engine would not bound: build it without VOLUME"
                    .into(),
            );
        }
    }
    None
}

fn shown(path: &str) -> String {
    crate::text::one_line(path, 100)
}

/// Whether a path leads to what the kernel shows, however it is written.
fn is_kernels(path: &str) -> bool {
    let names = names(path);
    KERNELS.iter().any(|kernels| names.first() == Some(&kernels[1..].as_ref()))
}

/// The names of a path from the root on.
fn names(path: &str) -> Vec<&std::ffi::OsStr> {
    let mut names = vec![];
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

/// Else `python*` would let in what is at `python.evil.io`, and `python:*` what is at `python:5000`.
fn names_host(pattern: &str) -> bool {
    pattern.starts_with('*') || pattern.split_once('/').is_some_and(|(host, _)| is_host(host))
}

/// `*` in a pattern is any text.
fn fits(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_wants_what_is_the_kernels_is_not_run() {
        let told = |volumes: &[&str], dir| objection(volumes.iter().copied(), dir, Speech::Podman);
        for dir in
            ["/proc/self/fd/8", "/proc", "//proc/", "/a/../proc/1", "proc/self", "/sys/fs", "/dev"]
        {
            assert!(told(&[], dir).unwrap().starts_with("begins in "), "{dir}");
        }
        for volume in ["/proc", "/", "", "/.", "/a/..", "/sys/fs/cgroup", "/dev/shm"] {
            assert!(told(&["/data", volume], "/").unwrap().starts_with("has "), "{volume}");
        }
        for (volume, dir) in [("/data", "/app"), ("/process", "/var/proc"), ("/a/proc", "")] {
            assert_eq!(told(&[volume], dir), None, "{volume} {dir}");
        }
        let docker = objection(["/data"].into_iter(), "/", Speech::Docker);
        assert!(docker.unwrap().starts_with("has volumes, "));
    }

    #[test]
    fn every_image_has_one_full_name() {
        for (image, full) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.12", "docker.io/library/python:3.12"),
            ("acme/tool", "docker.io/acme/tool:latest"),
            ("localhost/busybox", "localhost/busybox:latest"),
            ("ghcr.io/a/b@sha256:0a", "ghcr.io/a/b@sha256:0a"),
            ("registry:5000/a", "registry:5000/a:latest"),
        ] {
            assert_eq!(full_name(image), full);
        }
    }

    #[test]
    fn an_owners_pattern_is_held_against_the_name_as_written_and_in_full() {
        let allowed = |image, patterns: &[&str]| {
            is_allowed(image, &patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        };
        for pattern in
            ["*", "python:*", "docker.io/library/*", "*:3.12", "d*/l*/python:*2", "python:3.12"]
        {
            assert!(allowed("python:3.12", &[pattern]), "{pattern}");
        }
        for pattern in
            ["", "python", "docker.io/library/python", "*:3.11", "ghcr.io/*", "p*3.12*3.12"]
        {
            assert!(!allowed("python:3.12", &[pattern]), "{pattern}");
        }
        assert!(!allowed("python:3.12", &[]));
        for pattern in ["python*", "python:*", "py*/*"] {
            assert!(!allowed("python.evil.io/a", &[pattern]), "{pattern}");
            assert!(!allowed("python:5000/a", &[pattern]), "{pattern}");
        }
        assert!(allowed("ghcr.io/a/b", &["ghcr.io/a/b"]));
        assert!(!allowed("evil.io/docker.io/library/python", &["docker.io/library/*"]));
    }
}
