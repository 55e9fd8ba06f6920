//! Which metrics and labels an expression of Prometheus names. Not a parser: Prometheus itself says what it takes.

use std::collections::BTreeSet;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) metrics: BTreeSet<String>,
    /// Those that are selected, grouped or matched by.
    pub(super) labels: BTreeSet<String>,
}

/// What stands before a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that are neither.
const WORDS: [&str; 15] = [
    "and", "or", "unless", "bool", "offset", "sum", "min", "max", "avg", "count", "topk", "bottomk", "group",
    "quantile", "stddev",
];

impl Named {
    pub(super) fn by(expression: &str) -> Self {
        let mut named = Self::default();
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '"' => after_string(rest),
                '{' => named.take_labels(rest, '}'),
                '[' => rest.split_once(']').map_or("", |(_, rest)| rest),
                // 10, 5m, 0.5
                '0'..='9' => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
                _ if is_word(first) => {
                    let (word, after) = split_word(rest);
                    let list = after.trim_start();
                    if LISTS.contains(&word) {
                        if list.starts_with('(') { named.take_labels(list, ')') } else { list }
                    } else {
                        if !WORDS.contains(&word) && !list.starts_with('(') {
                            named.metrics.insert(word.to_owned());
                        }
                        after
                    }
                }
                _ => &rest[first.len_utf8()..],
            };
        }
        named
    }

    /// `rest` begins with the bracket that `end` closes.
    fn take_labels<'a>(&mut self, rest: &'a str, end: char) -> &'a str {
        let mut rest = &rest[1..];
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                rest = after_string(rest);
            } else if is_word(first) {
                let (word, after) = split_word(rest);
                self.labels.insert(word.to_owned());
                rest = after;
            } else {
                rest = &rest[first.len_utf8()..];
                if first == end {
                    break;
                }
            }
        }
        rest
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()))
}

/// `text` begins with the quote.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !escaped {
            return &text[at + 1..];
        }
        escaped = c == '\\' && !escaped;
    }
    ""
}

#[test]
fn metrics_and_labels_are_told_from_functions_strings_and_numbers() {
    let named = Named::by(
        r#"1.5 - sum by (mode, cpu) (rate(a_total{job="x{y\"}",mode=~"b|c"}[5m])) / on (job) group_left scalar(count(b:c)) > bool 2 or d offset 1h"#,
    );
    let all = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(all(&named.metrics), "a_total b:c d");
    assert_eq!(all(&named.labels), "cpu job mode");
}
