//! Bytes from a pipe, cut into lines of bounded length.

/// The longest line that is kept; the rest of it is dropped.
const LINE_MAX: usize = 4096;

/// The line being read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// More than nothing was read since the last line's end, though `line` may be full.
    open: bool,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_MAX - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.open = true;
            if ended {
                self.end(sink);
            }
        }
    }

    /// Hands the line on, if there is one.
    pub(super) fn end(&mut self, sink: &mut dyn FnMut(&str)) {
        if self.open {
            sink(String::from_utf8_lossy(&self.line).trim_end_matches('\r'));
        }
        self.line.clear();
        self.open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::default(), vec![]);
        for piece in pieces {
            lines.push(piece, &mut |line| seen.push(line.to_owned()));
        }
        lines.end(&mut |line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        assert_eq!(lines(&[b"one\r\ntw", b"o\n\nthr", b"ee"]), ["one", "two", "", "three"]);
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_its_share_of_memory() {
        let long = vec![b'x'; 1 << 20];
        let seen = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 4]);
    }
}
