//! Packed forms of parameters: the orders in which kernels read weights, made again whenever these have changed.

use crate::Pool;
use crate::pool::Disjoint;
use std::ops::Range;

/// A kernel that reads a parameter in an order of its own.
pub trait Packing: Send + Sync {
    /// Values that [`pack`](Self::pack) writes.
    fn packed_len(&self) -> usize;

    /// Brings a parameter into the order that the kernel reads.
    ///
    /// # Panics
    /// Where a slice does not have the kernel's length.
    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]);

    /// Where the parameter can be cut into rows that are packed apart, if it can.
    fn cut(&self) -> Option<Cut> {
        None
    }

    /// Packs some rows, the same to the bit as [`pack`](Self::pack) does.
    ///
    /// # Safety
    /// They must be rows of a parameter of [`cut`](Self::cut)'s shape, cut at multiples of its unit, with a form as long as this kernel's.
    unsafe fn pack_rows(&self, _rows: &WeightRows) {
        unreachable!("the parameter is packed as a whole")
    }
}

/// A parameter `[taps][rows][columns]`, rows being a convolution's input channels, and where it can be cut: a row is that of every tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub(crate) taps: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Cuts are at multiples of so many rows.
    pub(crate) unit: usize,
}

impl Cut {
    /// A parameter whose values have nothing to do with each other, cut into cache lines.
    pub(crate) fn of_values(len: usize) -> Self {
        Cut { taps: 1, rows: len, columns: 1, unit: 32 }
    }

    /// Where a parameter can be cut for all of these forms of it, if it can.
    pub(crate) fn of_forms(forms: &[Option<Packed<'_>>]) -> Option<Self> {
        let mut cuts = forms.iter().flatten().map(|form| form.packing.cut());
        let first = cuts.next()??;
        cuts.try_fold(first, |a, b| {
            let b = b?;
            // Units are vectors of one level, or single rows.
            let unit = a.unit.max(b.unit);
            let alike = [a.taps, a.rows, a.columns] == [b.taps, b.rows, b.columns];
            (alike && unit.is_multiple_of(a.unit) && unit.is_multiple_of(b.unit)).then_some(Cut { unit, ..a })
        })
    }

    /// Values of the parameter.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.row_len()
    }

    /// Values of a row, those of all taps together.
    pub(crate) fn row_len(&self) -> usize {
        self.taps * self.columns
    }

    /// Where one tap's values of some rows lie in the parameter.
    pub(crate) fn values(&self, tap: usize, rows: &Range<usize>) -> Range<usize> {
        let first = tap * self.rows;
        (first + rows.start) * self.columns..(first + rows.end) * self.columns
    }
}

/// A packed form of a parameter.
pub struct Packed<'a> {
    /// The kernel that reads it.
    pub packing: &'a dyn Packing,
    /// Its memory, as long as the kernel says.
    pub to: &'a mut [f32],
}

/// Some rows of a parameter and their places in a packed form, which belong to one thread alone. Only an update makes them.
pub struct WeightRows {
    weights: Disjoint<f32>,
    cut: Cut,
    rows: Range<usize>,
    packed: Disjoint<f32>,
}

impl WeightRows {
    /// # Safety
    /// While it lives, `weights` must be a parameter and `packed` a form of it of the length that its [`Packing`] says, no one may write
    /// these rows, and no one else may hold their places in the form.
    pub(crate) unsafe fn new(weights: Disjoint<f32>, cut: Cut, rows: Range<usize>, packed: Disjoint<f32>) -> Self {
        WeightRows { weights, cut, rows, packed }
    }

    /// Which rows.
    pub(crate) fn range(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// One tap's values of these rows.
    pub(crate) fn tap(&self, tap: usize) -> &[f32] {
        assert!(tap < self.cut.taps, "tap {tap} of {}", self.cut.taps);
        let values = self.cut.values(tap, &self.rows);
        // SAFETY: the promise of `new`: they lie in the parameter, and no one writes them.
        unsafe { self.weights.range(values.start, values.end) }
    }

    /// The packed form, to write the places of these rows and no others.
    pub(crate) fn packed(&self) -> Disjoint<f32> {
        self.packed
    }
}
