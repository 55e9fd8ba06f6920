//! Answers in pages: in the order of names, a page token being the name that the page before ended with.

/// The largest page, and the page that 0 asks for.
pub const PAGE: usize = 1000;

/// The page of `all` after `after`, and the token of the next; empty on the last.
#[must_use]
pub fn page<T>(mut all: Vec<(String, T)>, size: u32, after: &str) -> (Vec<(String, T)>, String) {
    let size = match usize::try_from(size) {
        Ok(size @ 1..=PAGE) => size,
        _ => PAGE,
    };
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.retain(|(name, _)| name.as_str() > after);
    let more = all.len() > size;
    all.truncate(size);
    let next = all.last().filter(|_| more).map(|(name, _)| name.clone()).unwrap_or_default();
    (all, next)
}
