//! Writes the text format into a buffer, without formatting machinery: a scrape of a nation has
//! hundreds of thousands of lines.

use std::time::SystemTime;

use super::table::Family;

/// A growing chunk, and how many series have been written so far.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) chunk: Vec<u8>,
    pub(super) series: usize,
    /// What the lines of one agency in one family begin with.
    head: Vec<u8>,
}

impl Text {
    /// Goes on after so many series.
    pub(super) fn after(series: usize, chunk: Vec<u8>) -> Self {
        Self { chunk, series, head: Vec::new() }
    }

    /// `# HELP` and `# TYPE`.
    pub(super) fn header(&mut self, family: &Family) {
        for part in ["# HELP ", family.name, " ", family.help, "\n# TYPE ", family.name, " "] {
            self.push(part);
        }
        self.push(family.kind.as_str());
        self.push("\n");
    }

    /// Begins a line; labels and one value must follow.
    pub(super) fn series(&mut self, family: &Family) -> Line<'_> {
        self.series += 1;
        self.push(family.name);
        Line { text: self, opening: Opening::First }
    }

    /// Lines that begin with the same label, of a value with nothing to escape. What they share is
    /// put together once and copied whole.
    pub(super) fn lines(&mut self, family: &Family, name: &str, value: &str) -> Lines<'_> {
        self.head.clear();
        for part in [family.name, "{", name, "=\"", value] {
            self.head.extend_from_slice(part.as_bytes());
        }
        Lines { text: self }
    }

    fn push(&mut self, part: &str) {
        self.chunk.extend_from_slice(part.as_bytes());
    }

    fn push_escaped(&mut self, value: &str) {
        for byte in value.bytes() {
            match byte {
                b'\\' => self.push("\\\\"),
                b'"' => self.push("\\\""),
                b'\n' => self.push("\\n"),
                _ => self.chunk.push(byte),
            }
        }
    }
}

/// Lines with a common head.
pub(super) struct Lines<'a> {
    text: &'a mut Text,
}

impl Lines<'_> {
    /// Begins another one; labels and one value must follow.
    pub(super) fn series(&mut self) -> Line<'_> {
        self.text.series += 1;
        self.text.chunk.extend_from_slice(&self.text.head);
        Line { text: self.text, opening: Opening::Further }
    }
}

/// A line whose name is written.
#[must_use = "a line ends with its value"]
pub(super) struct Line<'a> {
    text: &'a mut Text,
    opening: Opening,
}

/// What stands before the next label.
#[derive(Clone, Copy)]
enum Opening {
    First,
    /// The value before has not been closed yet.
    Further,
}

impl Line<'_> {
    /// A label of which the value may hold anything.
    pub(super) fn label(self, name: &str, value: &str) -> Self {
        self.opened(name).escaped(value)
    }

    /// A label from a closed set or of an id, where nothing is to be escaped.
    pub(super) fn plain(self, name: &str, value: &str) -> Self {
        let line = self.opened(name);
        line.text.push(value);
        line
    }

    pub(super) fn count(self, value: impl itoa::Integer) {
        self.value(itoa::Buffer::new().format(value));
    }

    pub(super) fn truth(self, value: bool) {
        self.value(if value { "1" } else { "0" });
    }

    pub(super) fn float(self, value: f64) {
        self.value(ryu::Buffer::new().format(value));
    }

    /// Seconds since 1970, to the millisecond.
    pub(super) fn time(self, value: SystemTime) {
        let since_1970 = value.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = u32::try_from(since_1970.as_millis() % 1000).expect("less than 1000");
        let mut whole = itoa::Buffer::new();
        let whole = whole.format(since_1970.as_secs());
        let digits = [b'.', digit(ms / 100), digit(ms / 10 % 10), digit(ms % 10)];
        let text = self.before_value();
        text.push(whole);
        text.chunk.extend_from_slice(&digits);
        text.push("\n");
    }

    fn opened(self, name: &str) -> Self {
        self.text.push(match self.opening {
            Opening::First => "{",
            Opening::Further => "\",",
        });
        self.text.push(name);
        self.text.push("=\"");
        Self { text: self.text, opening: Opening::Further }
    }

    fn escaped(self, value: &str) -> Self {
        self.text.push_escaped(value);
        self
    }

    fn value(self, value: &str) {
        let text = self.before_value();
        text.push(value);
        text.push("\n");
    }
}

impl<'a> Line<'a> {
    fn before_value(self) -> &'a mut Text {
        self.text.push(match self.opening {
            Opening::First => " ",
            Opening::Further => "\"} ",
        });
        self.text
    }
}

fn digit(value: u32) -> u8 {
    b'0' + u8::try_from(value).expect("one decimal digit")
}
