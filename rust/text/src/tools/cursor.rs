//! The text of the model, as far as it has come, and where reading it stands.

/// Whether a text stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// This one of the options did, and was passed.
    Found(usize),
    /// More text decides.
    Wait,
    /// None of them.
    No,
}

/// What lies before one of several texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Until {
    /// This text, and then this one of the options, which was passed.
    Found(String, usize),
    /// More text decides.
    Wait,
    /// None of them came within the limit, or before the end.
    No,
}

/// Where one of several texts is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This option, at this distance.
    At(usize, usize),
    /// None in the part up to this distance; what follows may be the beginning of one.
    Not(usize),
}

/// Text that grows at its end and is read from its front. Positions stay valid until [`Cursor::forget`].
#[derive(Debug, Default)]
pub(super) struct Cursor {
    text: String,
    /// Everything before was read. Always a character boundary.
    pub at: usize,
    /// Where the part began that is read now.
    pub mark: usize,
    /// No more text comes.
    pub ended: bool,
}

impl Cursor {
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Drops what was read. No position from before is valid afterwards.
    pub fn forget(&mut self) {
        self.text.drain(..self.at);
        self.at = 0;
        self.mark = 0;
    }

    pub fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The text from `from` to `to`, both character boundaries.
    pub fn slice(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// What was read since the mark.
    pub fn raw(&self) -> &str {
        self.slice(self.mark, self.at)
    }

    /// Takes the next `n` bytes.
    pub fn take(&mut self, n: usize) -> &str {
        let from = self.at;
        self.at = (from + n).min(self.text.len());
        &self.text[from..self.at]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Whether one of `options` stands here, the longest of those that do; it is passed.
    pub fn literal(&mut self, options: &[&str]) -> Lookup {
        let rest = self.rest();
        if !self.ended && options.iter().any(|o| rest.len() < o.len() && o.starts_with(rest)) {
            return Lookup::Wait;
        }
        let found = options.iter().enumerate().filter(|(_, o)| rest.starts_with(**o)).max_by_key(|(_, o)| o.len());
        match found {
            Some((index, option)) => {
                self.at += option.len();
                Lookup::Found(index)
            }
            None => Lookup::No,
        }
    }

    /// The next place of one of `options`, of which none is a beginning of another. Reads nothing.
    pub fn next(&self, options: &[&str]) -> Next {
        self.next_from(0, options)
    }

    /// As [`Cursor::next`], from `skip` bytes on, which were looked at before.
    pub fn next_from(&self, skip: usize, options: &[&str]) -> Next {
        next_in(self.rest(), skip, self.ended, options)
    }

    /// Reads up to and over one of `options`, which must come within `limit` bytes. Looks no further than that.
    pub fn until(&mut self, options: &[&str], limit: usize) -> Until {
        let longest = options.iter().map(|o| o.len()).max().unwrap_or_default();
        let rest = self.rest();
        let mut end = rest.len().min(limit + longest);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let window = &rest[..end];
        let whole = window.len() == rest.len();
        match next_in(window, 0, self.ended, options) {
            Next::At(at, index) if at <= limit => {
                let text = self.take(at).to_owned();
                self.at += options.get(index).map_or(0, |o| o.len());
                Until::Found(text, index)
            }
            Next::Not(at) if at <= limit && whole && !self.ended => Until::Wait,
            _ => Until::No,
        }
    }
}

/// The next place of one of `options` in a text that may go on unless it has `ended`, from `skip` bytes on.
fn next_in(text: &str, skip: usize, ended: bool, options: &[&str]) -> Next {
    let mut from = skip;
    while let Some(at) = text[from..].find(|c| options.iter().any(|o| o.starts_with(c))).map(|at| from + at) {
        let here = &text[at..];
        if let Some(index) = options.iter().position(|o| here.starts_with(o)) {
            return Next::At(at, index);
        }
        if !ended && options.iter().any(|o| o.starts_with(here)) {
            return Next::Not(at);
        }
        from = at + here.chars().next().map_or(1, char::len_utf8);
    }
    Next::Not(text.len())
}
