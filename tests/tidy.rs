//! The rules of the house, checked on the text of the sources.
//!
//! Which way imports point, how long a file may be, and that the README and the code say the same.
//! What rustfmt, clippy and rustdoc check is left to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top to the bottom. A room may import what stands on a floor below its own, and
/// the ground floor also itself; what else is allowed or forbidden stands in [`EXCEPTIONS`] and [`ONLY`].
const FLOORS: [&[&str]; 6] = [
    &["command", "mock"],
    &["agent"],
    &["backend", "job", "store", "machine", "status"],
    &["runner", "engine"],
    &["process"],
    &[
        "archive", "beneath", "cgroup", "cid", "cli", "clock", "config", "crash", "exit", "fetch",
        "fuzz", "ipfs", "logging", "notify", "pattern", "reading", "retry", "secret", "serve",
        "snapshot", "text", "tls", "upload", "work",
    ],
];

/// Imports between neighbours.
const EXCEPTIONS: [(&str, &str); 2] = [("command", "mock"), ("job", "backend::wire")];

/// Rooms that import these and nothing else. A backend that shared a type with the agent would pass a
/// misspelt field on both sides; an engine that read anything would not be reproducible.
const ONLY: [(&str, &[&str]); 2] =
    [("mock", &["serve", "clock"]), ("engine", &["work", "text", "fuzz"])];

const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the package, such as `src/agent/mod.rs`.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files(folder: &str) -> Vec<Source> {
    let mut folders = vec![root().join(folder)];
    let mut paths: Vec<PathBuf> = vec![];
    while let Some(folder) = folders.pop() {
        // A folder that is not there has no files.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let relative = |path: &Path| {
        let path = path.strip_prefix(root()).expect("the walk begins at the root");
        path.to_str().expect("a source has a plain name").to_owned()
    };
    paths.iter().map(|path| relative(path)).map(|path| Source { text: read(&path), path }).collect()
}

fn all_rust_files() -> Vec<Source> {
    ["src", "tests", "benches"].into_iter().flat_map(rust_files).collect()
}

#[track_caller]
fn none(rule: &str, broken: &[String]) {
    let mut lines = String::new();
    for line in broken {
        write!(lines, "\n  {line}").expect("a String takes all");
    }
    assert!(broken.is_empty(), "{rule}:{lines}");
}

/// `agent` for `src/agent/core/mod.rs` and for `src/agent.rs`.
fn room(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Why `from` must not import `path`, such as `agent::event::Event`; `None` if it may.
fn objection(from: &str, path: &str) -> Option<String> {
    let to = path.split("::").next().unwrap_or(path);
    let is_within = |allowed: &str| path == allowed || path.starts_with(&format!("{allowed}::"));
    if from == to {
        return None;
    }
    if let Some((_, only)) = ONLY.iter().find(|(room, _)| *room == from) {
        return (!only.contains(&to))
            .then(|| format!("`{from}` imports only {}", only.join(" and ")));
    }
    if EXCEPTIONS.iter().any(|(room, allowed)| *room == from && is_within(allowed)) {
        return None;
    }
    let (Some(here), Some(there)) = (floor(from), floor(to)) else {
        return Some("one of them has no floor in tests/tidy.rs".to_owned());
    };
    match here.cmp(&there) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal if here == FLOORS.len() - 1 => None,
        std::cmp::Ordering::Equal => Some(format!("`{to}` is a neighbour, on the same floor")),
        std::cmp::Ordering::Greater => Some(format!("`{to}` is on a floor above")),
    }
}

/// Every path that begins with `crate::`, without it, groups in braces taken apart, with its line.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let code: Vec<&str> = text.lines().map(without_comment).collect();
    let code = code.join("\n");
    let mut found = vec![];
    for (at, _) in code.match_indices("crate::") {
        let is_part = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if !is_part {
            let line = code[..at].matches('\n').count() + 1;
            let paths = tree(&code[at + "crate::".len()..]);
            found.extend(paths.into_iter().map(|path| (line, path)));
        }
    }
    found
}

fn without_comment(line: &str) -> &str {
    let line = if line.trim_start().starts_with("//") { "" } else { line };
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

/// The paths of one use tree: `a::b` for `a::b;`, and `a` and `b::c` for `{a, b::{c}}`.
fn tree(text: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return branches(group).into_iter().flat_map(tree).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return vec![];
    }
    let below = rest.strip_prefix("::").map(tree).unwrap_or_default();
    if below.is_empty() {
        return vec![name.to_owned()];
    }
    below.into_iter().map(|path| format!("{name}::{path}")).collect()
}

