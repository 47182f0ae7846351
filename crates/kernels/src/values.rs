//! Arrays of values in memory: single precision, or bf16 where half the bytes matter more than the last bits.

use crate::isa::{Isa, Kernel, Level};

/// Values to read.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bf16: the upper halves of single-precision numbers.
    Bf16(&'a [u16]),
}

/// Values to write.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// bf16, rounded to nearest.
    Bf16(&'a mut [u16]),
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for Values<'a> {
    fn from(values: &'a T) -> Self {
        Values::F32(values.as_ref())
    }
}

impl<'a, T: AsMut<[f32]> + ?Sized> From<&'a mut T> for ValuesMut<'a> {
    fn from(values: &'a mut T) -> Self {
        ValuesMut::F32(values.as_mut())
    }
}

impl Values<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Values::F32(values) => Values::F32(&values[range]),
            Values::Bf16(values) => Values::Bf16(&values[range]),
        }
    }

    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self, Values::Bf16(_))
    }

    /// Where they start, whatever they are.
    pub(crate) fn as_ptr(&self) -> *const f32 {
        match self {
            Values::F32(values) => values.as_ptr(),
            Values::Bf16(values) => values.as_ptr().cast(),
        }
    }
}

impl ValuesMut<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            ValuesMut::F32(values) => values.len(),
            ValuesMut::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self, ValuesMut::Bf16(_))
    }

    /// The same values, borrowed for a while.
    pub(crate) fn reborrow(&mut self) -> ValuesMut<'_> {
        match self {
            ValuesMut::F32(values) => ValuesMut::F32(values),
            ValuesMut::Bf16(values) => ValuesMut::Bf16(values),
        }
    }

    /// The first values, and the rest.
    pub(crate) fn split_at_mut(self, at: usize) -> (Self, Self) {
        match self {
            ValuesMut::F32(values) => {
                let (first, rest) = values.split_at_mut(at);
                (ValuesMut::F32(first), ValuesMut::F32(rest))
            }
            ValuesMut::Bf16(values) => {
                let (first, rest) = values.split_at_mut(at);
                (ValuesMut::Bf16(first), ValuesMut::Bf16(rest))
            }
        }
    }

    /// Where they start, whatever they are.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        match self {
            ValuesMut::F32(values) => values.as_mut_ptr(),
            ValuesMut::Bf16(values) => values.as_mut_ptr().cast(),
        }
    }
}

/// `to[i] = from[i]`, rounded where only the target is bf16.
pub fn convert(level: Level, from: Values<'_>, to: ValuesMut<'_>) {
    assert_eq!(from.len(), to.len(), "as many values");
    level.dispatch_bf16(Convert { from, to });
}

struct Convert<'a> {
    from: Values<'a>,
    to: ValuesMut<'a>,
}

impl Kernel for Convert<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let len = self.to.len();
        let (half_from, half_to) = (self.from.is_bf16(), self.to.is_bf16());
        let (from, to) = (self.from.as_ptr(), self.to.as_mut_ptr());
        let mut i = 0;
        // SAFETY: both have `len` values of their kind.
        unsafe {
            while i + I::LANES <= len {
                let value = load::<I, true>(isa, from, half_from, i);
                store::<I, true>(isa, to, half_to, i, value);
                i += I::LANES;
            }
            if i < len {
                let value = load_first::<I, true>(isa, from, half_from, i, len - i);
                store_first::<I, true>(isa, to, half_to, i, len - i, value);
            }
        }
    }
}

/// Loads a vector from value `at` on: of bf16 values where `half`, which only kernels made for `HALVES` ask.
///
/// # Safety
/// `LANES` values of that kind are readable there.
#[inline(always)]
pub(crate) unsafe fn load<I: Isa, const HALVES: bool>(isa: I, from: *const f32, half: bool, at: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if HALVES && half { isa.load_bf16(from.cast::<u16>().add(at)) } else { isa.load(from.add(at)) } }
}

/// The same of the first `count` lanes, fewer than all; the others are zero.
///
/// # Safety
/// `count` values of that kind are readable there.
#[inline(always)]
pub(crate) unsafe fn load_first<I: Isa, const HALVES: bool>(
    isa: I,
    from: *const f32,
    half: bool,
    at: usize,
    count: usize,
) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        if HALVES && half {
            let mut lanes = [0u16; crate::isa::MOST_LANES];
            std::ptr::copy_nonoverlapping(from.cast::<u16>().add(at), lanes.as_mut_ptr(), count);
            isa.load_bf16(lanes.as_ptr())
        } else {
            isa.load_masked(isa.first(count), from.add(at))
        }
    }
}

/// Stores a vector from value `at` on.
///
/// # Safety
/// `LANES` values of that kind are writable there.
#[inline(always)]
pub(crate) unsafe fn store<I: Isa, const HALVES: bool>(isa: I, to: *mut f32, half: bool, at: usize, value: I::F32) {
    // SAFETY: the caller's promise.
    unsafe {
        if HALVES && half {
            isa.store_bf16(to.cast::<u16>().add(at).cast(), value);
        } else {
            isa.store(to.add(at), value);
        }
    }
}

/// The same of the first `count` lanes, fewer than all.
///
/// # Safety
/// `count` values of that kind are writable there.
#[inline(always)]
pub(crate) unsafe fn store_first<I: Isa, const HALVES: bool>(
    isa: I,
    to: *mut f32,
    half: bool,
    at: usize,
    count: usize,
    value: I::F32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if HALVES && half {
            let mut lanes = [0u16; crate::isa::MOST_LANES];
            isa.store_bf16(lanes.as_mut_ptr().cast(), value);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to.cast::<u16>().add(at), count);
        } else {
            isa.store_masked(isa.first(count), to.add(at), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::values;

    #[test]
    fn narrows_and_widens_on_every_level() {
        for level in Level::available_and_emulated() {
            for len in [0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 100] {
                let x = values(len, len as u64);
                let mut halves = vec![7u16; len];
                convert(level, (&x).into(), ValuesMut::Bf16(&mut halves));
                let want: Vec<u16> = x.iter().map(|&v| bf16::round(v)).collect();
                assert_eq!(halves, want, "{level:?}, {len} values");
                let mut wide = vec![7.0f32; len];
                convert(level, Values::Bf16(&halves), (&mut wide).into());
                let want: Vec<f32> = want.iter().map(|&v| bf16::widen(v)).collect();
                assert_eq!(wide, want, "{level:?}, {len} values");
            }
        }
    }
}
