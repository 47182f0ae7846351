//! The one loop behind every elementwise kernel: whole vectors first, then the tail through a mask.

use crate::isa::{Isa, Kernel, Level};

/// A function of `N` vectors. (A trait and no closure, since only a method can be `#[inline(always)]`.)
pub(crate) trait Map<const N: usize>: Copy {
    fn apply<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// `y[i] = f(x[0][i], x[1][i], …)`.
pub(crate) fn map<M: Map<N>, const N: usize>(level: Level, f: M, x: [&[f32]; N], y: &mut [f32]) {
    for input in x {
        assert_eq!(input.len(), y.len(), "inputs as long as the output");
    }
    level.dispatch(Mapped { f, x, y });
}

struct Mapped<'a, M, const N: usize> {
    f: M,
    x: [&'a [f32]; N],
    y: &'a mut [f32],
}

impl<M: Map<N>, const N: usize> Kernel for Mapped<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = self.y.len();
        let y = self.y.as_mut_ptr();
        let mut i = 0;
        while i + I::LANES <= len {
            let mut v = [isa.zero(); N];
            // SAFETY: `i + LANES <= len`, and every input was checked to be as long as the output.
            unsafe {
                for k in 0..N {
                    v[k] = isa.load(self.x[k].as_ptr().add(i));
                }
                isa.store(y.add(i), self.f.apply(isa, v));
            }
            i += I::LANES;
        }
        if i < len {
            let mask = isa.first(len - i);
            let mut v = [isa.zero(); N];
            // SAFETY: the mask holds the `len - i` lanes that are left in each slice.
            unsafe {
                for k in 0..N {
                    v[k] = isa.load_masked(mask, self.x[k].as_ptr().add(i));
                }
                isa.store_masked(mask, y.add(i), self.f.apply(isa, v));
            }
        }
    }
}
