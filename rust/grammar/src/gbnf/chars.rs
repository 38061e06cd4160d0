//! Sets of characters.

/// Ranges in order, which neither overlap nor touch.
pub type Set = Vec<(u32, u32)>;

/// The set of these ranges.
pub fn set(ranges: &[(char, char)]) -> Set {
    let mut set = Set::new();
    for &(first, last) in ranges {
        unite(&mut set, &vec![(first as u32, last as u32)]);
    }
    set
}

/// All characters that are not in `set`.
pub fn complement(set: &Set) -> Set {
    let mut out = Set::new();
    let mut next = 0;
    for &(first, last) in set {
        if first > next {
            out.push((next, first - 1));
        }
        next = last + 1;
    }
    if next <= char::MAX as u32 {
        out.push((next, char::MAX as u32));
    }
    out
}

/// Adds `more` to `set`. True if that has added anything.
pub fn unite(set: &mut Set, more: &Set) -> bool {
    if more.iter().all(|range| set.iter().any(|there| there.0 <= range.0 && range.1 <= there.1)) {
        return false;
    }
    let mut ranges: Set = set.iter().chain(more).copied().collect();
    ranges.sort_unstable();
    set.clear();
    for (first, last) in ranges {
        match set.last_mut() {
            Some(there) if first <= there.1.saturating_add(1) => there.1 = there.1.max(last),
            _ => set.push((first, last)),
        }
    }
    true
}

/// Whether a character is in both.
pub fn intersects(a: &Set, b: &Set) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.1 < y.0 {
            i += 1;
        } else if y.1 < x.0 {
            j += 1;
        } else {
            return true;
        }
    }
    false
}
