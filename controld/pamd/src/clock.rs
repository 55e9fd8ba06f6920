//! The one place of the program that reads the clock.

use std::time::Instant;

#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
