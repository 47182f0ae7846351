//! Matrix tiles (AMX): 16 rows of 64 bytes in a register, whose products of bf16 pairs one instruction sums.
//!
//! `TDPBF16PS` sums the products of the even values of up to 16 pairs, those of the odd ones, and adds both to a
//! single-precision number; every step rounds to nearest, and denormal numbers count as zero. The order of the sums is not that of
//! `VDPBF16PS`, so that results are others than on a processor without tiles, to the same tolerance.

use super::Isa;

/// Rows of a tile, and slots (pairs, or single-precision sums) in a row.
pub(crate) const TILE: usize = 16;

/// A computation on tiles.
pub(crate) trait TileKernel {
    type Output;
    /// The body; must be `#[inline(always)]`, as must everything it calls with `isa`.
    fn run<I: Isa>(self, isa: I, tiles: Amx) -> Self::Output;
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use absent::Amx;
#[cfg(target_arch = "x86_64")]
pub(crate) use present::Amx;

#[cfg(target_arch = "x86_64")]
mod present {
    use super::super::avx512::{self, Avx512};
    use super::TileKernel;
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    /// Proof that the processor has AMX-TILE and AMX-BF16 beside AVX512_BF16, and that the system lets this process use them.
    ///
    /// Tiles 0 to 3 hold sums, 4 and 5 rows of the left factor, 6 and 7 of the right one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Amx {
        isa: Avx512<true>,
    }

    /// What `LDTILECFG` reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Whether processor and system have tiles, and let this process use them.
    fn allowed() -> bool {
        const TILE: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        if !cfg!(target_os = "linux") || !is_x86_feature_detected!("xsave") || __cpuid_count(0, 0).eax < 7 {
            return false;
        }
        if __cpuid_count(7, 0).edx & (TILE | BF16) != TILE | BF16 {
            return false;
        }
        // The system keeps the tiles of a process that asks: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
        let (number, request, feature) = (158i64, 0x1023u64, 18u64);
        let result: i64;
        // SAFETY: this call of Linux takes two numbers and touches no memory of the program; it changes what two registers hold.
        unsafe {
            asm!(
                "syscall", inlateout("rax") number => result, in("rdi") request, in("rsi") feature,
                lateout("rcx") _, lateout("r11") _, options(nostack)
            );
        }
        result == 0
    }

    impl Amx {
        pub(in super::super) fn detect(isa: Avx512) -> Option<Self> {
            static ALLOWED: OnceLock<bool> = OnceLock::new();
            let isa = isa.with_bf16()?;
            ALLOWED.get_or_init(allowed).then_some(Amx { isa })
        }

        /// Runs the kernel, compiled for the vectors that are there beside the tiles.
        pub(crate) fn run<K: TileKernel>(self, kernel: K) -> K::Output {
            // SAFETY: the token was made by detecting the features that the wrapper enables.
            unsafe { avx512::run_tiles(self.isa, self, kernel) }
        }

        /// Makes all tiles ready for products of so many slots (at most 16): sums of 16 by 16, rows of `slots`.
        #[inline(always)]
        pub(crate) fn configure(self, slots: usize) {
            assert!((1..=super::TILE).contains(&slots), "slots of a tile");
            let (mut bytes, mut rows) = ([0; 16], [0; 16]);
            for tile in 0..8 {
                bytes[tile] = if matches!(tile, 4 | 5) { 4 * slots as u16 } else { 64 };
                rows[tile] = if tile >= 6 { slots as u8 } else { 16 };
            }
            let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows };
            // SAFETY: the token proves the instruction; the configuration is one of palette 1.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags)) }
        }

        /// Forgets the tiles, so that the system need not keep them.
        #[inline(always)]
        pub(crate) fn release(self) {
            // SAFETY: the token proves the instruction, which touches tiles only.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
        }

        /// Sets a tile of sums to zero.
        /// # Safety
        /// The tiles must be [configured](Self::configure).
        #[inline(always)]
        pub(crate) unsafe fn zero<const T: u8>(self) {
            // SAFETY: the caller's promise.
            unsafe { asm!("tilezero tmm{}", const T, options(nostack, nomem, preserves_flags)) }
        }

        /// Loads the rows of a tile, one every `pitch` slots.
        /// # Safety
        /// The tiles must be configured, and their rows readable there.
        #[inline(always)]
        pub(crate) unsafe fn load<const T: u8>(self, from: *const f32, pitch: usize) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tileloadd tmm{}, [{} + {}]", const T, in(reg) from, in(reg) 4 * pitch, options(nostack, readonly, preserves_flags));
            }
        }

        /// Stores 16 rows of 16 sums side by side.
        /// # Safety
        /// The tiles must be configured, and 256 values writable.
        #[inline(always)]
        pub(crate) unsafe fn store<const T: u8>(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tilestored [{} + {}], tmm{}", in(reg) to, in(reg) 64usize, const T, options(nostack, preserves_flags));
            }
        }

        /// `sums[i][j] += a[i][k] * b[k][j]` for the pairs of both.
        /// # Safety
        /// The tiles must be configured, and those of the factors loaded.
        #[inline(always)]
        pub(crate) unsafe fn multiply_add<const SUMS: u8, const A: u8, const B: u8>(self) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUMS, const A, const B, options(nostack, nomem, preserves_flags));
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod absent {
    use super::TileKernel;

    /// Tiles, which no processor of this architecture has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Amx {}

    #[allow(clippy::unused_self, reason = "the same methods as where there are tiles")]
    impl Amx {
        pub(crate) fn run<K: TileKernel>(self, _: K) -> K::Output {
            match self {}
        }
        pub(crate) fn configure(self, _: usize) {
            match self {}
        }
        pub(crate) fn release(self) {
            match self {}
        }
        pub(crate) unsafe fn zero<const T: u8>(self) {
            match self {}
        }
        pub(crate) unsafe fn load<const T: u8>(self, _: *const f32, _: usize) {
            match self {}
        }
        pub(crate) unsafe fn store<const T: u8>(self, _: *mut f32) {
            match self {}
        }
        pub(crate) unsafe fn multiply_add<const SUMS: u8, const A: u8, const B: u8>(self) {
            match self {}
        }
    }
}
