//! Pretrained weights: tensors with PyTorch's names and layouts, brought into a model's layers.
//!
//! | module | holds |
//! |---|---|
//! | [`file`] | reading a safetensors file of a stranger, refusing everything else with what to do |
//! | [`names`] | what the tensors of each architecture are called, by whom, and how its images are prepared |
//! | [`layout`] | the order of the numbers: OIHW to HWIO, `[out][in]` to `[in][out]` |

mod error;
mod file;
mod layout;
mod names;
#[cfg(test)]
mod tests;

pub use error::{Mismatch, WeightsError};
pub use file::WeightFile;
pub use names::Published;

use super::{Model, ModelError, TrainingRecord};
use crate::layers::shape_text;
use layout::Layout;
use names::Table;
use ocellus_engine::ParameterId;
use std::path::Path;

/// What came of loading pretrained weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedWeights {
    /// Whose names the tensors have: `torchvision`, `timm`, `ocellus`, ….
    pub origin: String,
    /// Parameters that were set.
    pub parameters: usize,
    /// The last layer, where it was left as it was because the file's knows another number of classes.
    pub replaced_head: Option<ReplacedHead>,
    /// What did not fit and was passed over; empty unless [`Strictness::Partial`] allowed it.
    pub passed_over: Mismatch,
}

/// A last layer that keeps its own weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedHead {
    /// The layer.
    pub layer: String,
    /// Classes that the file's layer tells apart.
    pub in_file: usize,
    /// Classes that the model's does.
    pub in_model: usize,
}

/// What is done with weights that fit in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Every parameter must be in the file and every tensor of the file must be used; the last layer may tell apart another
    /// number of classes.
    #[default]
    Strict,
    /// What fits is taken; the rest of the model stays as it is.
    Partial,
}

