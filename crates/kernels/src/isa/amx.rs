//! Matrix tiles (AMX): 16 rows of 64 bytes in a register, whose products of bf16 pairs one instruction sums.
//!
//! `TDPBF16PS` sums the products of the even values of up to 16 pairs, those of the odd ones, and adds both to a
//! single-precision number; every step rounds to nearest, and denormal numbers count as zero. The order of the sums is not that of
//! `VDPBF16PS`, so that results are others than on a processor without tiles, to the same tolerance. Tests emulate the tiles.

use super::{Isa, Kernel};

/// Rows of a tile, and slots (pairs, or single-precision sums) in a row.
pub(crate) const TILE: usize = 16;

/// Eight tiles: 0 to 3 hold sums, 4 and 5 rows of the left factor, 6 and 7 of the right one.
pub(crate) trait Tiles {
    /// Makes all tiles ready for products of so many slots (at most 16): sums of 16 by 16, rows of `slots`.
    fn configure(&mut self, slots: usize);
    /// Forgets the tiles, so that the system need not keep them.
    fn release(&mut self);
    /// Sets a tile of sums to zero.
    /// # Safety
    /// The tiles must be [configured](Self::configure).
    unsafe fn zero<const T: u8>(&mut self);
    /// Loads the rows of a tile, one every `pitch` slots.
    /// # Safety
    /// The tiles must be configured, and their rows readable there.
    unsafe fn load<const T: u8>(&mut self, from: *const f32, pitch: usize);
    /// Stores 16 rows of 16 sums side by side.
    /// # Safety
    /// The tiles must be configured, and 256 values writable.
    unsafe fn store<const T: u8>(&mut self, to: *mut f32);
    /// `sums[i][j] += a[i][k] * b[k][j]` for the pairs of both.
    /// # Safety
    /// The tiles must be configured, and those of the factors loaded.
    unsafe fn multiply_add<const SUMS: u8, const A: u8, const B: u8>(&mut self);
}

/// A computation on tiles, with vectors beside them.
pub(crate) trait TileKernel {
    /// The body; must be `#[inline(always)]`, as must everything it calls with `isa`.
    fn run<I: Isa, T: Tiles>(self, isa: I, tiles: &mut T);
}

/// The kernel as one of vectors.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no tiles there"))]
struct OnTiles<K, T>(K, T);

impl<K: TileKernel, T: Tiles> Kernel for OnTiles<K, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        self.0.run(isa, &mut self.1);
    }
}

/// Proof that there are tiles.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amx {
    /// The processor has AMX-TILE and AMX-BF16 beside AVX512_BF16, and the system lets this process use them.
    Processor(super::avx512::Avx512<true>),
    #[cfg(test)]
    Emulated(super::avx512::Avx512),
}

/// Proof that there are tiles, which no processor of this architecture gives.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amx {}

