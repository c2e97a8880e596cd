//! Text from strangers: made fit for one log line, one JSON string, one terminal.

/// Cuts `text` to at most `max` bytes, at a character, and marks the cut.
pub(crate) fn cap(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// Drops control characters (NUL first of all, which a backend's database refuses) but for tabs.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// One line fit to be shown: cleaned, trimmed and short.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let spaced: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    cap(clean(&spaced).trim(), max)
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