impl Model {
    /// Takes over pretrained weights from a safetensors file: of this architecture with the names that torchvision, timm or
    /// others gave the tensors, or of an ocellus model. A last layer for another number of classes stays as it is.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut model = ocellus::models::find("resnet18").unwrap().build([224, 224, 3], 10)?;
    /// let loaded = model.load_weights("resnet18.safetensors")?;
    /// assert_eq!(loaded.replaced_head.unwrap().in_file, 1000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the file is none of safetensors, damaged, has a number that is not finite, or does not fit the model; then the
    /// model is as it was.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<LoadedWeights, ModelError> {
        self.load_weights_from(&WeightFile::open(path)?, Strictness::Strict)
    }

    /// As [`load_weights`](Self::load_weights), from a file that was opened.
    ///
    /// # Errors
    /// As there.
    pub fn load_weights_from(
        &mut self,
        file: &WeightFile,
        strictness: Strictness,
    ) -> Result<LoadedWeights, ModelError> {
        let wanted = self.wanted(file)?;
        let head = self.layer_parameters.iter().rposition(|ids| !ids.is_empty()).unwrap_or_default();
        let mut loaded = LoadedWeights { origin: wanted.origin.to_owned(), ..LoadedWeights::default() };
        let mut mismatch = Mismatch::default();
        let (mut values, mut used) = (Vec::new(), vec![false; file.len()]);
        for parameter in &wanted.parameters {
            let (shape, layout) = (&self.parameters.get(parameter.id).shape, &parameter.layout);
            let Some((number, theirs)) = file.find(&parameter.tensor) else {
                mismatch.missing.push(format!("{} ({})", parameter.tensor, self.parameters.get(parameter.id).name));
                continue;
            };
            used[number] = true;
            if layout.fits(shape, theirs) {
                values.push((parameter.id, layout.arrange(shape, &file.values(number)?)));
            } else if let Some(in_file) = layout.other_outputs(shape, theirs).filter(|_| parameter.layer == head) {
                let layer = self.network.architecture.layers[head].name.clone();
                let in_model = shape.last().copied().unwrap_or_default();
                loaded.replaced_head = Some(ReplacedHead { layer, in_file, in_model });
            } else {
                let expected = shape_text(&layout.expected(shape));
                mismatch.shapes.push(format!(
                    "{}: expected {expected}, found {}",
                    parameter.tensor,
                    shape_text(theirs)
                ));
            }
        }
        if loaded.replaced_head.is_some() {
            // A layer that is replaced is replaced as a whole.
            values.retain(|(id, _)| !self.layer_parameters[head].contains(id));
        }
        mismatch.unexpected =
            file.names().zip(used).filter(|(_, used)| !used).map(|(name, _)| name.to_owned()).collect();
        if !mismatch.is_empty() && (strictness == Strictness::Strict || values.is_empty()) {
            return Err(self.misfit(file, mismatch).into());
        }
        loaded.passed_over = mismatch;
        loaded.parameters = values.iter().map(|(_, values)| values.len()).sum();
        for (id, values) in values {
            self.parameters.values_mut(id).copy_from_slice(&values);
        }
        self.forget_calibration();
        self.reset_optimizer();
        self.golden = None;
        self.record = TrainingRecord::default();
        Ok(loaded)
    }

    /// Which tensor of the file each parameter comes from.
    fn wanted(&self, file: &WeightFile) -> Result<Wanted, WeightsError> {
        let layers: Vec<usize> =
            (0..self.layer_parameters.len()).filter(|&layer| !self.layer_parameters[layer].is_empty()).collect();
        let ours = self.tensors(&layers, |layer, parameter| {
            (format!("{}/{parameter}", self.network.architecture.layers[layer].name), Layout::Same)
        });
        let mut best = Wanted { origin: "ocellus", parameters: ours };
        let own = |at: usize| self.network.architecture.layers[layers[at]].name.as_str();
        let own = std::iter::once((None, (0..layers.len()).map(own).collect::<Vec<_>>()));
        let tables = names::tables().iter().filter(|table| table.modules.len() == layers.len());
        let tables =
            tables.map(|table| (Some(table), table.modules.iter().map(|module| module.name.as_str()).collect()));
        for (table, modules) in own.chain(tables) {
            let theirs = self.tensors(&layers, |layer, parameter| {
                let at = layers.iter().position(|&known| known == layer).unwrap_or_default();
                (names::tensor(modules[at], parameter), self.layout_of(layer, parameter))
            });
            if file.found(&theirs) > file.found(&best.parameters) {
                let origin = table.or_else(|| file.table()).map_or("PyTorch", |table| table.origin);
                best = Wanted { origin, parameters: theirs };
            }
        }
        if file.found(&best.parameters) == 0 {
            return Err(self.misfit(file, Mismatch::default()));
        }
        Ok(best)
    }

    fn tensors(&self, layers: &[usize], name: impl Fn(usize, &'static str) -> (String, Layout)) -> Vec<WantedTensor> {
        let of_layer = |&layer: &usize| {
            let specs = self.network.nodes[layer].parameters.iter().zip(&self.layer_parameters[layer]);
            specs.map(move |(spec, &id)| (layer, spec.name, id))
        };
        let wanted = layers.iter().flat_map(of_layer).map(|(layer, parameter, id)| {
            let (tensor, layout) = name(layer, parameter);
            WantedTensor { layer, id, tensor, layout }
        });
        wanted.collect()
    }

    /// How PyTorch lays out a parameter of this layer.
    fn layout_of(&self, layer: usize, parameter: &str) -> Layout {
        match Layout::of(self.network.architecture.layers[layer].layer.class(), parameter) {
            Layout::Dense { .. } => Layout::Dense { image: self.flattened(layer) },
            layout => layout,
        }
    }

    /// The image that was flattened to what this layer takes: PyTorch's channels come before its pixels.
    fn flattened(&self, layer: usize) -> Option<[usize; 3]> {
        let mut at = layer;
        loop {
            let &[before] = &self.network.nodes[at].inputs[..] else { return None };
            let shape = match before.checked_sub(1) {
                None => self.network.input_shape(),
                Some(before) => &self.network.nodes[before].output_shape,
            };
            if let &[height, width, channels] = shape {
                let flat = self.network.architecture.layers[at].layer.class() == "Flatten";
                return (flat && height * width > 1).then_some([height, width, channels]);
            }
            at = before.checked_sub(1)?;
            if !self.layer_parameters[at].is_empty() {
                return None;
            }
        }
    }

    /// The error of weights that do not fit.
    fn misfit(&self, file: &WeightFile, mismatch: Mismatch) -> WeightsError {
        let layers = self.network.architecture.layers.iter().zip(&self.network.nodes);
        let shapes = layers.filter_map(|(config, node)| Some((config.layer.class(), &node.parameters.first()?.shape)));
        // Of the same layers; the last one may tell apart another number of classes.
        let alike = |table: &&names::Table| {
            let count = table.modules.len();
            let ours = shapes.clone();
            let theirs = table.modules.iter().map(|module| (module.class, &module.shape));
            ours.clone().count() == count && ours.zip(theirs).take(count - 1).all(|(ours, theirs)| ours == theirs)
        };
        let model = names::tables().iter().find(alike).map_or("", |table| table.architecture).to_owned();
        let looks_like = file.table().map(|table| (table.architecture.to_owned(), table.origin.to_owned()));
        let examples = file.names().take(3).map(str::to_owned).collect();
        let path = file.path().to_owned();
        if mismatch.is_empty() {
            return WeightsError::OtherNames { path, looks_like, model, examples };
        }
        WeightsError::Mismatch { path, looks_like, model, mismatch: Box::new(mismatch) }
    }
}

