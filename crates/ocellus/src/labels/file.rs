//! The file of a run's trajectories: safetensors, readable by any safetensors library.
//!
//! Tensors: `margin` and `loss` as f32 and `rival` as u16, each (epoch, sample); `label` as u32 (sample); `epoch` as u64; the samples'
//! names, one after another, as UTF-8 bytes in `names`, and where each ends in `name_ends`. Metadata: `classes`, a JSON list.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::Trajectories;
use crate::durable::{WriteError, write_atomically};

/// Bytes of the largest file that is read.
const LARGEST: u64 = 1 << 31;

/// What a run keeps of its training samples.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRecord {
    /// How training saw them.
    pub trajectories: Trajectories,
    /// The name of each.
    pub names: Vec<String>,
    /// The names of the classes.
    pub class_names: Vec<String>,
}

/// A record of samples could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SampleRecordError {
    /// The file could not be read.
    #[error("{}: {source}; a training writes it, if its version of ocellus is recent enough", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is damaged, or something else.
    #[error("{}: is no record of a training's samples: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        problem: String,
    },
}

impl SampleRecord {
    /// Write the file, all of it or nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), WriteError> {
        let kept = &self.trajectories;
        let names = self.names.concat();
        let ends = self.names.iter().scan(0u64, |end, name| {
            *end += name.len() as u64;
            Some(*end)
        });
        let mut tensors = kept.tensors();
        tensors.push(("names".into(), Dtype::U8, vec![names.len()], names.into_bytes()));
        tensors.push(("name_ends".into(), Dtype::U64, vec![kept.samples], ends.flat_map(u64::to_le_bytes).collect()));
        let invalid = |error: &dyn std::fmt::Display| WriteError {
            path: path.to_owned(),
            source: std::io::Error::other(error.to_string()),
        };
        let views = tensors
            .iter()
            .map(|(name, kind, shape, bytes)| Ok((name.as_str(), TensorView::new(*kind, shape.clone(), bytes)?)));
        let views: Vec<_> =
            views.collect::<Result<_, safetensors::SafeTensorError>>().map_err(|error| invalid(&error))?;
        let classes = serde_json::to_string(&self.class_names).map_err(|error| invalid(&error))?;
        let metadata = HashMap::from([("classes".to_owned(), classes)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| invalid(&error))?;
        write_atomically(path, file)
    }

    /// Read a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it should be.
    pub fn load(path: &Path) -> Result<Self, SampleRecordError> {
        let unreadable = |source| SampleRecordError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let wrong = |problem: String| SampleRecordError::Format { path: path.to_owned(), problem };
        if length > LARGEST {
            return Err(wrong(format!("it has {length} bytes, more than {LARGEST}")));
        }
        file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(&bytes).map_err(wrong)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let classes = metadata.metadata().as_ref().and_then(|entries| entries.get("classes"));
        let classes = classes.ok_or("its metadata does not name the classes")?;
        let class_names: Vec<String> = serde_json::from_str(classes).map_err(|error| format!("classes: {error}"))?;
        let trajectories = Trajectories::from_tensors(&file)?;
        let (labels, samples) = (&trajectories.labels, trajectories.samples);
        if let Some(label) = labels.iter().find(|&&label| label as usize >= class_names.len() && label != u32::MAX) {
            return Err(format!("label {label}, but there are {} classes", class_names.len()));
        }
        let text = tensor(&file, "names", Dtype::U8)?;
        let text = std::str::from_utf8(text.data()).map_err(|_| "names are not UTF-8".to_owned())?;
        let ends = numbers(&tensor(&file, "name_ends", Dtype::U64)?, u64::from_le_bytes);
        let mut start = 0;
        let mut name = |end: u64| {
            let end = usize::try_from(end).ok()?;
            let name = text.get(start..end)?.to_owned();
            start = end;
            Some(name)
        };
        let names: Option<Vec<String>> = ends.iter().map(|&end| name(end)).collect();
        let names = names.filter(|names| names.len() == samples).ok_or("names do not belong to the samples")?;
        Ok(Self { trajectories, names, class_names })
    }
}

