//! ReLU and ReLU6 as a part of other kernels: the function, and where its gradient passes.

use crate::isa::Isa;

/// A function that is the identity between two bounds and constant outside, so that its gradient follows from its output
/// (or from its input, alike).
pub(crate) trait Rectifier: Copy {
    fn apply<I: Isa>(isa: I, x: I::F32) -> I::F32;
    /// `dy` where the value lies between the bounds, else zero.
    fn pass<I: Isa>(isa: I, value: I::F32, dy: I::F32) -> I::F32;
}

/// The identity.
#[derive(Clone, Copy)]
pub(crate) struct Linear;
impl Rectifier for Linear {
    #[inline(always)]
    fn apply<I: Isa>(_: I, x: I::F32) -> I::F32 {
        x
    }
    #[inline(always)]
    fn pass<I: Isa>(_: I, _: I::F32, dy: I::F32) -> I::F32 {
        dy
    }
}

/// `max(x, 0)`
#[derive(Clone, Copy)]
pub(crate) struct Relu;
impl Rectifier for Relu {
    #[inline(always)]
    fn apply<I: Isa>(isa: I, x: I::F32) -> I::F32 {
        isa.max(isa.zero(), x)
    }
    #[inline(always)]
    fn pass<I: Isa>(isa: I, value: I::F32, dy: I::F32) -> I::F32 {
        isa.select(isa.greater(value, isa.zero()), dy, isa.zero())
    }
}

/// `min(max(x, 0), 6)`
#[derive(Clone, Copy)]
pub(crate) struct Relu6;
impl Rectifier for Relu6 {
    #[inline(always)]
    fn apply<I: Isa>(isa: I, x: I::F32) -> I::F32 {
        isa.min(isa.splat(6.0), isa.max(isa.zero(), x))
    }
    #[inline(always)]
    fn pass<I: Isa>(isa: I, value: I::F32, dy: I::F32) -> I::F32 {
        let rising = isa.select(isa.greater(value, isa.zero()), dy, isa.zero());
        isa.select(isa.greater(isa.splat(6.0), value), rising, isa.zero())
    }
}

/// Calls `$function::<R, …>(…)` with `R` the rectifier of an [`Epilogue`](crate::conv::Epilogue).
macro_rules! rectified {
    ($epilogue:expr, $R:ident => $call:expr) => {
        match $epilogue {
            crate::conv::Epilogue::Linear => {
                type $R = crate::rectifier::Linear;
                $call
            }
            crate::conv::Epilogue::Relu => {
                type $R = crate::rectifier::Relu;
                $call
            }
            crate::conv::Epilogue::Relu6 => {
                type $R = crate::rectifier::Relu6;
                $call
            }
        }
    };
}
pub(crate) use rectified;
