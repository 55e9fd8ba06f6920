//! Names of instances, each kept once: thousands of VMs have a disk `vda`, and every object has itself as a whole.

use std::collections::HashSet;
use std::sync::Arc;

/// Shares equal names.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Arc<str>>,
    /// How many there were when those that nobody has any more were last forgotten.
    settled: usize,
}

/// So few are not worth looking through.
const FEW: usize = 4096;

impl Names {
    pub fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() > FEW.max(2 * self.settled) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.settled = self.known.len();
        }
        let new: Arc<str> = Arc::from(name);
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let mut names = Names::default();
        assert!(Arc::ptr_eq(&names.shared("vda"), &names.shared("vda")));
    }

    #[test]
    fn names_that_nobody_has_are_forgotten() {
        let mut names = Names::default();
        let kept = names.shared("vda");
        for number in 0..3 * FEW {
            names.shared(&format!("veth{number}"));
        }
        assert!(names.known.len() <= 2 * FEW, "{}", names.known.len());
        assert!(Arc::ptr_eq(&kept, &names.shared("vda")));
    }
}
