//! The machine itself: its GPUs and their driver, whether it falls asleep, what its kernel allows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Check;
use crate::config::Identity;
use crate::machine::{Absence, Gpus, watch};

/// How long the driver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const NVIDIA: &str = "0x10de";

pub(super) fn gpus(identity: &Identity, root: &Path) -> Check {
    let library = identity.nvml_library.as_deref();
    let seen = watch(library, ANSWER_WITHIN).wait_first(ANSWER_WITHIN);
    judge_gpus(&seen, library, root)
}

fn judge_gpus(seen: &Gpus, library: Option<&Path>, root: &Path) -> Check {
    let name = "gpu";
    match (&seen.absence, library) {
        (None, _) => {
            let names = seen.specs.iter().map(|gpu| gpu.name.as_deref().unwrap_or("of no name"));
            Check::ok(
                name,
                format!("{}: {}", seen.specs.len(), names.collect::<Vec<_>>().join(", ")),
            )
        }
        (Some(Absence::Trouble(why)), _) => Check::fail(
            name,
            why.clone(),
            "look at `nvidia-smi` and `dmesg | grep -i nvrm`; after an update of the driver, reboot",
        ),
        (Some(Absence::NoGpu(why)), Some(library)) => Check::fail(
            name,
            why.clone(),
            format!(
                "give the path of libnvidia-ml.so.1 instead of {}, or leave --nvml-library out",
                library.display()
            ),
        ),
        (Some(Absence::NoGpu(why)), None) => without_driver(why, root),
    }
}

fn without_driver(why: &str, root: &Path) -> Check {
    let name = "gpu";
    if root.join("proc/driver/nvidia/version").exists() {
        return Check::fail(
            name,
            format!("the driver's kernel part is loaded, but not its library: {why}"),
            "install the driver's libnvidia-ml1, or say where it is: --nvml-library PATH; in a container, start it \
             with --gpus all",
        );
    }
    match nvidia_device(root) {
        Some(place) => Check::fail(
            name,
            format!("there is an NVIDIA GPU at {place}, and no driver: {why}"),
            "install NVIDIA's driver (Debian: nvidia-driver, Ubuntu: ubuntu-drivers install), reboot, try nvidia-smi",
        ),
        None => Check::ok(name, "none"),
    }
}

/// Where on the bus a display adapter of NVIDIA's is.
fn nvidia_device(root: &Path) -> Option<String> {
    let devices = fs::read_dir(root.join("sys/bus/pci/devices")).ok()?;
    let is_gpu = |device: &fs::DirEntry| {
        let read = |name| fs::read_to_string(device.path().join(name)).unwrap_or_default();
        read("vendor").trim() == NVIDIA && read("class").starts_with("0x03")
    };
    let device = devices.flatten().find(is_gpu)?;
    Some(device.file_name().to_string_lossy().into_owned())
}

/// Whether the machine goes to sleep when nobody touches it, in the middle of a job.
pub(super) fn sleep(root: &Path) -> Check {
    let name = "sleep";
    let masked = fs::read_link(root.join("etc/systemd/system/sleep.target"));
    if masked.is_ok_and(|to| to == Path::new("/dev/null")) {
        return Check::ok(name, "it never sleeps: sleep.target is masked");
    }
    match idle_action(root) {
        Some(action) if action != "ignore" && action != "lock" => Check::warn(
            name,
            format!("logind ends in `{action}` when nobody touches the machine, jobs or not"),
            "systemctl mask sleep.target, or IdleAction=ignore in /etc/systemd/logind.conf",
        ),
        _ => Check::ok(name, "logind does not put it to sleep"),
    }
}

/// The last word of logind's settings.
fn idle_action(root: &Path) -> Option<String> {
    let dirs = ["usr/lib/systemd/logind.conf.d", "etc/systemd/logind.conf.d"];
    let mut files = vec![root.join("etc/systemd/logind.conf")];
    for dir in dirs {
        let mut found: Vec<_> = fs::read_dir(root.join(dir))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        found.sort();
        files.extend(found);
    }
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let mut words = texts.filter_map(|text| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("IdleAction="));
        lines.next_back().map(|action| action.trim().to_owned())
    });
    words.next_back()
}

/// Whether an ordinary program may make a user namespace, as sandboxes do.
pub(super) fn namespaces(root: &Path) -> Check {
    let why = closed_namespaces(root);
    let told = why.map_or_else(|| "programs may make them".into(), |why| format!("closed: {why}"));
    Check::ok("namespaces", told)
}

