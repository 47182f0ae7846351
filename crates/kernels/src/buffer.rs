//! Owned memory for values: zeroed, aligned to cache lines, its pages touched once when it is made.

use bytemuck::{Pod, Zeroable};

/// One cache line; the unit of allocation, so that every buffer starts on a line of its own.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A fixed-size block of values, aligned to 64 bytes.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// A zeroed buffer of `len` single-precision values.
    pub fn new(len: usize) -> Self {
        let mut lines = vec![Line([0.0; 16]); len.div_ceil(16)];
        // `vec!` of zeros maps pages without touching them; a fault now is a fault less in the first step.
        for line in lines.iter_mut().step_by(64) {
            std::hint::black_box(&mut *line).0[0] = 0.0;
        }
        Buffer { lines, len }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values.
    pub fn f32(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The values, to write.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }

    /// The same memory as bytes: four for each value.
    pub fn u8(&self) -> &[u8] {
        bytemuck::cast_slice(self.f32())
    }

    /// The same memory as bytes, to write.
    pub fn u8_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.f32_mut())
    }

    /// The same memory as bf16 values: two for each value.
    pub fn bf16(&self) -> &[u16] {
        bytemuck::cast_slice(self.f32())
    }

    /// The same memory as bf16 values, to write.
    pub fn bf16_mut(&mut self) -> &mut [u16] {
        bytemuck::cast_slice_mut(self.f32_mut())
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} values)", self.len)
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        let mut buffer = Buffer::new(values.len());
        buffer.f32_mut().copy_from_slice(values);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_exact() {
        for len in [0, 1, 15, 16, 17, 5000] {
            let buffer = Buffer::new(len);
            assert_eq!(buffer.f32().len(), len);
            assert_eq!(buffer.u8().len(), len * 4);
            assert_eq!(buffer.f32().as_ptr() as usize % 64, 0);
            assert!(buffer.f32().iter().all(|&v| v == 0.0));
        }
    }
}
