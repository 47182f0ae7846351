//! Model files: one safetensors file, readable by any safetensors library.
//!
//! The tensors are the parameters by name (`conv2d/kernel`), and `golden/images` with `golden/outputs`. The metadata's key
//! `ocellus` holds a JSON document: format version, layers, class names, preprocessing, how the model was trained, what
//! it scored, and the ranges that 8-bit prediction needs. Loading computes the outputs of the golden images anew and refuses a file where they differ.

use super::golden::{GoldenImages, Values};
use super::network::{Architecture, LayerError, Network};
use super::{Calibration, Model, ModelError, Precision, TrainingRecord};
use crate::data::Preprocessing;
use crate::durable::{WriteError, write_atomically};
use crate::layers::shape_text;
use crate::metrics::Evaluation;
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The version of the format that this version writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;
/// The metadata's key.
pub(super) const KEY: &str = "ocellus";
const IMAGES: &str = "golden/images";
const OUTPUTS: &str = "golden/outputs";
/// Bytes of the largest file that is read.
const LARGEST: u64 = 1 << 32;
/// Most golden images that are computed.
const MOST_GOLDEN: usize = 16;

/// How far golden outputs may be from the expected ones, relative to the largest of these. On the instruction set that wrote
/// the file they are the same to the bit; others round otherwise.
const TOLERANCE: f32 = 1e-4;

/// Why a model file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read.
    #[error("{}: the model file cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The backup could not be read.
    #[error("{}: the backup cannot be read: {source}", path.display())]
    ReadBackup {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The backup is not of the training that was to go on.
    #[error(
        "{}: is of another training: {difference}. Ask for the same, or begin anew without it",
        path.display()
    )]
    OtherTraining {
        /// The file.
        path: PathBuf,
        /// In what they differ.
        difference: String,
    },
    /// The file is no model file, or damaged.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The file was written by a newer version.
    #[error(
        "{}: has format version {found}, but this version of ocellus reads up to {known}; install a newer ocellus",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that can be read.
        known: u32,
    },
    /// The layers do not fit together.
    #[error("{}: {source}", path.display())]
    Layers {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: LayerError,
    },
    /// A tensor is missing, or not what the layers need.
    #[error("{}: tensor {name:?}: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The model does not give the outputs that it gave when it was saved.
    #[error(
        "{}: the model gives {found} where {expected} was recorded (golden image {image}, output {output}); the file is \
         damaged or was changed",
        path.display()
    )]
    Golden {
        /// The file.
        path: PathBuf,
        /// Which golden image.
        image: usize,
        /// Which of its outputs.
        output: usize,
        /// The output recorded in the file.
        expected: f32,
        /// The output computed now.
        found: f32,
    },
    /// The model was not written, for it would be refused when loaded.
    #[error(
        "{}: not written: the model gives {found} for one of its golden images (image {image}, output {output})",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Which golden image.
        image: usize,
        /// Which of its outputs.
        output: usize,
        /// The output.
        found: f32,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The JSON document in the metadata.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format_version: u32,
    #[serde(flatten)]
    architecture: Architecture,
    #[serde(default)]
    class_names: Vec<String>,
    preprocessing: Preprocessing,
    #[serde(default)]
    training: TrainingRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluation: Option<Evaluation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<Calibration>,
}