/// The parts of a group in braces, which begins after its first one.
fn branches(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, vec![]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn imports_are_read_from_the_text() {
    let text = "use crate::work::Job;\nuse crate::{\n    clock, store::{Phase, Record},\n};\n\
                // crate::not::this\nlet x = crate::text::one_line(y); // nor crate::that\n\
                pub(crate) fn f() {}\nmycrate::other();\nuse crate::{agent::{self, core::Core}};\n";
    let paths: Vec<_> = crate_paths(text).into_iter().map(|(_, path)| path).collect();
    let wanted = [
        "work::Job",
        "clock",
        "store::Phase",
        "store::Record",
        "text::one_line",
        "agent::self",
        "agent::core::Core",
    ];
    assert_eq!(paths, wanted);
}

#[test]
fn the_direction_of_imports_is_judged() {
    for (from, path) in [
        ("command", "agent"),
        ("command", "mock::Backend"),
        ("agent", "store::Store"),
        ("job", "backend::wire"),
        ("job", "backend::wire::Job"),
        ("job", "process::Child"),
        ("config", "cli"),
        ("mock", "serve::Request"),
    ] {
        assert_eq!(objection(from, path), None, "{from} → {path}");
    }
    for (from, path) in [
        ("agent", "command::run"),
        ("agent", "mock"),
        ("job", "backend::Backend"),
        ("job", "backend::wired"),
        ("store", "job"),
        ("work", "engine"),
        ("mock", "backend::wire"),
        ("mock", "text"),
        ("engine", "clock"),
        ("process", "a_room_without_a_floor"),
    ] {
        assert_ne!(objection(from, path), None, "{from} → {path}");
    }
}

#[test]
fn every_room_has_one_floor() {
    let lib = read("src/lib.rs");
    let declared = lib.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let mut rooms: Vec<&str> = declared.collect();
    let mut floors: Vec<&str> = FLOORS.iter().flat_map(|rooms| rooms.iter().copied()).collect();
    rooms.sort_unstable();
    floors.sort_unstable();
    assert_eq!(rooms, floors, "the modules of src/lib.rs, and FLOORS in tests/tidy.rs");
}

#[test]
fn imports_point_down() {
    let mut broken = vec![];
    for Source { path, text } in rust_files("src") {
        if path == "src/lib.rs" || path == "src/main.rs" {
            continue;
        }
        for (line, import) in crate_paths(&text) {
            if let Some(why) = objection(room(&path), &import) {
                broken.push(format!("{path}:{line}: crate::{import}: {why}"));
            }
        }
    }
    none("imports point down, see the code map in src/lib.rs", &broken);
}

/// Time comes as an argument and effects leave as values, or the loop could block, fail, or decide
/// otherwise in its tests.
#[test]
fn the_core_of_the_agent_is_pure() {
    const ROOMS: [&str; 9] =
        ["agent", "backend", "config", "exit", "job", "retry", "snapshot", "text", "work"];
    const IMPURE: [&str; 8] = [
        "std::fs",
        "std::io",
        "std::net",
        "std::process",
        "std::sync",
        "std::thread",
        "Instant",
        "SystemTime",
    ];
    let mut broken = vec![];
    for Source { path, text } in rust_files("src/agent/core") {
        for (line, import) in crate_paths(&text) {
            if !ROOMS.iter().any(|room| import.split("::").next() == Some(room)) {
                broken.push(format!("{path}:{line}: crate::{import}"));
            }
        }
        for (line, code) in text.lines().map(without_comment).enumerate() {
            for impure in IMPURE.iter().filter(|impure| code.contains(**impure)) {
                broken.push(format!("{path}:{}: {impure}", line + 1));
            }
        }
    }
    none("agent::core takes the time as an argument and does nothing itself", &broken);
}

#[test]
fn a_room_names_another_by_its_full_path() {
    let mut broken = vec![];
    for Source { path, text } in rust_files("src") {
        let is_top = path.matches('/').count() == 1
            || path.matches('/').count() == 2 && path.ends_with("/mod.rs");
        for (line, code) in text.lines().enumerate() {
            let leaves = code.contains("super::super") || is_top && code.starts_with("use super::");
            if leaves {
                broken.push(format!("{path}:{}: {}", line + 1, code.trim()));
            }
        }
    }
    none(
        "`super` stays in its room; another one is named by `crate::…`, so that its direction is seen",
        &broken,
    );
}

#[test]
fn every_source_begins_by_saying_what_it_is_for() {
    let sources = rust_files("src").into_iter().filter(|source| source.path != "src/main.rs");
    let mute = sources.filter(|source| !source.text.starts_with("//! "));
    none("a source begins with `//! `", &mute.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    let lengths =
        all_rust_files().into_iter().map(|source| (source.text.lines().count(), source.path));
    let long = lengths.filter(|(lines, _)| *lines > MAX_LINES);
    let long: Vec<_> = long.map(|(lines, path)| format!("{path}: {lines} lines")).collect();
    none(&format!("a file of more than {MAX_LINES} lines has two subjects: split it"), &long);
}

#[test]
fn nothing_is_left_open_or_switched_off() {
    // Written in two halves, so that this file does not find itself.
    let forbidden = [
        (concat!("TO", "DO"), "an open point is an issue"),
        (concat!("FIX", "ME"), "an open point is an issue"),
        (concat!("db", "g!("), "left over from debugging"),
        (concat!("to", "do!("), "not written yet"),
        (concat!("unimple", "mented!("), "not written yet"),
        (concat!("#[ig", "nore"), "a test that does not run tests nothing"),
        (concat!("#[should_", "panic"), "assert on the value or the error instead"),
        (concat!("thread::", "sleep"), "wait for the thing itself, with a deadline"),
    ];
    let mut broken = vec![];
    for Source { path, text } in all_rust_files() {
        for (line, code) in text.lines().enumerate() {
            for (what, why) in forbidden.iter().filter(|(what, _)| code.contains(what)) {
                broken.push(format!("{path}:{}: {what}: {why}", line + 1));
            }
        }
    }
    none("none of these stays in the code", &broken);
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let headed = |what: &str| changelog.contains(&format!("\n## [{what}]"));
    assert!(
        headed("Unreleased") || headed(version),
        "CHANGELOG.md has neither a section [Unreleased] nor one [{version}]"
    );
}

/// The settings of `src/cli/settings.rs` with the default that their help states.
fn settings() -> BTreeMap<String, Option<String>> {
    let cli = read("src/cli/settings.rs");
    let (_, table) = cli.split_once("SETTINGS: &[Setting] = &[").expect("it has the settings");
    let (table, _) = table.split_once("\n];").expect("the settings end");
    // One entry ends where the next begins; each is a constructor with texts as arguments.
    let entries = table.split("\n    s").skip(1);
    let settings = entries.map(|entry| {
        let key = entry.split('"').nth(1).expect("a setting has a key");
        let default = entry.split_once("[default: ").and_then(|(_, rest)| rest.split_once("]\""));
        (key.to_owned(), default.map(|(default, _)| default.to_owned()))
    });
    settings.collect()
}

#[test]
fn the_readme_has_a_row_for_every_setting() {
    let readme = read("README.md").replace(['`', '\\'], "");
    let settings = settings();
    assert!(
        settings.len() > 15,
        "the settings of src/cli/settings.rs were not understood: {settings:?}"
    );
    let mut broken = vec![];
    for (key, default) in settings {
        let Some(row) = readme.lines().find(|line| line.starts_with(&format!("| --{key} "))) else {
            broken.push(format!("no row begins with `--{key}`"));
            continue;
        };
        let variable = format!("WORKER_{}", key.replace('-', "_").to_uppercase());
        for wanted in [Some(variable), default].into_iter().flatten() {
            if !row.contains(&wanted) {
                broken.push(format!("the row of --{key} does not say: {wanted}"));
            }
        }
    }
    none("README.md and the settings of src/cli/settings.rs differ", &broken);
}

#[test]
fn the_readme_has_a_row_for_every_exit_code() {
    let readme = read("README.md");
    let exits = read("src/exit.rs");
    let codes = exits.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    let codes: Vec<_> = codes.map(|(name, code)| (code.to_owned(), name.to_owned())).collect();
    assert!(codes.len() > 4, "the codes of src/exit.rs were not understood: {codes:?}");
    let missing = codes.iter().filter(|(code, _)| !readme.contains(&format!("\n| {code} | ")));
    let missing: Vec<_> = missing.map(|(code, name)| format!("{code} ({name})")).collect();
    none("README.md lacks a row for these exit codes", &missing);
}

#[test]
fn the_readme_gives_a_reason_for_every_dependency() {
    let readme = read("README.md");
    let manifest = read("Cargo.toml");
    let (_, table) = manifest.split_once("\n[dependencies]\n").expect("there are dependencies");
    let table = table.split("\n[").next().unwrap_or(table);
    let names = table.lines().filter(|line| !line.starts_with('#'));
    let names = names.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let missing = names.filter(|name| !readme.contains(&format!("\n| `{name}`")));
    let missing: Vec<_> = missing.map(str::to_owned).collect();
    none("README.md's table of dependencies lacks these", &missing);
}

#[test]
fn the_same_warning_stands_wherever_strangers_programs_are_allowed() {
    let words = |text: &str| {
        let words = text.split_whitespace().filter(|word| !matches!(*word, ">" | "\\"));
        words.collect::<Vec<_>>().join(" ")
    };
    let page = words(&read("docs/threat-model.md"));
    let warning = page.find("These jobs are programs of strangers.").map(|at| &page[at..]);
    let warning = warning.and_then(|rest| rest.split_inclusive("cannot lose.").next());
    let warning = warning.expect("docs/threat-model.md has the warning");
    for path in ["README.md", "src/cli/settings.rs"] {
        assert!(words(&read(path)).contains(warning), "{path} does not say: {warning}");
    }
}
