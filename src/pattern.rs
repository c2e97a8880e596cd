//! Patterns of paths, as the shell has them.

/// What a `*` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Star {
    /// Any part of one name; `**` goes over folders.
    OfAName,
    /// Any part of a path, as Hugging Face's tools have it.
    OfAPath,
}

/// Whether it may mean more than the one file that is called so.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// One place of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Char(char),
    /// Any but `/`.
    One,
    /// What stands between `[` and `]`.
    Set(&'a str),
    Many {
        over_folders: bool,
    },
    /// `**/`: nothing, or whatever ends with a `/`.
    Folders,
}

/// Whether the path fits. The time is that of reading the one as often as the other is long.
pub(crate) fn fits(pattern: &str, path: &str, star: Star) -> bool {
    let text: Vec<char> = path.chars().collect();
    // Whether the rest of the pattern fits the rest of the text, by where the latter begins; first of all
    // for the end of the pattern.
    let mut rest = vec![false; text.len() + 1];
    rest[text.len()] = true;
    for part in parts(pattern, star).into_iter().rev() {
        let mut fits = vec![false; text.len() + 1];
        let mut later = false;
        for at in (0..=text.len()).rev() {
            let c = text.get(at).copied();
            let goes_on = |fit: bool| fit && rest.get(at + 1) == Some(&true);
            fits[at] = match part {
                Part::Char(wanted) => goes_on(c == Some(wanted)),
                Part::One => goes_on(c.is_some_and(|c| c != '/')),
                Part::Set(set) => goes_on(c.is_some_and(|c| c != '/' && is_in(set, c))),
                Part::Many { over_folders } => {
                    let may_grow = c.is_some_and(|c| over_folders || c != '/');
                    rest[at] || may_grow && fits[at + 1]
                }
                Part::Folders => {
                    later |= goes_on(c == Some('/'));
                    rest[at] || later
                }
            };
        }
        rest = fits;
    }
    rest[0]
}

fn parts(pattern: &str, star: Star) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (vec![], pattern);
    while let Some(c) = rest.chars().next() {
        let begins_a_name = matches!(parts.last(), None | Some(Part::Char('/') | Part::Folders));
        let (part, length) = match (c, star) {
            ('*', Star::OfAPath) => (Part::Many { over_folders: true }, 1),
            ('*', Star::OfAName) if begins_a_name && rest.starts_with("**/") => (Part::Folders, 3),
            ('*', Star::OfAName) if rest.starts_with("**") => {
                (Part::Many { over_folders: true }, 2)
            }
            ('*', Star::OfAName) => (Part::Many { over_folders: false }, 1),
            ('?', _) => (Part::One, 1),
            ('[', _) => match set(rest) {
                Some(set) => (Part::Set(set), set.len() + 2),
                None => (Part::Char('['), 1),
            },
            (other, _) => (Part::Char(other), other.len_utf8()),
        };
        parts.push(part);
        rest = &rest[length..];
    }
    parts
}

/// What stands between the brackets; a `]` at its beginning is one of the set.
fn set(text: &str) -> Option<&str> {
    let inner = &text[1..];
    let first = if inner.starts_with(['!', '^']) { 2 } else { 1 };
    let skipped: usize = inner.chars().take(first).map(char::len_utf8).sum();
    let end = skipped + inner.get(skipped..)?.find(']')?;
    Some(&inner[..end])
}

fn is_in(set: &str, c: char) -> bool {
    let (negated, set) = match set.strip_prefix(['!', '^']) {
        Some(set) => (true, set),
        None => (false, set),
    };
    let chars: Vec<char> = set.chars().collect();
    let mut rest = chars.as_slice();
    let mut found = false;
    while let [first, more @ ..] = rest {
        (found, rest) = match more {
            ['-', last, more @ ..] => (found || (*first..=*last).contains(&c), more),
            _ => (found || *first == c, more),
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_the_shell_has_it() {
        for (pattern, path, wanted) in [
            ("a.csv", "a.csv", true),
            ("a.csv", "b/a.csv", false),
            ("*.csv", "a.csv", true),
            ("*.csv", "b/a.csv", false),
            ("b/*.csv", "b/a.csv", true),
            ("**", "b/a.csv", true),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "c/b/a.csv", true),
            ("**/a.csv", "ba.csv", false),
            ("c/**", "c/b/a.csv", true),
            ("c/**/a.csv", "c/a.csv", true),
            ("?.csv", "a.csv", true),
            ("?.csv", "/.csv", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("[!", "[!", true),
            ("é*", "éa", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, path, Star::OfAName), wanted, "{pattern} {path}");
        }
        assert!(fits("*.json", "a/b.json", Star::OfAPath));
        assert!(!fits("*.json", "a/b.jsonl", Star::OfAPath));
    }

    #[test]
    fn no_pattern_takes_long() {
        let (pattern, path) = ("*a".repeat(500), "a".repeat(4000) + "b");
        assert!(!fits(&pattern, &path, Star::OfAPath));
    }
}
