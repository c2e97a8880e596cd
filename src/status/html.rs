//! Text made fit for HTML, and numbers as the page writes them.

use crate::{secret, text};

/// Text as it stands between tags or in a quoted attribute, all of it to be seen.
pub(super) fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in secret::cut(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => text::push_visible(&mut safe, c),
        }
    }
    safe
}

/// Puts values in the place of `{{name}}`. They are not looked at again: nothing in them is a name.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        debug_assert!(value.is_some(), "the page has no value for {name}");
        filled.extend(value.map(|(_, value)| value.as_str()));
        filled.push_str(rest);
    }
    filled
}

/// A number of `status.json`: `path` tells where it stands there, as a JSON pointer.
pub(super) fn data(path: &str, value: impl ToString, shown: &str) -> String {
    format!(
        "<data value=\"{}\" data-json=\"{}\">{}</data>",
        value.to_string(),
        esc(path),
        esc(shown)
    )
}

/// With so many digits behind the point, and the thousands apart.
pub(super) fn number(value: f64, digits: usize) -> String {
    let plain = format!("{:.digits$}", value.abs());
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut apart = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            // Narrow, and no line breaks there.
            apart.push('\u{202f}');
        }
        apart.push(digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{apart}{rest}")
}

/// A time span for people, in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no span is longer"
    )]
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, 1..=9) => format!("{minutes} min {} s", seconds % 60),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_become_a_tag_or_leave_its_attribute() {
        assert_eq!(
            esc("<script>alert('x')</script> & \"y\""),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"
        );
        assert_eq!(esc("a\u{202e}\nb"), "a\\u{202e}\nb");
    }

    #[test]
    fn a_value_with_a_name_in_it_is_not_filled_again() {
        let values = [("a", "{{b}}".to_owned()), ("b", "secret".to_owned())];
        assert_eq!(fill("1{{a}}2{{b}}3", &values), "1{{b}}2secret3");
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (value, digits, told) in [
            (0.0, 0, "0"),
            (999.5, 1, "999.5"),
            (1234.0, 0, "1\u{202f}234"),
            (1_234_567.891, 2, "1\u{202f}234\u{202f}567.89"),
            (-1.25, 2, "−1.25"),
        ] {
            assert_eq!(number(value, digits), told);
        }
    }

    #[test]
    fn spans_have_at_most_two_units() {
        for (seconds, told) in [
            (0.0, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (754.0, "12 min"),
            (3_725.0, "1 h 2 min"),
            (100_000.0, "1 d 3 h"),
        ] {
            assert_eq!(span(seconds), told);
        }
    }
}
