//! A file of tensors from a stranger: a safetensors file is read, everything else is refused with what to do.

use super::error::WeightsError;
use crate::model::file::{KEY, read};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A safetensors file of pretrained weights.
pub struct WeightFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// By name.
    tensors: Vec<Tensor>,
    of_ocellus: bool,
}

struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Range<usize>,
}

impl std::fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightFile").field("path", &self.path).field("tensors", &self.tensors.len()).finish()
    }
}

/// What wrappers put before every tensor's name.
const WRAPPERS: [&str; 4] = ["module.", "model.", "_orig_mod.", "backbone."];
/// Tensors that are no weights: counters, and what follows from the shapes.
const NO_WEIGHTS: [&str; 4] = ["num_batches_tracked", "relative_position_index", "attn_mask", "position_ids"];
/// Tensors of an ocellus model file that are no weights.
const GOLDEN: &str = "golden/";

impl WeightFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, is no safetensors file, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(path, bytes)
    }

    fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        if let Some(found) = foreign(&bytes) {
            let path = path.to_owned();
            return Err(match found {
                Foreign::Pickle => WeightsError::Pickle { path },
                Foreign::Other(what) => {
                    WeightsError::Format { path, problem: format!("is {what}; expected weights in a safetensors file") }
                }
            });
        }
        let broken = |error| WeightsError::Format { path: path.to_owned(), problem: explain(&error, bytes.len()) };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let begin = header + 8;
        let of_ocellus = metadata.metadata().as_ref().is_some_and(|keys| keys.contains_key(KEY));
        let mut tensors: Vec<Tensor> = metadata
            .tensors()
            .into_iter()
            .filter(|(name, _)| !NO_WEIGHTS.iter().any(|end| name.ends_with(end)) && !name.starts_with(GOLDEN))
            .map(|(name, info)| {
                let data = begin + info.data_offsets.0..begin + info.data_offsets.1;
                Tensor { name, dtype: info.dtype, shape: info.shape.clone(), data }
            })
            .collect();
        if tensors.is_empty() {
            return Err(WeightsError::Format { path: path.to_owned(), problem: "holds no weights".into() });
        }
        while let Some(wrapper) = WRAPPERS.iter().find(|w| tensors.iter().all(|tensor| tensor.name.starts_with(**w))) {
            tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name[wrapper.len()..].to_owned());
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(WeightFile { path: path.to_owned(), bytes, tensors, of_ocellus })
    }

    #[cfg(test)]
    pub(super) fn open_bytes(bytes: &[u8]) -> Self {
        Self::from_bytes(Path::new("weights.safetensors"), bytes.to_vec()).unwrap()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a model file of ocellus, which holds the layers, too.
    pub fn is_model(&self) -> bool {
        self.of_ocellus
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// How many tensors there are.
    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// How many modules the tensors belong to.
    pub(super) fn modules(&self) -> usize {
        let mut modules: Vec<&str> =
            self.names().map(|name| name.rsplit_once('.').map_or(name, |(module, _)| module)).collect();
        modules.dedup();
        modules.len()
    }

    /// The number of the tensor of this name, and its shape.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &[usize])> {
        let number = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        Some((number, &self.tensors[number].shape))
    }

    /// A tensor's numbers in single precision.
    pub(super) fn values(&self, number: usize) -> Result<Vec<f32>, WeightsError> {
        let tensor = &self.tensors[number];
        let data = &self.bytes[tensor.data.clone()];
        let values: Vec<f32> = match tensor.dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Dtype::F16 => data.as_chunks::<2>().0.iter().map(|bytes| from_half(u16::from_le_bytes(*bytes))).collect(),
            Dtype::BF16 => {
                let widened = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                data.as_chunks::<2>().0.iter().map(widened).collect()
            }
            other => {
                return Err(self.error(tensor, format!("expected numbers of F32, F16, BF16 or F64, found {other:?}")));
            }
        };
        match values.iter().filter(|value| !value.is_finite()).count() {
            0 => Ok(values),
            bad => {
                let first = values.iter().find(|value| !value.is_finite()).copied().unwrap_or(f32::NAN);
                let count = values.len();
                Err(self.error(tensor, format!("{bad} of its {count} numbers are not finite, the first is {first}")))
            }
        }
    }

    fn error(&self, tensor: &Tensor, problem: String) -> WeightsError {
        WeightsError::Tensor { path: self.path.clone(), tensor: tensor.name.clone(), problem }
    }
}

