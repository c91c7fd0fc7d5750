//! One sort for everything that is sorted here, in place of std's, which is compiled anew for each kind of thing.
//!
//! std's stable sort is 5 to 10 KB of code a kind. Here it sorts places, through one comparison that is called by
//! pointer; what is compiled for each kind is only how two are compared and swapped. Like std's it is stable, takes
//! time in proportion where the order is right already, and `collect` into a tree, which sorts too, has [`gathered`]
//! in its stead.

use std::cmp::Ordering;

/// Sorts by the order of the things themselves.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Sorts by a key of each thing.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

/// Sorts as `compare` says; equal things stay in their order.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut places = sorted(
        items.len(),
        &|one, other| match (items.get(one), items.get(other)) {
            (Some(one), Some(other)) => compare(one, other),
            _ => Ordering::Equal,
        },
    );
    arrange(&mut places, &mut |one, other| items.swap(one, other));
}

/// A collection of these, put in one by one.
pub fn gathered<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}

/// The places of `count` things in the order that they are to stand in.
fn sorted(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|one, other| compare(*one, *other));
    places
}

/// Swaps things until at each place stands the one that `places` has there.
fn arrange(places: &mut [usize], swap: &mut dyn FnMut(usize, usize)) {
    for start in 0..places.len() {
        // Around the circle: what stood at `start` is pushed on until it comes to its own place.
        let mut at = start;
        while let Some(from) = places.get_mut(at).map(|place| std::mem::replace(place, at)) {
            if from == start || from == at {
                break;
            }
            swap(at, from);
            at = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_sorts_as_std_does_and_keeps_equal_things_in_order() {
        let mut state = 1_u32;
        for count in (0..40).chain([100, 1000]) {
            for kinds in [1, 2, 10, 1000] {
                let mut ours: Vec<(u32, usize)> = (0..count)
                    .map(|at| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        ((state >> 16) % kinds, at)
                    })
                    .collect();
                let mut expected = ours.clone();
                expected.sort_by_key(|(kind, _)| *kind);
                sort_by_key(&mut ours, |(kind, _)| *kind);
                assert_eq!(ours, expected);
                ours.reverse();
                sort(&mut ours);
                assert_eq!(ours, expected);
            }
        }
    }

    #[test]
    fn what_is_gathered_is_what_was_there() {
        let set: BTreeSet<&str> = gathered(["b", "a", "b"]);
        assert_eq!(set.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