impl Trajectories {
    /// The names of the tensors.
    pub(crate) const TENSORS: [&str; 5] = ["margin", "loss", "rival", "label", "epoch"];

    /// What is kept, as tensors' names, types, shapes and bytes.
    pub(crate) fn tensors(&self) -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)> {
        let (rows, samples) = (self.epochs.len(), self.samples);
        let [margin, loss, rival, label, epoch] = Self::TENSORS.map(String::from);
        vec![
            (margin, Dtype::F32, vec![rows, samples], little_endian(&self.margins, |v| v.to_le_bytes())),
            (loss, Dtype::F32, vec![rows, samples], little_endian(&self.losses, |v| v.to_le_bytes())),
            (rival, Dtype::U16, vec![rows, samples], little_endian(&self.rivals, |v| v.to_le_bytes())),
            (label, Dtype::U32, vec![samples], little_endian(&self.labels, |v| v.to_le_bytes())),
            (epoch, Dtype::U64, vec![rows], little_endian(&self.epochs, |v| v.to_le_bytes())),
        ]
    }

    /// What [`tensors`](Self::tensors) gave.
    pub(crate) fn from_tensors(file: &SafeTensors<'_>) -> Result<Self, String> {
        let [margin, loss, rival, label, epoch] = Self::TENSORS;
        let labels = numbers(&tensor(file, label, Dtype::U32)?, u32::from_le_bytes);
        let epochs = numbers(&tensor(file, epoch, Dtype::U64)?, u64::from_le_bytes);
        let samples = labels.len();
        let table = |name: &str, kind: Dtype| {
            let tensor = tensor(file, name, kind)?;
            if tensor.shape() != [epochs.len(), samples] {
                return Err(format!("{name}: expected {} x {samples}, got {:?}", epochs.len(), tensor.shape()));
            }
            Ok(tensor)
        };
        let (margins, losses) = (table(margin, Dtype::F32)?, table(loss, Dtype::F32)?);
        let (margins, losses) = (numbers(&margins, f32::from_le_bytes), numbers(&losses, f32::from_le_bytes));
        let rivals = numbers(&table(rival, Dtype::U16)?, u16::from_le_bytes);
        Ok(Self { samples, labels, epochs, margins, losses, rivals, ..Self::default() })
    }
}

fn tensor<'a>(file: &SafeTensors<'a>, name: &str, kind: Dtype) -> Result<TensorView<'a>, String> {
    let tensor = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    match tensor.dtype() {
        found if found == kind => Ok(tensor),
        found => Err(format!("{name}: expected {kind:?}, got {found:?}")),
    }
}

fn little_endian<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

fn numbers<T, const N: usize>(tensor: &TensorView<'_>, number: impl Fn([u8; N]) -> T) -> Vec<T> {
    tensor.data().as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::Loss;

    fn record() -> SampleRecord {
        let mut trajectories = Trajectories::new(3, 2, &Loss::categorical_cross_entropy());
        for epoch in 0..2 {
            trajectories.begin_epoch(epoch);
            trajectories.record(&[2, 0, 1], &[1, 0, 1], &[0.2, 0.8, 0.6, 0.4, 0.5, 0.5]);
        }
        let names = ["a/1.png", "", "größer"].map(String::from).to_vec();
        SampleRecord { trajectories, names, class_names: vec!["x".into(), "y".into()] }
    }

    #[test]
    fn what_is_written_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.safetensors");
        record().save(&path).unwrap();
        let read = SampleRecord::load(&path).unwrap();
        assert_eq!((&read.names, &read.class_names), (&record().names, &record().class_names));
        assert_eq!(read.trajectories.labels(), [0, 1, 1]);
        for sample in 0..3 {
            assert!(read.trajectories.margins(sample).eq(record().trajectories.margins(sample)));
            assert!(read.trajectories.losses(sample).eq(record().trajectories.losses(sample)));
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.safetensors");
        record().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(SampleRecord::load(&path).is_err(), "{length}");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x41;
            // Whatever it gives, it is an error or a record.
            let _ = SampleRecord::parse(&bytes);
        }
        assert!(SampleRecord::load(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