impl Amx {
    /// Runs the kernel, compiled for the vectors that are there beside the tiles.
    pub(crate) fn run<K: TileKernel>(self, kernel: K) {
        #[cfg(target_arch = "x86_64")]
        match self {
            // SAFETY: the token was made by detecting the features that the wrapper enables.
            Amx::Processor(isa) => unsafe { super::avx512::run_bf16(isa, OnTiles(kernel, processor::Processor)) },
            // SAFETY: as above.
            #[cfg(test)]
            Amx::Emulated(isa) => unsafe { super::avx512::run(isa, OnTiles(kernel, emulated::Emulated::default())) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = kernel;
            match self {}
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod processor {
    use super::super::avx512::Avx512;
    use super::{Amx, TILE, Tiles};
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    impl Amx {
        pub(in super::super) fn detect(isa: Avx512) -> Option<Self> {
            static ALLOWED: OnceLock<bool> = OnceLock::new();
            let isa = isa.with_bf16()?;
            ALLOWED.get_or_init(allowed).then_some(Amx::Processor(isa))
        }
    }

    /// Whether processor and system have tiles, and let this process use them.
    fn allowed() -> bool {
        const TILES: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        let linux = cfg!(target_os = "linux");
        if !linux || __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & (TILES | BF16) != TILES | BF16 {
            return false;
        }
        // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): the system keeps the tiles of a process that asks.
        let (number, request, feature) = (158i64, 0x1023u64, 18u64);
        let result: i64;
        // SAFETY: this call of Linux takes two numbers and touches no memory; it changes the registers named.
        unsafe {
            asm!(
                "syscall", inlateout("rax") number => result, in("rdi") request, in("rsi") feature,
                lateout("rcx") _, lateout("r11") _, options(nostack)
            );
        }
        result == 0
    }

    /// The processor's tiles, as `Amx::Processor` proves.
    pub(super) struct Processor;

    /// What `LDTILECFG` reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    // SAFETY of every block in this implementation: `Amx::Processor` proves the instructions; they touch tiles, and the memory
    // that is the caller's promise.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers six one-line wrappers")]
    impl Tiles for Processor {
        #[inline(always)]
        fn configure(&mut self, slots: usize) {
            assert!((1..=TILE).contains(&slots), "slots of a tile");
            let (mut bytes, mut rows) = ([0; 16], [0; 16]);
            for tile in 0..8 {
                bytes[tile] = if matches!(tile, 4 | 5) { 4 * slots as u16 } else { 64 };
                rows[tile] = if tile >= 6 { slots as u8 } else { 16 };
            }
            let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows };
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags)) }
        }
        #[inline(always)]
        fn release(&mut self) {
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
        }
        #[inline(always)]
        unsafe fn zero<const T: u8>(&mut self) {
            unsafe { asm!("tilezero tmm{}", const T, options(nostack, nomem, preserves_flags)) }
        }
        #[inline(always)]
        unsafe fn load<const T: u8>(&mut self, from: *const f32, pitch: usize) {
            unsafe {
                asm!("tileloadd tmm{}, [{} + {}]", const T, in(reg) from, in(reg) 4 * pitch,
                     options(nostack, readonly, preserves_flags));
            }
        }
        #[inline(always)]
        unsafe fn store<const T: u8>(&mut self, to: *mut f32) {
            unsafe {
                asm!("tilestored [{} + {}], tmm{}", in(reg) to, in(reg) 64usize, const T,
                     options(nostack, preserves_flags));
            }
        }
        #[inline(always)]
        unsafe fn multiply_add<const SUMS: u8, const A: u8, const B: u8>(&mut self) {
            unsafe {
                asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUMS, const A, const B,
                     options(nostack, nomem, preserves_flags));
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod emulated {
    use super::{TILE, Tiles};
    use crate::bf16;

    /// Tiles in memory.
    #[derive(Default)]
    pub(super) struct Emulated {
        slots: usize,
        tiles: [[[f32; TILE]; TILE]; 8],
    }

    /// `a + b`, where denormal numbers count as zero.
    fn add(a: f32, b: f32) -> f32 {
        let flush = |v: f32| if v.is_subnormal() { 0.0f32.copysign(v) } else { v };
        flush(flush(a) + flush(b))
    }

    impl Tiles for Emulated {
        fn configure(&mut self, slots: usize) {
            *self = Emulated { slots, ..Emulated::default() };
        }
        fn release(&mut self) {
            *self = Emulated::default();
        }
        unsafe fn zero<const T: u8>(&mut self) {
            self.tiles[usize::from(T)] = Default::default();
        }
        unsafe fn load<const T: u8>(&mut self, from: *const f32, pitch: usize) {
            let tile = usize::from(T);
            let (rows, columns) =
                (if tile >= 6 { self.slots } else { TILE }, if tile / 2 == 2 { self.slots } else { TILE });
            for row in 0..rows {
                for column in 0..columns {
                    // SAFETY: the caller's promise.
                    self.tiles[tile][row][column] = unsafe { *from.add(row * pitch + column) };
                }
            }
        }
        unsafe fn store<const T: u8>(&mut self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { to.cast::<[[f32; TILE]; TILE]>().write_unaligned(self.tiles[usize::from(T)]) };
        }
        unsafe fn multiply_add<const SUMS: u8, const A: u8, const B: u8>(&mut self) {
            let [sums, a, b] = [SUMS, A, B].map(usize::from);
            for row in 0..TILE {
                for column in 0..TILE {
                    let (mut even, mut odd) = (0.0, 0.0);
                    for k in 0..self.slots {
                        let (a, b) = (bf16::split(self.tiles[a][row][k]), bf16::split(self.tiles[b][k][column]));
                        even = bf16::multiply_add(a.0, b.0, even);
                        odd = bf16::multiply_add(a.1, b.1, odd);
                    }
                    self.tiles[sums][row][column] = add(self.tiles[sums][row][column], add(even, odd));
                }
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::Level;

    /// One product of tiles, over what the sums hold.
    struct Multiply<'a> {
        slots: usize,
        a: &'a [f32],
        b: &'a [f32],
        sums: &'a mut [f32],
    }

    impl TileKernel for Multiply<'_> {
        #[inline(always)]
        fn run<I: Isa, T: Tiles>(self, _: I, tiles: &mut T) {
            assert!([self.a.len(), self.b.len(), self.sums.len()].iter().all(|&len| len >= TILE * TILE), "whole tiles");
            tiles.configure(self.slots);
            // SAFETY: the tiles are configured, and the slices hold whole ones.
            unsafe {
                tiles.load::<0>(self.sums.as_ptr(), TILE);
                tiles.load::<4>(self.a.as_ptr(), TILE);
                tiles.load::<6>(self.b.as_ptr(), TILE);
                tiles.multiply_add::<0, 4, 6>();
                tiles.store::<0>(self.sums.as_mut_ptr());
            }
            tiles.release();
        }
    }

    #[test]
    fn the_emulation_computes_the_bits_of_the_processor() {
        let Some(processor) = Level::detect().tiles() else { return };
        let emulated = Level::with_emulated_tiles().and_then(Level::tiles).expect("vectors of a tile's rows");
        let mut state = 1u64;
        // Pairs of any size, of about one, and such whose products are about the least. (The sign of sums that denormal numbers
        // alone make, which count as zero, is not the processor's.)
        for (least, most) in [(0, 255), (120, 130), (50, 66)] {
            let mut numbers = || -> Vec<f32> {
                let mut half = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let random = (state >> 33) as u32;
                    (random & 0x807f) | (least + (random >> 16) % (most - least + 1)) << 7
                };
                (0..TILE * TILE).map(|_| f32::from_bits(half() | half() << 16)).collect()
            };
            for slots in [16, 12, 8, 1] {
                let (a, b, before) = (numbers(), numbers(), numbers());
                let [mut want, mut got] = [before.clone(), before];
                processor.run(Multiply { slots, a: &a, b: &b, sums: &mut got });
                emulated.run(Multiply { slots, a: &a, b: &b, sums: &mut want });
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert!(
                        got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                        "{got:e} instead of {want:e} at {i}, {slots} slots, exponents {least} to {most}"
                    );
                }
            }
        }
    }
}