impl Model {
    /// Writes the model file, whole or not at all.
    ///
    /// # Errors
    /// Where the file cannot be written, or could not be loaded because the model gives numbers that are not finite; what
    /// was there before is still there then.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let path = path.as_ref();
        let (golden, outputs) = self.golden_outputs()?;
        if let Some(at) = outputs.iter().position(|output| !output.is_finite()) {
            let (count, found) = (self.outputs(), outputs[at]);
            let place = path.to_owned();
            return Err(FileError::NotFinite { path: place, image: at / count, output: at % count, found }.into());
        }
        let document = Document {
            format_version: FORMAT_VERSION,
            architecture: self.network.architecture.clone(),
            class_names: self.class_names.clone(),
            preprocessing: self.preprocessing.clone(),
            training: self.record.clone(),
            evaluation: self.evaluation.clone(),
            calibration: self.calibration.clone(),
        };
        let of_golden = |shape: &[usize]| [&[golden.count], shape].concat();
        let weights = self.weights();
        let mut tensors: Vec<Tensor> =
            weights.map(|(name, shape, values)| (name.into(), Dtype::F32, shape.to_vec(), to_bytes(values))).collect();
        let (dtype, pixels) = match &golden.values {
            Values::U8(values) => (Dtype::U8, values.clone()),
            Values::F32(values) => (Dtype::F32, to_bytes(values)),
        };
        tensors.push((IMAGES.into(), dtype, of_golden(self.input_shape()), pixels));
        tensors.push((OUTPUTS.into(), Dtype::F32, of_golden(self.output_shape()), to_bytes(&outputs)));
        let json = serde_json::to_string(&document).map_err(|error| not_written(&error))?;
        // JSON has no NaN: settings that are none would not come back.
        serde_json::from_str::<Document>(&json).map_err(|error| not_written(&error))?;
        Reader { path }.check_preprocessing(&document.preprocessing, &self.network)?;
        write_tensors(path, &tensors, KEY, json)
    }

    /// The golden images, and what the model gives for them.
    pub(super) fn golden_outputs(&mut self) -> Result<(GoldenImages, Vec<f32>), ModelError> {
        let golden = self.golden.clone().unwrap_or_else(|| GoldenImages::random(self.input_shape()));
        // In single precision, whatever predictions are in.
        let precision = self.precision();
        self.set_precision(Precision::F32)?;
        let outputs = self.predict(golden.images());
        self.set_precision(precision)?;
        Ok((golden, outputs?.values().to_vec()))
    }

    /// Reads a model file, and checks that the model gives the outputs that it gave when it was saved.
    ///
    /// # Errors
    /// Where the file cannot be read, is no model file, is damaged, or is of a newer version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Reader { path }.model(&bytes)
    }
}

pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // Asked before opening: opening a pipe would wait for a writer, and a device may never end.
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(std::io::Error::other("not a regular file of at most 4 GiB"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A tensor to write: name, type, shape, bytes.
pub(super) type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Writes tensors and a JSON document to a safetensors file, whole or not at all.
pub(super) fn write_tensors(path: &Path, tensors: &[Tensor], key: &str, json: String) -> Result<(), ModelError> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| not_written(&error))?;
    let bytes = safetensors::serialize(views, Some(HashMap::from([(key.to_owned(), json)])));
    Ok(write_atomically(path, bytes.map_err(|error| not_written(&error))?).map_err(FileError::from)?)
}

pub(super) fn not_written(error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Argument(format!("the model cannot be written: {error}"))
}

/// Refuses what a newer version wrote.
pub(super) fn check_version(path: &Path, what: &str, json: &str, known: u32) -> Result<(), FileError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u64,
    }
    match serde_json::from_str(json) {
        Ok(Version { format_version: found }) if found > u64::from(known) => {
            Err(FileError::Newer { path: path.to_owned(), found, known })
        }
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = format!("the description of the {what} is damaged: {error}");
            Err(FileError::Format { path: path.to_owned(), problem })
        }
    }
}

/// Reads one file; every error names it.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
}

