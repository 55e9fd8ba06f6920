//! The two text forms: Prometheus' own, 0.0.4, and OpenMetrics 1.0.0. They differ in how a counter's family is called,
//! in what is escaped in a help text, and in the last line.

use std::fmt::Write as _;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Untyped,
}

/// A value as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    /// Nanoseconds, written as seconds without losing any.
    Nanoseconds(u64),
    /// Finite.
    Float(f64),
}

/// Writes an exposition into one buffer.
#[derive(Debug)]
pub(super) struct Text {
    out: String,
    format: Format,
}

/// A line that has its name and is getting its labels.
#[derive(Debug)]
pub(super) struct Line<'a> {
    out: &'a mut String,
    labelled: bool,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { out: String::new(), format: Format::Prometheus }
    }

    /// Begins anew, in the room that there is.
    pub(super) fn begin(&mut self, format: Format) {
        self.out.clear();
        self.format = format;
    }

    pub(super) fn end(&mut self) -> &str {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        &self.out
    }

    /// The lines before a family's values.
    pub(super) fn family(&mut self, name: &str, of: Type, help: &str) {
        let (name, word) = match (of, self.format) {
            (Type::Counter, Format::OpenMetrics) => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            (Type::Counter, Format::Prometheus) => (name, "counter"),
            (Type::Gauge, _) => (name, "gauge"),
            (Type::Untyped, Format::Prometheus) => (name, "untyped"),
            (Type::Untyped, Format::OpenMetrics) => (name, "unknown"),
        };
        let out = &mut self.out;
        out.extend(["# HELP ", name, " "]);
        match self.format {
            Format::Prometheus => escape(out, help, &['\\', '\n']),
            Format::OpenMetrics => escape(out, help, LABEL),
        }
        out.extend(["\n# TYPE ", name, " ", word, "\n"]);
    }

    pub(super) fn line(&mut self, name: &str) -> Line<'_> {
        self.out.push_str(name);
        Line { out: &mut self.out, labelled: false }
    }

    /// A family of one value without labels.
    pub(super) fn single(&mut self, name: &str, of: Type, help: &str, value: Number) {
        self.family(name, of, help);
        self.line(name).value(value);
    }
}

impl Line<'_> {
    /// Labels that are written already, or none.
    pub(super) fn rendered(mut self, labels: &str) -> Self {
        if !labels.is_empty() {
            self.separate();
            self.out.push_str(labels);
        }
        self
    }

    pub(super) fn label(mut self, name: &str, value: &str) -> Self {
        self.separate();
        label(self.out, name, value);
        self
    }

    pub(super) fn value(self, value: Number) {
        self.out.push_str(if self.labelled { "} " } else { " " });
        // Writing to a String can't fail.
        match value {
            Number::Whole(number) => write!(self.out, "{number}").unwrap_or_default(),
            Number::Nanoseconds(ns) => seconds(self.out, ns),
            Number::Float(number) => write!(self.out, "{number}").unwrap_or_default(),
        }
        self.out.push('\n');
    }

    fn separate(&mut self) {
        self.out.push(if self.labelled { ',' } else { '{' });
        self.labelled = true;
    }
}

const LABEL: &[char] = &['\\', '\n', '"'];
const NS: u64 = 1_000_000_000;

/// A label as it is written.
pub(super) fn label(out: &mut String, name: &str, value: &str) {
    out.extend([name, "=\""]);
    escape(out, value, LABEL);
    out.push('"');
}

/// What would steer a terminal is not written: whoever looks at this with curl has one.
fn escape(out: &mut String, text: &str, special: &[char]) {
    let steers = |c: char| c.is_control() && c != '\n';
    let plain;
    let mut rest = text;
    if text.contains(steers) {
        plain = text.replace(steers, "\u{fffd}");
        rest = &plain;
    }
    while let Some(at) = rest.find(special) {
        out.push_str(&rest[..at]);
        let (one, after) = rest[at..].split_at(1);
        out.push('\\');
        out.push_str(if one == "\n" { "n" } else { one });
        rest = after;
    }
    out.push_str(rest);
}

fn seconds(out: &mut String, ns: u64) {
    let (whole, part) = (ns / NS, ns % NS);
    if part == 0 {
        write!(out, "{whole}").unwrap_or_default();
    } else {
        write!(out, "{whole}.{part:09}").unwrap_or_default();
        out.truncate(out.trim_end_matches('0').len());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line taken apart: its name, its labels and its value.
    pub(in crate::local::exporter) fn parsed(line: &str) -> (String, Vec<(String, String)>, f64) {
        let (head, value) = line.rsplit_once(' ').unwrap();
        let value = value.parse().unwrap();
        let Some((name, labels)) = head.split_once('{') else { return (head.to_owned(), vec![], value) };
        let mut rest = labels.strip_suffix('}').unwrap();
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (label, quoted) = rest.split_once("=\"").unwrap();
            let mut text = String::new();
            let mut letters = quoted.char_indices();
            let end = loop {
                match letters.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match letters.next().unwrap().1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, other) => text.push(other),
                }
            };
            all.push((label.to_owned(), text));
            rest = quoted[end + 1..].trim_start_matches(',');
        }
        (name.to_owned(), all, value)
    }

    fn written(value: Number) -> String {
        let mut text = Text::new();
        text.line("x").value(value);
        text.end().trim_end().to_owned()
    }

    #[test]
    fn numbers_lose_nothing() {
        assert_eq!(written(Number::Whole(u64::MAX)), "x 18446744073709551615");
        assert_eq!(written(Number::Nanoseconds(1_500_000_000)), "x 1.5");
        assert_eq!(written(Number::Nanoseconds(20_000_000_000)), "x 20");
        assert_eq!(written(Number::Nanoseconds(10)), "x 0.00000001");
        assert_eq!(written(Number::Nanoseconds(u64::MAX)), "x 18446744073.709551615");
        assert_eq!(written(Number::Float(0.25)), "x 0.25");
    }

    #[test]
    fn the_forms_differ_where_they_must() {
        let mut text = Text::new();
        text.begin(Format::Prometheus);
        text.single("a_total", Type::Counter, "says \"a\"\\", Number::Whole(1));
        assert_eq!(text.end(), "# HELP a_total says \"a\"\\\\\n# TYPE a_total counter\na_total 1\n");
        text.begin(Format::OpenMetrics);
        text.single("a_total", Type::Counter, "says \"a\"\\", Number::Whole(1));
        assert_eq!(text.end(), "# HELP a says \\\"a\\\"\\\\\n# TYPE a counter\na_total 1\n# EOF\n");
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_parsed(value in "\\PC{0,20}|[\\\\\"\n,={}a-c ]{0,20}", ns in any::<u64>()) {
            let mut text = Text::new();
            text.line("m").rendered("a=\"b\"").label("c", &value).label("d", "").value(Number::Nanoseconds(ns));
            let line = text.end().strip_suffix('\n').unwrap();
            prop_assert!(!line.contains('\n'));
            let (name, labels, seconds) = parsed(line);
            prop_assert_eq!(name, "m");
            let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            prop_assert_eq!(labels, vec![of("a", "b"), of("c", &value), of("d", "")]);
            prop_assert_eq!(seconds, format!("{}.{:09}", ns / NS, ns % NS).parse::<f64>().unwrap());
        }
    }
}
