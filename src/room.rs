//! Room in the lists of thousands that stay. Pure.
//!
//! std doubles a list that is full, so that one more of ten thousand leaves as many empty places; here it gets a
//! part of its length. And the allocator gives back only what nothing lies behind: what stays is to have its place
//! before all that a pass makes and drops again, and keeps it from pass to pass.

/// A list that is full grows by this part of it.
const PART: usize = 16;

/// Makes room for one more where there is none.
pub fn for_one_more<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(4 + list.len() / PART);
    }
}

/// Empties a list for as many as this and a few that come later, in the place that it has.
pub fn for_all<T>(list: &mut Vec<T>, count: usize) {
    let wanted = count + count / PART;
    // What was only reserved stays so: somebody waits for it to be filled.
    let too_long = list.len() > 2 * wanted;
    list.clear();
    if too_long {
        list.shrink_to(wanted);
    }
    if list.capacity() < count {
        list.reserve_exact(wanted);
    }
}

/// What is as long as this is given its own pages, and gives them back when it is dropped.
const LARGE_BYTES: usize = 128 << 10;
/// Such a block is no measure for what the allocator keeps. Most of it is never touched, and so is not there.
const PASSING_BYTES: usize = 33 << 20;

/// A list of so many that lives no longer than a pass.
pub fn passing<T>(count: usize) -> Vec<T> {
    let mut list = Vec::new();
    for_now(&mut list, count);
    list
}

/// Makes room for so many in a list that lives no longer than a pass.
///
/// glibc keeps twice as much free memory as the largest block that was given back to it, unless that is larger than
/// 32 MiB. So thousands get that much, of which the kernel counts what is touched.
pub fn for_now<T>(list: &mut Vec<T>, count: usize) {
    let size = size_of::<T>().max(1);
    if count.saturating_mul(size) >= LARGE_BYTES && list.capacity() * size < PASSING_BYTES {
        // Where address space is scarce it has to go without.
        let _ = list.try_reserve_exact(PASSING_BYTES / size + 1);
    }
    list.reserve_exact(count.saturating_sub(list.len()));
}

/// Makes room for one more in such a list, where nobody knows how long it will be.
pub fn for_one_more_now<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        for_now(list, 4 + 2 * list.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_by_a_part_of_it() {
        let mut list = vec![0_u8; 1600];
        list.shrink_to_fit();
        for_one_more(&mut list);
        assert!((1601..1800).contains(&list.capacity()));
        let room = list.capacity();
        for_one_more(&mut list);
        assert_eq!(list.capacity(), room);
        let mut empty: Vec<u8> = Vec::new();
        for_one_more(&mut empty);
        assert!(empty.capacity() >= 1);
    }

    #[test]
    fn what_passes_is_small_or_very_large() {
        assert_eq!(passing::<u64>(10).capacity(), 10);
        assert!(passing::<u64>(100_000).capacity() * 8 >= PASSING_BYTES);
        assert!(passing::<[u8; 1 << 20]>(100).capacity() >= 100);
        let mut list: Vec<u64> = Vec::new();
        for number in 0..100_000 {
            for_one_more_now(&mut list);
            list.push(number);
            let bytes = 8 * list.capacity();
            assert!(
                !(2 * LARGE_BYTES..PASSING_BYTES).contains(&bytes),
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_list_stays_where_it_is_while_it_fits() {
        let mut list: Vec<u8> = Vec::new();
        for_all(&mut list, 1000);
        let (at, room) = (list.as_ptr(), list.capacity());
        assert!(list.is_empty() && (1000..1200).contains(&room));
        list.resize(1000, 0);
        for_all(&mut list, 1010);
        assert_eq!((list.as_ptr(), list.capacity()), (at, room));
        for_all(&mut list, 10);
        assert_eq!(list.capacity(), room, "nobody has filled it");
        list.resize(1000, 0);
        for_all(&mut list, 10);
        assert!((10..20).contains(&list.capacity()));
    }
}
