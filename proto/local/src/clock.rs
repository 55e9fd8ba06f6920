//! The one place of these programs that reads the clock.

use std::time::Instant;

#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
