//! Text from strangers: made fit for one log line, one JSON string, one terminal.

use std::fmt::Write as _;

use crate::secret;

/// Cuts `text` to at most `max` bytes, at a character, and marks the cut.
pub(crate) fn cap(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// Drops control characters (NUL first of all, which a backend's database refuses) but for tabs, and cuts
/// out what is secret.
pub(crate) fn clean(text: &str) -> String {
    secret::cut(text).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// A stranger's text, on one line of a terminal: what would be obeyed is dropped, and what would not be
/// seen is written out.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in clean(text).chars() {
        push_visible(&mut shown, c);
    }
    shown
}

/// The same of several lines.
pub(crate) fn shown_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(shown).collect();
    lines.join("\n")
}

/// One line fit to be shown, trimmed and short.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let space = |c: char| if c.is_whitespace() && !is_hidden(c) { ' ' } else { c };
    let spaced: String = text.chars().map(space).collect();
    cap(shown(&spaced).trim(), max)
}

/// JSON that says the same, with nothing in it that a terminal would obey or not show.
pub(crate) fn visible_json(json: &str) -> String {
    let mut visible = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings there is no such character but the end of a line.
        if is_hidden(c) || c.is_control() && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                write!(visible, "\\u{unit:04x}").ok();
            }
        } else {
            visible.push(c);
        }
    }
    visible
}

/// Adds the character, or its number if it would not be seen.
pub(crate) fn push_visible(text: &mut String, c: char) {
    if is_hidden(c) {
        text.extend(c.escape_unicode());
    } else {
        text.push(c);
    }
}

/// Whether it turns the order of what stands around it, begins a line of its own, or is not seen at all:
/// with any of these a text can look like another one.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        // Variants of the character before them; two more choose between text and a small picture.
        | '\u{fe00}'..='\u{fe0d}' | '\u{e0000}'..='\u{e0fff}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in UNITS {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    let value = format!("{value:.1}");
    format!("{} {unit}", value.strip_suffix(".0").unwrap_or(&value))
}

/// What was probably meant: the nearest of `known`, if it is near at all.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(cap("short", 10), "short");
        assert_eq!(cap("aééé", 6), "aé…");
    }

    #[test]
    fn a_stranger_cannot_forge_a_second_log_line() {
        assert_eq!(one_line("a\nERROR forged\0\u{1b}[31m", 100), "a ERROR forged[31m");
    }

    #[test]
    fn what_would_not_be_seen_is_written_out() {
        for (text, told) in [
            ("a\u{202e}b", r"a\u{202e}b"),
            ("a\u{200b}\u{ad}b", r"a\u{200b}\u{ad}b"),
            ("\u{2028}x\u{feff}", r"\u{2028}x\u{feff}"),
            ("\u{e0041}", r"\u{e0041}"),
            ("e\u{fe00}", r"e\u{fe00}"),
            ("Ünïcödé 日本 ✔\u{fe0f} 1\u{202f}000", "Ünïcödé 日本 ✔\u{fe0f} 1\u{202f}000"),
        ] {
            assert_eq!(shown(text), told);
        }
        assert_eq!(one_line("\u{2029}a\u{a0}b\n", 100), r"\u{2029}a b");
        assert_eq!(shown_lines("a\u{1b}\n\u{2066}b"), "a\n\\u{2066}b");
    }

    #[test]
    fn json_says_the_same_when_it_is_made_visible() {
        let value = serde_json::json!({"a\u{202e}": "b\u{e0041}\u{9b}31m\u{7f}", "é": [1]});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let visible = visible_json(&json);
        assert!(visible.contains(r#""a\u202e": "b\udb40\udc41\u009b31m\u007f""#), "{visible}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&visible).unwrap(), value);
    }

    #[test]
    fn a_size_is_told_in_the_unit_that_fits() {
        for (bytes, told) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1 << 30, "1 GiB"),
            (1 << 54, "16384 TiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let known = ["backend", "token-file", "slots"];
        assert_eq!(nearest("bakend", known.into_iter()), Some("backend"));
        assert_eq!(nearest("zzz", known.into_iter()), None);
    }
}
