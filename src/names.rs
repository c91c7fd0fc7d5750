//! Names that many containers have in common: networks, programs, domains. Each is kept once.
//!
//! Pure. What nobody uses any more is forgotten, so it holds no more than twice the names in use, and a few.

use std::sync::Arc;

/// So many names are kept without a look at who still uses them.
const KEPT: usize = 64;

/// Every name in use, once.
#[derive(Debug, Default)]
pub struct Names {
    /// Sorted.
    known: Vec<Arc<str>>,
    /// From this many names on, it is looked which of them are still in use; zero means [`KEPT`].
    sweep_at: usize,
}

impl Names {
    /// Puts the kept copy of a name in its place, or keeps this one.
    pub fn share(&mut self, name: &mut Arc<str>) {
        if let Ok(place) = self.known.binary_search(name)
            && let Some(known) = self.known.get(place)
        {
            *name = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.sweep_at.max(KEPT) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.known.len();
        }
        if let Err(place) = self.known.binary_search(name) {
            self.known.insert(place, Arc::clone(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let mut names = Names::default();
        let (mut one, mut same): (Arc<str>, Arc<str>) = ("apps".into(), "apps".into());
        names.share(&mut one);
        names.share(&mut same);
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!(Arc::strong_count(&one), 3);
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut names = Names::default();
        let mut used = Vec::new();
        for number in 0..100 * KEPT {
            let mut name: Arc<str> = number.to_string().into();
            names.share(&mut name);
            if number < 2 * KEPT {
                used.push(name);
            }
        }
        assert!(used.iter().all(|name| names.known.contains(name)));
        assert!(names.known.len() <= 2 * used.len());
    }
}