/// What a file is that is none of safetensors.
enum Foreign {
    Pickle,
    Other(&'static str),
}

/// Knows the formats that weights also come in by their first bytes.
fn foreign(bytes: &[u8]) -> Option<Foreign> {
    let begins = |mark: &[u8]| bytes.starts_with(mark);
    let within = |mark: &[u8]| bytes[..bytes.len().min(4096)].windows(mark.len()).any(|window| window == mark);
    // A pickle begins with its protocol; the length of a safetensors header has zeros where a protocol has opcodes.
    let pickle =
        bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) && !begins(&[0x80, bytes[1], 0, 0, 0, 0]);
    if pickle || (begins(b"PK\x03\x04") && (within(b"data.pkl") || within(b"/version") || within(b".data/"))) {
        return Some(Foreign::Pickle);
    }
    let what = match () {
        () if begins(b"PK\x03\x04") && within(b".npy") => "an archive of NumPy arrays",
        () if begins(b"PK\x03\x04") => "a zip archive",
        () if begins(b"\x89HDF\r\n\x1a\n") => "an HDF5 file, as old versions of Keras write them",
        () if begins(b"\x93NUMPY") => "a NumPy array",
        () if begins(b"GGUF") => "a GGUF file",
        () if begins(b"\x1f\x8b") => "a gzip archive",
        () if begins(b"<") => "a web page or XML; was the download refused?",
        () if begins(b"version https://git-lfs") => {
            "a pointer of Git LFS, not the file it stands for: run `git lfs pull`"
        }
        () if bytes.is_empty() => "empty",
        () => return None,
    };
    Some(Foreign::Other(what))
}

fn explain(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("is truncated, or damaged: its header lists other tensors than fit in its {length} bytes")
        }
        SafeTensorError::InvalidHeaderLength => {
            "is truncated, or no safetensors file: its header is longer than the file".to_owned()
        }
        error => format!("is no safetensors file, or a damaged one ({error})"),
    }
}

/// A number of IEEE half precision.
fn from_half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 31, u32::from(bits) & 1023);
    match exponent {
        // Below the normal numbers: a multiple of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
        ] {
            assert_eq!(from_half(bits), value, "{bits:x}");
        }
        assert!(from_half(0x7c00).is_infinite() && from_half(0x7e00).is_nan());
        assert_eq!(from_half(0x8000).to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn other_formats_are_known() {
        let refused =
            |bytes: &[u8]| WeightFile::from_bytes(Path::new("w.bin"), bytes.to_vec()).unwrap_err().to_string();
        for pickle in [&b"PK\x03\x04....archive/data.pkl"[..], b"\x80\x02\x8a\x0al\xfc\x9cF", b"\x80\x04\x95abc"] {
            let error = refused(pickle);
            assert!(error.contains("is a pickle of PyTorch") && error.contains("python -c"), "{error}");
            assert!(error.contains("torch.load('w.bin'") && error.contains("'w.safetensors'"), "{error}");
        }
        for (bytes, what) in [
            (&b"PK\x03\x04....a.npy"[..], "NumPy"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"<!DOCTYPE html>", "web page"),
            (b"", "empty"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"text that is long enough to be a header", "no safetensors file"),
        ] {
            let error = refused(bytes);
            assert!(error.starts_with("w.bin: ") && error.contains(what), "{error}");
        }
    }
}
