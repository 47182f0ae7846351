//! Which instruction sets this machine has, and how a kernel body is compiled for each.

use super::Isa;
use super::amx::Amx;
use super::dot::DotLevel;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use std::fmt;

/// An instruction set that this machine was found to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Level(Token, Beside);

/// What a processor has beside the vectors of its level, where that makes a level of its own: sums come about in another order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no tiles there"))]
    Tiles(Amx),
    /// Units that add while others multiply.
    Adders,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set, or one that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Level::available().into_iter().map(Level::name).collect();
        write!(f, "instruction set {:?} is not one of this machine's: {}", self.name, names.join(", "))
    }
}

impl std::error::Error for UnknownLevel {}

/// A computation whose body is compiled for each instruction set.
pub(crate) trait Kernel {
    type Output;
    /// The body; must be `#[inline(always)]`, as must everything it calls with `isa`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

impl Level {
    /// Every level this machine has, best first.
    pub fn available() -> Vec<Level> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(isa) = Avx512::detect() {
                levels.extend(Amx::detect(isa).map(|tiles| Level(Token::Avx512(isa), Beside::Tiles(tiles))));
                levels.extend(isa.adds_beside().then_some(Level(Token::Avx512(isa), Beside::Adders)));
                levels.push(Level(Token::Avx512(isa), Beside::Nothing));
            }
            levels.extend(Avx2::detect().map(|isa| Level(Token::Avx2(isa), Beside::Nothing)));
        }
        #[cfg(target_arch = "aarch64")]
        levels.extend(Neon::detect().map(|isa| Level(Token::Neon(isa), Beside::Nothing)));
        levels.push(Level(Token::Portable(Portable::detect()), Beside::Nothing));
        levels
    }

    /// The best level this machine has.
    pub fn detect() -> Level {
        Level::available()[0]
    }

    /// The level of that name: `amx`, `zen` (AVX-512 and units that add while others multiply), `avx512`, `avx2`, `neon` or `portable`.
    ///
    /// # Errors
    /// Where the name is unknown or the machine lacks it.
    pub fn named(name: &str) -> Result<Level, UnknownLevel> {
        Level::available()
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| UnknownLevel { name: name.to_owned() })
    }

    /// The level's name, as `OCELLUS_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => match self.1 {
                Beside::Nothing => "avx512",
                Beside::Tiles(_) => "amx",
                Beside::Adders => "zen",
            },
            Token::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => "neon",
        }
    }

    /// Runs the kernel, compiled for this level.
    #[inline]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Token::Portable(isa) => kernel.run(isa),
            // SAFETY: the token was made by detecting the features that the wrapper enables.
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(isa) => unsafe { super::avx2::run(isa, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(isa) => unsafe { super::avx512::run(isa, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => unsafe { super::neon::run(isa, kernel) },
        }
    }

    /// Matrix tiles for products of bf16 pairs, where the level has them.
    pub(crate) fn tiles(self) -> Option<Amx> {
        match self.1 {
            Beside::Tiles(tiles) => Some(tiles),
            Beside::Nothing | Beside::Adders => None,
        }
    }

    /// Whether additions take no time beside multiplications, so that [crossed factors](crate::conv::Forward::crossed) gain.
    pub fn adds_beside(self) -> bool {
        self.1 == Beside::Adders
    }

    /// The best way to multiply bytes on this level.
    pub(crate) fn dots(self) -> DotLevel {
        let common = match self.0 {
            Token::Portable(isa) => DotLevel::Portable(isa),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(isa) => DotLevel::Avx2(isa),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(isa) => DotLevel::Avx512(isa),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => DotLevel::Neon(isa),
        };
        common.improved()
    }

    /// Runs a kernel that multiplies pairs of bf16 values: as [`dispatch`](Self::dispatch), with the instructions for
    /// them where the processor has them. Results are the same.
    #[inline]
    pub(crate) fn dispatch_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if let Token::Avx512(isa) = self.0
            && let Some(isa) = isa.with_bf16()
        {
            // SAFETY: the token was made by detecting the features that the wrapper enables.
            return unsafe { super::avx512::run_bf16(isa, kernel) };
        }
        self.dispatch(kernel)
    }

    /// Every level this machine has, and each without the instructions for bf16 that it has beyond its kind.
    #[cfg(test)]
    pub(crate) fn available_and_emulated() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        let emulated = match Level::detect().0 {
            Token::Avx512(isa) if isa.with_bf16().is_some() => {
                Some(Level(Token::Avx512(isa.without_bf16()), Beside::Nothing))
            }
            _ => None,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let emulated = None;
        Level::available().into_iter().chain(emulated).collect()
    }

    /// The level that has tiles, emulated, whether the processor has them or not.
    #[cfg(test)]
    pub(crate) fn with_emulated_tiles() -> Option<Level> {
        #[cfg(target_arch = "x86_64")]
        if let Token::Avx512(isa) = Level::detect().0 {
            return Some(Level(Token::Avx512(isa), Beside::Tiles(Amx::Emulated(isa))));
        }
        None
    }
}
