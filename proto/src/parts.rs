//! Messages of bounded size, filled with one thing after another.

/// Messages that are being filled: the next one begins when what comes would take the last over the bound.
#[derive(Debug)]
pub struct Parts<T> {
    full: Vec<T>,
    last: T,
    bytes: usize,
    most: usize,
}

impl<T: Default> Parts<T> {
    /// `most` bytes of things for each message; one thing alone may be larger. What `first` holds already isn't counted.
    #[must_use]
    pub fn new(first: T, most: usize) -> Self {
        Self { full: Vec::new(), last: first, bytes: 0, most }
    }

    /// The message that takes a thing of so many bytes.
    pub fn for_next(&mut self, bytes: usize) -> &mut T {
        if self.bytes > 0 && self.bytes + bytes > self.most {
            self.full.push(std::mem::take(&mut self.last));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.last
    }

    /// All, at least one.
    #[must_use]
    pub fn all(mut self) -> Vec<T> {
        self.full.push(self.last);
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_before_what_would_take_it_over_the_bound() {
        let mut parts = Parts::new(vec![0], 10);
        for bytes in [6, 4, 1, 30, 2] {
            parts.for_next(bytes).push(bytes);
        }
        assert_eq!(parts.all(), [vec![0, 6, 4], vec![1], vec![30], vec![2]]);
    }
}
