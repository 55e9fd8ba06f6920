//! How long to wait before trying again. Pure: jitter is an argument.

use std::time::Duration;

/// Delays that grow from `first` by 1.6 up to `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// A success starts over.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The delay after one more failure. `draw` is uniform in 0..1: full jitter, so that a thousand clients that lost
    /// the same server don't come back at once.
    #[must_use]
    pub fn failed(&mut self, draw: f64) -> Duration {
        let grown =
            self.first.as_secs_f64() * 1.6_f64.powi(i32::try_from(self.failures.min(30)).unwrap_or(30));
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs_f64(grown.min(self.max.as_secs_f64()) * draw.clamp(0.0, 1.0))
    }
}

/// Uniform in 0..1, from the operating system.
#[must_use]
pub fn draw() -> f64 {
    use aws_lc_rs::rand::SecureRandom as _;
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        // No randomness: wait the whole delay.
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let delays: Vec<_> = (0..8).map(|_| backoff.failed(1.0)).collect();
        assert_eq!(delays[0], Duration::from_secs(1));
        assert!(delays.is_sorted());
        assert_eq!(delays[7], Duration::from_secs(10));
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0), Duration::from_secs(1));
    }

    #[test]
    fn jitter_reaches_down_to_zero() {
        assert_eq!(Backoff::new(Duration::from_secs(1), Duration::from_secs(10)).failed(0.0), Duration::ZERO);
    }
}
