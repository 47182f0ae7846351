//! What the labs of convolutions share: when to measure, on which instruction set, and numbers to compute with.

use ocellus_kernels::{Buffer, Level};

/// Whether to measure: only `cargo bench` passes `--bench`; under `cargo test` there is nothing to do.
pub(crate) fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// The instruction set that `OCELLUS_ISA` names, else the best one.
///
/// # Panics
/// Where it names none of this machine's.
pub(crate) fn level() -> Level {
    match std::env::var("OCELLUS_ISA") {
        Ok(name) => Level::named(&name).expect("OCELLUS_ISA names an instruction set of this machine"),
        Err(_) => Level::detect(),
    }
}

/// Numbers in (-1, 1), the same for the same seed.
pub(crate) fn noise(seed: u32, len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    for value in buffer.f32_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *value = (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
    }
    buffer
}
