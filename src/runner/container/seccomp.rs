//! Podman lets whatever runs in a container make namespaces of its own, in which it has every privilege to
//! try the kernel with. No job needs that: its rules are made as strict as docker's are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What is taken from what is allowed without a capability.
const REFUSED: [&str; 22] = [
    "add_key",
    "clone",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "process_madvise",
    "request_key",
    "setns",
    "umount",
    "umount2",
    "unshare",
];

/// What makes a namespace, among what `clone` is asked for.
const NAMESPACES: u32 = 0x7e02_0000;

/// A container without privilege gets EPERM, and no hint that the call is unknown.
const EPERM: u32 = 1;

/// So that `clone`, whose flags can be looked at, is tried in its place.
const ENOSYS: u32 = 38;

/// The engine's rules, made stricter. Nothing where it has them in no file.
pub(super) fn stricter(file: &str) -> Result<Option<String>, String> {
    if !Path::new(file).is_absolute() {
        return Ok(None);
    }
    let told = |error: &dyn std::fmt::Display| format!("its rules in {file} are unusable: {error}");
    let text = fs::read_to_string(file).map_err(|error| told(&error))?;
    let mut rules: Value = serde_json::from_str(&text).map_err(|error| told(&error))?;
    let groups = rules["syscalls"].as_array_mut().ok_or_else(|| told(&"no syscalls"))?;
    for group in groups.iter_mut() {
        if let Some(names) = group["names"].as_array_mut() {
            names.retain(|name| !name.as_str().is_some_and(|name| REFUSED.contains(&name)));
        }
    }
    groups.retain(|group| group["names"].as_array().is_some_and(|names| !names.is_empty()));
    let refused: Vec<_> = REFUSED.iter().filter(|name| !name.starts_with("clone")).collect();
    groups.extend([
        json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
        ]}),
    ]);
    Ok(Some(rules.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_makes_a_namespace_is_taken_from_the_rules() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.json");
        let rules = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "unshare", "clone", "clone3"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        ]});
        fs::File::create(&file).unwrap().write_all(rules.to_string().as_bytes()).unwrap();
        let stricter = stricter(file.to_str().unwrap()).unwrap().unwrap();
        let stricter: Value = serde_json::from_str(&stricter).unwrap();
        let groups = stricter["syscalls"].as_array().unwrap();
        assert_eq!(groups[0], json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"}));
        assert_eq!(groups.len(), 4);
        let allowed = groups.iter().filter(|group| group["action"] == "SCMP_ACT_ALLOW");
        let bare = |group: &&Value| group["args"].is_null();
        assert_eq!(allowed.filter(bare).count(), 1, "clone only without a namespace: {groups:?}");
        assert_eq!(stricter["defaultAction"], "SCMP_ACT_ERRNO");
    }

    #[test]
    fn rules_that_cannot_be_read_are_no_rules() {
        assert_eq!(stricter(""), Ok(None));
        assert!(stricter("/nowhere/rules.json").unwrap_err().contains("/nowhere/rules.json"));
    }
}