/// The tensors that a model takes.
struct Wanted {
    origin: &'static str,
    parameters: Vec<WantedTensor>,
}

/// A parameter and the tensor it comes from.
struct WantedTensor {
    layer: usize,
    id: ParameterId,
    tensor: String,
    layout: Layout,
}

impl WeightFile {
    /// How many of these tensors the file has.
    fn found(&self, wanted: &[WantedTensor]) -> usize {
        wanted.iter().filter(|wanted| self.find(&wanted.tensor).is_some()).count()
    }

    /// The architecture that the tensors' names and shapes are those of, and whose names they are.
    fn table(&self) -> Option<&'static Table> {
        let best = names::tables().iter().max_by(|a, b| self.likeness(a).total_cmp(&self.likeness(b)))?;
        (self.likeness(best) > 0.4).then_some(best)
    }

    /// The share of an architecture's and the file's modules that both have; one of another shape counts half.
    fn likeness(&self, table: &Table) -> f64 {
        let likeness = |module: &names::Module| {
            let found = self.find(&names::tensor(&module.name, module.parameter));
            let fits =
                |(_, shape): (usize, &[usize])| Layout::of(module.class, module.parameter).fits(&module.shape, shape);
            found.map_or(0.0, |found| if fits(found) { 1.0 } else { 0.5 })
        };
        let common: f64 = table.modules.iter().map(likeness).sum();
        let all = (table.modules.len() + self.modules()) as f64 - common;
        common / all.max(1.0)
    }

    /// The name of the architecture that the file holds weights of, as `ocellus models` has it; `None` where it is unknown.
    pub fn architecture(&self) -> Option<&'static str> {
        self.table().map(|table| table.architecture)
    }

    /// Whose names the tensors have.
    pub fn origin(&self) -> Option<&'static str> {
        self.table().map(|table| table.origin)
    }

    /// How many classes the last layer tells apart.
    pub fn classes(&self) -> Option<usize> {
        let last = self.table()?.modules.last()?;
        let (_, shape) = self.find(&names::tensor(&last.name, last.parameter))?;
        shape.first().copied()
    }

    /// How images are prepared for these weights: as a `config.json` of timm beside the file says, or else as the
    /// architecture's publisher does.
    pub fn published(&self) -> Option<Published> {
        names::beside(self.path()).or_else(|| self.table().map(|table| table.published))
    }
}