impl Reader<'_> {
    fn format(&self, problem: impl Into<String>) -> FileError {
        FileError::Format { path: self.path.to_owned(), problem: problem.into() }
    }

    fn tensor_error(&self, name: &str, problem: impl Into<String>) -> FileError {
        FileError::Tensor { path: self.path.to_owned(), name: name.into(), problem: problem.into() }
    }

    fn model(&self, bytes: &[u8]) -> Result<Model, ModelError> {
        let broken = |error| self.format(format!("not a model file, or a damaged one ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        let document = self.document(&metadata)?;
        let layers = |source| FileError::Layers { path: self.path.to_owned(), source };
        let network = document.architecture.check().map_err(layers)?;
        self.check_preprocessing(&document.preprocessing, &network)?;
        self.check_class_names(&document.class_names, &network)?;
        let mut weights = self.weights(&network, &tensors)?;
        let golden = self.golden(&network, &tensors)?;
        let expected = self.numbers(&tensors, OUTPUTS, &[&[golden.count], network.output_shape()].concat())?;
        let mut model = Model::from_network(network, |name, _| weights.remove(name).unwrap_or_default());
        model.class_names = document.class_names;
        model.preprocessing = document.preprocessing;
        model.record = document.training;
        model.evaluation = document.evaluation;
        self.replay(&mut model, &golden, &expected)?;
        model.adopt_calibration(document.calibration, self.path)?;
        model.golden = Some(golden);
        Ok(model)
    }

    fn document(&self, metadata: &Metadata) -> Result<Document, FileError> {
        let Some(json) = metadata.metadata().as_ref().and_then(|map| map.get(KEY)) else {
            return Err(self.format("a safetensors file, but not one of ocellus: its metadata has no key \"ocellus\""));
        };
        check_version(self.path, "model", json, FORMAT_VERSION)?;
        serde_json::from_str(json)
            .map_err(|error| self.format(format!("the description of the model is damaged: {error}")))
    }

    fn check_preprocessing(&self, preprocessing: &Preprocessing, network: &Network) -> Result<(), FileError> {
        let found = preprocessing.image_shape();
        if network.input_shape().len() == 3 && found != network.input_shape() {
            return Err(self.format(format!(
                "the preprocessing makes images of {}, but the layers take {}",
                shape_text(&found),
                shape_text(network.input_shape())
            )));
        }
        if !(preprocessing.scale.is_finite() && preprocessing.offset.is_finite()) {
            return Err(self.format("the preprocessing scales pixels by no finite number"));
        }
        if !(preprocessing.crop > 0.0 && preprocessing.crop <= 1.0) {
            return Err(self.format("the preprocessing keeps no part of an image"));
        }
        Ok(())
    }

    fn check_class_names(&self, names: &[String], network: &Network) -> Result<(), FileError> {
        let outputs: usize = network.output_shape().iter().product();
        if names.is_empty() || names.len() == outputs || (names.len(), outputs) == (2, 1) {
            return Ok(());
        }
        Err(self.format(format!("{} class names, but {outputs} outputs", names.len())))
    }

    /// Every parameter's values; the file has these tensors, the golden ones, and no others.
    fn weights(&self, network: &Network, tensors: &SafeTensors<'_>) -> Result<HashMap<String, Vec<f32>>, FileError> {
        let mut weights = HashMap::new();
        for (name, spec) in network.parameters() {
            let values = self.numbers(tensors, &name, &spec.shape)?;
            weights.insert(name, values);
        }
        match tensors.names().into_iter().find(|name| ![IMAGES, OUTPUTS].contains(name) && !weights.contains_key(*name))
        {
            Some(name) => Err(self.tensor_error(name, "no layer has such a parameter")),
            None => Ok(weights),
        }
    }

    fn view<'a>(&self, tensors: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>, FileError> {
        tensors.tensor(name).map_err(|_| self.tensor_error(name, "expected it, but it is missing"))
    }

    /// The values of a tensor of this shape.
    pub(super) fn numbers(
        &self,
        tensors: &SafeTensors<'_>,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>, FileError> {
        let view = self.view(tensors, name)?;
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            return Err(self.tensor_error(
                name,
                format!(
                    "expected {} of F32, found {} of {:?}",
                    shape_text(shape),
                    shape_text(view.shape()),
                    view.dtype()
                ),
            ));
        }
        Ok(view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn golden(&self, network: &Network, tensors: &SafeTensors<'_>) -> Result<GoldenImages, FileError> {
        let view = self.view(tensors, IMAGES)?;
        let (count, shape) = view.shape().split_first().map_or((0, &[][..]), |(&count, shape)| (count, shape));
        if !(1..=MOST_GOLDEN).contains(&count) || shape != network.input_shape() {
            return Err(self.tensor_error(
                IMAGES,
                format!(
                    "expected 1 to {MOST_GOLDEN} images of {}, found {}",
                    shape_text(network.input_shape()),
                    shape_text(view.shape())
                ),
            ));
        }
        let values = match view.dtype() {
            Dtype::U8 => Values::U8(view.data().to_vec()),
            _ => Values::F32(self.numbers(tensors, IMAGES, view.shape())?),
        };
        Ok(GoldenImages { values, count })
    }

    fn replay(&self, model: &mut Model, golden: &GoldenImages, expected: &[f32]) -> Result<(), ModelError> {
        let found = model.predict(golden.images())?;
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // Written so that a NaN on either side is a difference.
        let same = |(found, expected): (&f32, &f32)| (found - expected).abs() <= TOLERANCE * largest;
        match found.values().iter().zip(expected).position(|pair| !same(pair)) {
            None => Ok(()),
            Some(at) => {
                let (image, output) = (at / model.outputs(), at % model.outputs());
                let path = self.path.to_owned();
                let (expected, found) = (expected[at], found.values()[at]);
                Err(FileError::Golden { path, image, output, expected, found }.into())
            }
        }
    }
}
