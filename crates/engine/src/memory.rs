//! Memory planning: values whose lifetimes do not meet share a buffer.

/// A value's size and the first and last step that touch it, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) bytes: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Which buffer each value lies in, and the buffers' sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) buffer: Vec<usize>,
    pub(crate) bytes: Vec<usize>,
}

/// Gives each value a buffer, in the order of their first step. A buffer is free again after the last step of the value
/// in it; the smallest free one that is large enough is taken, else the largest free one grows.
///
/// `lifetimes` must be sorted by `first`. With `share` off each value has a buffer of its own: the reference that the
/// sharing is tested against.
pub(crate) fn lay_out(lifetimes: &[Lifetime], share: bool) -> Layout {
    let mut layout = Layout::default();
    let mut busy_until: Vec<usize> = Vec::new();
    for value in lifetimes {
        let free = (0..layout.bytes.len()).filter(|&b| share && busy_until[b] < value.first);
        let chosen = free.min_by_key(|&b| match layout.bytes[b] {
            bytes if bytes >= value.bytes => (0, bytes),
            bytes => (1, usize::MAX - bytes),
        });
        let buffer = chosen.unwrap_or_else(|| {
            layout.bytes.push(0);
            busy_until.push(0);
            layout.bytes.len() - 1
        });
        layout.bytes[buffer] = layout.bytes[buffer].max(value.bytes);
        busy_until[buffer] = value.last;
        layout.buffer.push(buffer);
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetimes() -> impl Strategy<Value = Vec<Lifetime>> {
        proptest::collection::vec((1usize..1000, 0usize..40, 0usize..10), 0..60).prop_map(|values| {
            let mut all: Vec<_> =
                values.into_iter().map(|(bytes, first, span)| Lifetime { bytes, first, last: first + span }).collect();
            all.sort_by_key(|l| l.first);
            all
        })
    }

    proptest! {
        #[test]
        fn live_values_never_share(values in lifetimes(), share in any::<bool>()) {
            let layout = lay_out(&values, share);
            for (i, a) in values.iter().enumerate() {
                prop_assert!(layout.bytes[layout.buffer[i]] >= a.bytes);
                for (j, b) in values.iter().enumerate().skip(i + 1) {
                    let meet = a.first <= b.last && b.first <= a.last;
                    prop_assert!(!(meet && layout.buffer[i] == layout.buffer[j]), "{a:?} and {b:?}");
                    prop_assert!(share || layout.buffer[i] != layout.buffer[j]);
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<_> = (0..10).map(|i| Lifetime { bytes: 100, first: i, last: i + 1 }).collect();
        assert_eq!(lay_out(&chain, true).bytes.len(), 2);
        assert_eq!(lay_out(&chain, false).bytes.len(), 10);
    }
}