/// What keeps programs from making user namespaces, if anything does.
pub(super) fn closed_namespaces(root: &Path) -> Option<&'static str> {
    let is = |path: &str, value: &str| {
        fs::read_to_string(root.join(path)).is_ok_and(|text| text.trim() == value)
    };
    let why = [
        ("proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
        ),
    ];
    why.iter().find(|(path, value, _)| is(path, value)).map(|(_, _, why)| *why)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the kernel and the owner")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::command::doctor::Verdict;

    /// A made-up machine.
    fn world(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    /// What is wrong and how to put it right.
    fn finding(check: Check) -> (String, String) {
        match check.verdict {
            Verdict::Ok(told) => panic!("{told}"),
            Verdict::Warn { what, fix } | Verdict::Fail { what, fix } => (what, fix),
        }
    }

    fn absent(absence: Absence) -> Gpus {
        Gpus { absence: Some(absence), ..Gpus::default() }
    }

    #[test]
    fn an_nvidia_gpu_without_a_driver_is_found_on_the_bus() {
        let seen = absent(Absence::NoGpu("no NVIDIA driver".into()));
        let bus = "sys/bus/pci/devices";
        let world = world(&[
            (&format!("{bus}/0000:00:1f.3/vendor"), "0x10de\n"),
            (&format!("{bus}/0000:00:1f.3/class"), "0x040300\n"),
        ]);
        let check = || judge_gpus(&seen, None, world.path());
        assert_eq!(check(), Check::ok("gpu", "none"), "its sound is no GPU");
        let gpu = world.path().join(bus).join("0000:01:00.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(gpu.join("vendor"), "0x10de\n").unwrap();
        fs::write(gpu.join("class"), "0x030000\n").unwrap();
        let (what, fix) = finding(check());
        assert_eq!(what, "there is an NVIDIA GPU at 0000:01:00.0, and no driver: no NVIDIA driver");
        assert!(fix.starts_with("install NVIDIA's driver"), "{fix}");
    }

    #[test]
    fn half_a_driver_and_one_that_has_trouble_are_told_apart() {
        let world = world(&[("proc/driver/nvidia/version", "NVRM version: 570")]);
        let none = absent(Absence::NoGpu("no NVIDIA driver".into()));
        let (what, fix) = finding(judge_gpus(&none, None, world.path()));
        assert!(what.contains("but not its library"), "{what}");
        assert!(fix.contains("libnvidia-ml1"), "{fix}");
        let trouble = absent(Absence::Trouble("driver/library version mismatch".into()));
        let (what, fix) = finding(judge_gpus(&trouble, None, world.path()));
        assert_eq!(what, "driver/library version mismatch");
        assert!(fix.contains("reboot"), "{fix}");
    }

    #[test]
    fn a_machine_that_falls_asleep_when_nobody_touches_it_is_a_finding() {
        let is_ok = |root: &Path| matches!(sleep(root).verdict, Verdict::Ok(_));
        assert!(is_ok(world(&[]).path()));
        let main = "etc/systemd/logind.conf";
        assert!(is_ok(world(&[(main, "[Login]\n#IdleAction=suspend\n")]).path()));
        let over = "etc/systemd/logind.conf.d/50-idle.conf";
        let asleep = [(main, "IdleAction=ignore\n"), (over, "IdleAction=suspend\n")];
        let world = world(&asleep);
        let (what, fix) = finding(sleep(world.path()));
        assert!(what.contains("`suspend`") && fix.contains("mask sleep.target"), "{what}: {fix}");
        let target = world.path().join("etc/systemd/system/sleep.target");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        symlink("/dev/null", target).unwrap();
        assert!(is_ok(world.path()), "what it says helps");
    }

    #[test]
    fn what_keeps_sandboxes_from_being_made_is_named() {
        let closed = |path, value| {
            let world = world(&[(path, value)]);
            closed_namespaces(world.path())
        };
        assert_eq!(closed("proc/sys/user/max_user_namespaces", "31000\n"), None);
        assert!(closed("proc/sys/user/max_user_namespaces", "0\n").is_some());
        assert!(closed("proc/sys/kernel/unprivileged_userns_clone", "0\n").is_some());
        let ubuntu = "proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        assert_eq!(
            closed(ubuntu, "1\n"),
            Some("kernel.apparmor_restrict_unprivileged_userns is 1")
        );
    }
}
