//! JSON read as it comes, in constant memory: a reply may be large, and little of it matters.
//!
//! What is stepped over is looked at no closer than it takes to find its end. What is kept is JSON only
//! if whoever parses it finds that it is.

use std::io::{self, BufRead};

/// The longest name of a field; a longer one is told as an empty one.
const NAME_MAX: u64 = 256;

/// So much of a text that is not kept can be looked at to be shown; see `START` of the reply.
const SHOWN: usize = 64 << 10;

/// What a value takes in memory beside its text, and what an object takes.
const VALUE_COST: u64 = 32;
const OBJECT_COST: u64 = 640;

/// Why reading ended too early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Syntax(&'static str),
}

/// A value's text, kept as long as parsing it takes no more memory than it may; the cost is counted on.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    cost: u64,
    most: u64,
}

impl Kept {
    pub(crate) fn new(most: u64) -> Self {
        Self { bytes: vec![], cost: 0, most }
    }

    /// About the memory that it takes when parsed.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// The text, but for white space between its parts; none if it is too large.
    pub(crate) fn text(self) -> Option<String> {
        let whole = self.cost <= self.most;
        // As a browser would read it.
        whole.then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    /// How it begins, whether it is kept or not.
    pub(crate) fn start(&self) -> String {
        let end = self.bytes.len().min(SHOWN);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pay(bytes.len() as u64);
        let room = if self.cost <= self.most {
            bytes.len()
        } else {
            SHOWN.saturating_sub(self.bytes.len())
        };
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn pay(&mut self, cost: u64) {
        let fitted = self.cost <= self.most;
        self.cost += cost;
        if fitted && self.cost > self.most {
            self.bytes.truncate(SHOWN);
            self.bytes.shrink_to_fit();
        }
    }
}

/// Reads one JSON text.
#[derive(Debug)]
pub(crate) struct Json<R>(R);

impl<R: BufRead> Json<R> {
    pub(crate) fn new(from: R) -> Self {
        Self(from)
    }

    /// The first byte of what comes next, which says what it is; none at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<u8>, Fault> {
        self.until(|byte| !b" \t\r\n".contains(&byte), |_| ())
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(Fault::Syntax("trailing characters")),
        }
    }

    /// Reads an object. `field` is given each name as it is spelt between its quotes, and reads the value
    /// behind it.
    pub(crate) fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.list(b'{', b'}', |json| {
            if json.peek()? != Some(b'"') {
                return Err(Fault::Syntax("expected a field's name"));
            }
            let mut name = Kept::new(NAME_MAX);
            json.string(&mut name)?;
            json.expect(b':', "expected a colon")?;
            let name = name.text().unwrap_or_default();
            field(json, name.trim_matches('"'))
        })
    }

    /// Reads an array, of which `element` reads each.
    pub(crate) fn array(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.list(b'[', b']', element)
    }

    fn list(
        &mut self,
        open: u8,
        close: u8,
        mut element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(open, "expected an object")?;
        if self.peek()? == Some(close) {
            self.0.consume(1);
            return Ok(());
        }
        loop {
            element(self)?;
            match self.peek()? {
                Some(b',') => self.0.consume(1),
                Some(byte) if byte == close => {
                    self.0.consume(1);
                    return Ok(());
                }
                Some(_) => return Err(Fault::Syntax("expected a comma or an end")),
                None => return Err(ENDED),
            }
        }
    }

    /// Reads any value, however deep.
    pub(crate) fn value(&mut self, kept: &mut Kept) -> Result<(), Fault> {
        let mut depth: u64 = 0;
        loop {
            let byte = self.peek()?.ok_or(ENDED)?;
            match byte {
                b'"' => self.string(kept)?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' | b':' if depth == 0 => {
                    return Err(Fault::Syntax("expected a value"));
                }
                b'}' | b']' => depth -= 1,
                b',' | b':' => {}
                _ => self.word(kept)?,
            }
            if b"{}[],:".contains(&byte) {
                self.0.consume(1);
                kept.push(&[byte]);
                kept.pay(match byte {
                    b'{' => OBJECT_COST,
                    b'[' | b',' => VALUE_COST,
                    _ => 0,
                });
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Steps over any value.
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        self.value(&mut Kept::new(0))
    }

    fn string(&mut self, kept: &mut Kept) -> Result<(), Fault> {
        self.keep(kept)?;
        loop {
            self.until(|byte| matches!(byte, b'"' | b'\\'), |run| kept.push(run))?;
            if self.keep(kept)? == b'"' {
                return Ok(());
            }
            // Whatever it is that is escaped.
            self.keep(kept)?;
        }
    }

    /// A number, `true`, `false`, `null`, or what stands in such a place.
    fn word(&mut self, kept: &mut Kept) -> Result<(), Fault> {
        self.until(|byte| b" \t\r\n\",:{}[]".contains(&byte), |run| kept.push(run))?;
        // Or two words would be one without the space between them.
        match self.peek()? {
            None | Some(b',' | b':' | b'}' | b']') => Ok(()),
            Some(_) => Err(Fault::Syntax("expected a comma or an end")),
        }
    }

    fn expect(&mut self, byte: u8, or: &'static str) -> Result<(), Fault> {
        match self.peek()? {
            Some(found) if found == byte => {
                self.0.consume(1);
                Ok(())
            }
            Some(_) => Err(Fault::Syntax(or)),
            None => Err(ENDED),
        }
    }

    fn keep(&mut self, kept: &mut Kept) -> Result<u8, Fault> {
        let byte = *self.look()?.first().ok_or(ENDED)?;
        self.0.consume(1);
        kept.push(&[byte]);
        Ok(byte)
    }

    /// Takes what comes before the first byte that ends it, which is told and stays; none at the end.
    fn until(
        &mut self,
        ends: impl Fn(u8) -> bool,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Option<u8>, Fault> {
        loop {
            let bytes = self.look()?;
            let end = bytes.iter().position(|byte| ends(*byte));
            let found = end.map(|end| bytes[end]);
            let run = end.unwrap_or(bytes.len());
            let is_over = found.is_some() || bytes.is_empty();
            take(&bytes[..run]);
            self.0.consume(run);
            if is_over {
                return Ok(found);
            }
        }
    }

    /// What can be read without waiting, or something, or nothing at the end.
    fn look(&mut self) -> Result<&[u8], Fault> {
        while let Err(error) = self.0.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error.into());
            }
        }
        Ok(self.0.fill_buf()?)
    }
}

const ENDED: Fault = Fault::Syntax("ended in the middle");
