//! The one place of these programs that reads the clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Of the wall clock, for what people and other hosts are told.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
