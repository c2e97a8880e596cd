//! A text that never shows: not in a log, an error or a `{:?}`, and not when somebody sends it back.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// What stands in its place.
const CUT: &str = "[secret]";

/// What is shorter may be any word, and where it was cut out would tell it.
const SHORTEST: usize = 6;

/// Every form in which a secret of ours can come back. Few are ever added, none is removed: a token that
/// was renewed is still one.
static KNOWN: RwLock<Vec<String>> = RwLock::new(vec![]);

/// Holds a credential; [`Secret::expose`] is the one way to its text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        hide(&text);
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// From now on this text is cut out of whatever is stored or shown, also as it stands in a URL or in a
/// header.
pub(crate) fn hide(text: &str) {
    if text.len() < SHORTEST {
        return;
    }
    let base64 = [STANDARD.encode(text), URL_SAFE.encode(text)];
    let base64 = base64.iter().map(|form| form.trim_end_matches('=').to_owned());
    let percent = percent_encoded(text);
    let forms = base64.chain([percent.to_lowercase(), percent, text.to_owned()]);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for form in forms {
        if !known.contains(&form) {
            known.push(form);
        }
    }
    // One may be a part of another.
    known.sort_by_key(|form| Reverse(form.len()));
}

/// The name and password in a proxy's URL, together and the password by itself.
pub(crate) fn hide_proxy(url: &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((login, _)) = place.rsplit_once('@') else { return };
    let plain = percent_decoded(login);
    for login in [login, &plain] {
        hide(login);
        hide(login.split_once(':').map_or("", |(_, password)| password));
    }
}

/// The text without any secret.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut kept = Cow::Borrowed(text);
    for form in known.iter() {
        if kept.contains(form.as_str()) {
            kept = Cow::Owned(kept.replace(form.as_str(), CUT));
        }
    }
    kept
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_cut_out_in_each_of_its_forms() {
        hide("t0k/en+of us");
        for (said, kept) in [
            ("Bearer t0k/en+of us.", "Bearer [secret]."),
            ("a=t0k%2Fen%2Bof%20us", "a=[secret]"),
            ("dDBrL2VuK29mIHVz t0k/en", "[secret] t0k/en"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(cut(said), kept);
        }
    }

    #[test]
    fn a_proxys_login_is_cut_out_alone_and_as_a_header_has_it() {
        hide_proxy("http://someone:p%40ss-w0rd@proxy.example:3128/");
        for (said, kept) in [
            ("http://someone:p%40ss-w0rd@proxy", "http://[secret]@proxy"),
            ("p@ss-w0rd", "[secret]"),
            ("Basic c29tZW9uZTpwQHNzLXcwcmQ=", "Basic [secret]="),
        ] {
            assert_eq!(cut(said), kept);
        }
        hide_proxy("http://proxy.example:3128");
        assert_eq!(cut("proxy.example:3128"), "proxy.example:3128");
    }

    #[test]
    fn a_short_word_is_not_hunted_for() {
        hide("pass");
        assert_eq!(cut("bypass"), "bypass");
    }
}
