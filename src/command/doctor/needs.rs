//! What each kind of job needs of the machine: a kind that comes later adds its line in [`needs`].

use std::path::Path;

use super::Check;
use super::machine::closed_namespaces;
use super::service::groups;
use crate::cli;
use crate::config::{Jobs, on_path};
use crate::runner::{self, Found};
use crate::work::Kind;

/// Something that is missing, and how to get it.
type Missing = (String, String);

/// One check a kind that may run here.
pub(super) fn checks(jobs: &Jobs, state_dir: &Path, root: &Path) -> Vec<Check> {
    let groups = groups(root);
    let check =
        |kind: &Kind| judge(*kind, &needs(*kind, jobs, root), jobs, state_dir, groups.clone());
    jobs.kinds.iter().map(check).collect()
}

fn judge(
    kind: Kind,
    missing: &[Missing],
    jobs: &Jobs,
    state_dir: &Path,
    groups: Result<(), String>,
) -> Check {
    let name = format!("{} jobs", kind.name());
    if let Some((what, fix)) = missing.first() {
        return Check::fail(name, what.clone(), fix.clone());
    }
    let found = Found::look(&[kind], jobs, cli::LIMIT, state_dir, groups);
    match runner::works(kind, jobs, &found) {
        Ok(()) => Check::ok(name, "all that they need is here"),
        Err(why) => Check::fail(name, why, format!("leave {} out of --allow", kind.name())),
    }
}

/// What is missing for it.
fn needs(kind: Kind, jobs: &Jobs, root: &Path) -> Vec<Missing> {
    match kind {
        // The engine is in this binary.
        Kind::Training | Kind::Inference | Kind::FineTuning | Kind::Compute => vec![],
        Kind::Script => {
            let sandbox = [program(&["bwrap"], "bubblewrap"), namespaces(root)];
            let interpreters = jobs.interpreters.iter().map(|name| program(&[name.as_str()], name));
            sandbox.into_iter().chain(interpreters).flatten().collect()
        }
        // The one that is asked for says itself what is wrong with it.
        Kind::Container if jobs.containers.engine.is_some() => vec![],
        Kind::Container => program(&["podman", "docker"], "podman").into_iter().collect(),
    }
}

/// One of these has to be found where programs are.
fn program(names: &[&str], package: &str) -> Option<Missing> {
    if names.iter().any(|name| on_path(name).is_some()) {
        return None;
    }
    Some((format!("{} is not installed", names.join(" or ")), format!("apt install {package}")))
}

fn namespaces(root: &Path) -> Option<Missing> {
    let why = closed_namespaces(root)?;
    let setting = why.split(' ').next().unwrap_or(why);
    let open = if setting.contains("apparmor") { "0" } else { "1" };
    let open = if setting.contains("max_") { "15000" } else { open };
    Some((
        format!("sandboxes cannot be made, since {why}"),
        format!("sysctl {setting}={open}, and a line in /etc/sysctl.d to keep it"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Verdict;

    #[test]
    fn the_engine_needs_nothing_and_a_kind_that_lacks_something_says_what() {
        let jobs = Jobs::default();
        for check in checks(&jobs, Path::new("/state"), Path::new("/nowhere")) {
            assert!(matches!(check.verdict, Verdict::Ok(_)), "{check:?}");
        }
        let missing = [("bwrap is not installed".into(), "apt install bubblewrap".into())];
        let check = judge(Kind::Script, &missing, &jobs, Path::new("/state"), Ok(()));
        assert_eq!(
            check,
            Check::fail("script jobs", "bwrap is not installed", "apt install bubblewrap")
        );
    }

    #[test]
    fn a_closed_door_to_namespaces_is_opened_by_the_setting_that_closed_it() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc/sys/user");
        std::fs::create_dir_all(&proc).unwrap();
        assert_eq!(namespaces(root.path()), None);
        crate::store::replace(&proc.join("max_user_namespaces"), b"0\n").unwrap();
        let (_, fix) = namespaces(root.path()).unwrap();
        assert!(fix.starts_with("sysctl user.max_user_namespaces=15000,"), "{fix}");
    }
}
