//! A collection by id for thousands of things that know their own id and stay for long. Pure.
//!
//! A tree would hold each id a second time and has nodes that are half empty; this is one sorted list of boxes. To
//! put one in or take one out moves the pointers behind it: 80 KB at 10,000, some microseconds.

use crate::room;

/// What has an id that never changes.
pub trait Identified {
    /// Its id.
    fn id(&self) -> &str;
}

/// Things by id.
#[derive(Debug)]
pub struct Roll<T>(Vec<Box<T>>);

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Roll(Vec::new())
    }
}

impl<T: Identified> Roll<T> {
    /// The one of this id.
    pub fn get(&self, id: &str) -> Option<&T> {
        let one = self.0.get(self.place(id).ok()?)?;
        Some(one)
    }

    /// The one of this id, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        let place = self.place(id).ok()?;
        let one = self.0.get_mut(place)?;
        Some(one)
    }

    /// Whether there is one of this id.
    pub fn contains_key(&self, id: &str) -> bool {
        self.place(id).is_ok()
    }

    /// Makes room for so many all together.
    pub fn make_room(&mut self, count: usize) {
        self.0.reserve_exact(count.saturating_sub(self.0.len()));
    }

    /// Puts one in, in the place of another one of its id.
    pub fn insert(&mut self, one: T) {
        match self.place(one.id()) {
            Ok(place) => {
                if let Some(there) = self.0.get_mut(place) {
                    **there = one;
                }
            }
            Err(place) => {
                room::for_one_more(&mut self.0);
                self.0.insert(place, Box::new(one));
            }
        }
    }

    /// Takes the one of this id out.
    pub fn remove(&mut self, id: &str) -> Option<Box<T>> {
        let place = self.place(id).ok()?;
        Some(self.0.remove(place))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by id.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(Box::as_ref)
    }

    /// Those whose ids are not before this text.
    pub fn from(&self, id: &str) -> impl Iterator<Item = &T> + use<'_, T> {
        let place = self.0.partition_point(|one| one.id() < id);
        self.0.iter().skip(place).map(Box::as_ref)
    }

    fn place(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|one| one.id().cmp(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Named(&'static str, u32);

    impl Identified for Named {
        fn id(&self) -> &str {
            self.0
        }
    }

    fn ids(roll: &Roll<Named>) -> String {
        roll.values().map(|one| one.0).collect()
    }

    #[test]
    fn it_is_sorted_by_id_and_has_each_once() {
        let mut roll = Roll::default();
        for id in ["d", "a", "c", "b", "a"] {
            roll.insert(Named(id, 1));
        }
        assert_eq!(ids(&roll), "abcd");
        roll.insert(Named("c", 2));
        assert_eq!(roll.get("c"), Some(&Named("c", 2)));
        roll.get_mut("b").expect("b").1 = 9;
        assert_eq!(roll.get("b"), Some(&Named("b", 9)));
        assert_eq!(roll.remove("a").as_deref(), Some(&Named("a", 1)));
        assert_eq!(roll.remove("a"), None);
        assert!(!roll.contains_key("a") && roll.contains_key("d"));
        let from = |id| roll.from(id).map(|one| one.0).collect::<String>();
        assert_eq!(
            (from("bb"), from("b"), from("e")),
            ("cd".into(), "bcd".into(), String::new())
        );
        assert!(!roll.is_empty());
    }
}
