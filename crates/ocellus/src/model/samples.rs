//! What a model is given: images with or without targets, from a data set or from arrays in memory.

use super::ModelError;
use crate::data::{DataError, Dataset};
use crate::layers::shape_text;
use std::ops::Range;

/// Images: a data set's, or an array in the order sample, height, width, channel.
#[derive(Clone, Copy, Debug)]
pub enum Images<'a> {
    /// The images of a data set, which are bytes.
    Dataset(&'a Dataset),
    /// Bytes; they are scaled as the model's preprocessing says.
    U8(&'a [u8]),
    /// Numbers, which go into the model as they are.
    F32(&'a [f32]),
}

/// What the model should give.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The class of each sample.
    Classes(&'a [u32]),
    /// The wanted outputs of each sample, one after the other.
    Values(&'a [f32]),
}

/// Images with their targets; made from `&dataset`, or from a pair `(&images, &labels)` of arrays.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// The images.
    pub images: Images<'a>,
    /// The targets.
    pub targets: Targets<'a>,
}

impl<'a> From<&'a Dataset> for Images<'a> {
    fn from(dataset: &'a Dataset) -> Self {
        Images::Dataset(dataset)
    }
}

impl<'a> From<&'a Dataset> for Samples<'a> {
    fn from(dataset: &'a Dataset) -> Self {
        Samples { images: dataset.into(), targets: Targets::Classes(dataset.labels()) }
    }
}

impl<'a, X: Into<Images<'a>>, Y: Into<Targets<'a>>> From<(X, Y)> for Samples<'a> {
    fn from((images, targets): (X, Y)) -> Self {
        Samples { images: images.into(), targets: targets.into() }
    }
}

/// Slices, arrays and vectors.
macro_rules! from_arrays {
    ($($to:ident::$variant:ident, $element:ty;)*) => {$(
        impl<'a> From<&'a [$element]> for $to<'a> {
            fn from(values: &'a [$element]) -> Self {
                $to::$variant(values)
            }
        }

        impl<'a> From<&'a Vec<$element>> for $to<'a> {
            fn from(values: &'a Vec<$element>) -> Self {
                $to::$variant(values)
            }
        }

        impl<'a, const N: usize> From<&'a [$element; N]> for $to<'a> {
            fn from(values: &'a [$element; N]) -> Self {
                $to::$variant(values)
            }
        }
    )*};
}

from_arrays! {
    Images::U8, u8;
    Images::F32, f32;
    Targets::Classes, u32;
    Targets::Values, f32;
}

impl Images<'_> {
    /// How many images of this shape there are.
    pub(super) fn count(&self, shape: &[usize]) -> Result<usize, ModelError> {
        let values: usize = shape.iter().product();
        let length = match self {
            Images::Dataset(dataset) if dataset.image_shape() == *shape => return Ok(dataset.len()),
            Images::Dataset(dataset) => {
                return Err(ModelError::Argument(format!(
                    "the model takes images of {}, the data set has {}; open it with that image_size and channels",
                    shape_text(shape),
                    shape_text(&dataset.image_shape())
                )));
            }
            Images::U8(pixels) => pixels.len(),
            Images::F32(values) => values.len(),
        };
        if !length.is_multiple_of(values) {
            return Err(ModelError::Argument(format!(
                "{length} values are no whole number of images of {}, the shape the model takes",
                shape_text(shape)
            )));
        }
        Ok(length / values)
    }

    /// Whether they are bytes.
    pub(super) fn are_bytes(&self) -> bool {
        !matches!(self, Images::F32(_))
    }

    /// A stretch of consecutive images, in memory or copied to `pixels`.
    pub(super) fn stretch<'b>(
        &'b self,
        range: Range<usize>,
        values: usize,
        pixels: &'b mut Vec<u8>,
    ) -> Result<ocellus_engine::Input<'b>, DataError> {
        let span = range.start * values..range.end * values;
        Ok(match self {
            Images::U8(all) => ocellus_engine::Input::U8(&all[span]),
            Images::F32(all) => ocellus_engine::Input::F32(&all[span]),
            Images::Dataset(dataset) => {
                pixels.resize(range.len() * values, 0);
                for (index, pixels) in range.zip(pixels.chunks_exact_mut(values)) {
                    dataset.copy_image(index, pixels)?;
                }
                ocellus_engine::Input::U8(pixels)
            }
        })
    }
}

impl<'a> Samples<'a> {
    /// Checks them against a model and counts them.
    pub(super) fn check(&self, image_shape: &[usize], outputs: usize) -> Result<usize, ModelError> {
        let count = self.images.count(image_shape)?;
        if let Images::Dataset(dataset) = self.images {
            check_classes(dataset.class_count(), outputs)?;
        }
        match self.targets {
            Targets::Classes(labels) => {
                if labels.len() != count {
                    return Err(ModelError::Argument(format!("{count} images, but {} labels", labels.len())));
                }
                let classes = outputs.max(2);
                if let Some(index) = labels.iter().position(|&label| label as usize >= classes) {
                    return Err(ModelError::Argument(format!(
                        "sample {index} has label {}, but the model knows classes 0 to {}",
                        labels[index],
                        classes - 1
                    )));
                }
            }
            Targets::Values(values) => {
                if values.len() != count * outputs {
                    return Err(ModelError::Argument(format!(
                        "{count} images with {outputs} outputs each need {} target values, received {}",
                        count * outputs,
                        values.len()
                    )));
                }
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(ModelError::Argument(format!("target value {at} is {}", values[at])));
                }
            }
        }
        if count == 0 {
            return Err(ModelError::argument("there are no samples"));
        }
        Ok(count)
    }

    /// The last `fraction` held back, as Keras does; a data set is divided class by class instead.
    pub(super) fn split_arrays(
        self,
        fraction: f64,
        image_shape: &[usize],
        outputs: usize,
    ) -> Result<(Samples<'a>, Samples<'a>), ModelError> {
        let count = self.check(image_shape, outputs)?;
        let first = ((count as f64 * (1.0 - fraction)).floor() as usize).min(count);
        let values = image_shape.iter().product::<usize>() * first;
        let targets = match self.targets {
            Targets::Classes(all) => (Targets::Classes(&all[..first]), Targets::Classes(&all[first..])),
            Targets::Values(all) => {
                (Targets::Values(&all[..first * outputs]), Targets::Values(&all[first * outputs..]))
            }
        };
        let images = match self.images {
            Images::U8(all) => (Images::U8(&all[..values]), Images::U8(&all[values..])),
            Images::F32(all) => (Images::F32(&all[..values]), Images::F32(&all[values..])),
            Images::Dataset(_) => {
                return Err(ModelError::argument("a data set with targets of one's own cannot be split"));
            }
        };
        Ok((Samples { images: images.0, targets: targets.0 }, Samples { images: images.1, targets: targets.1 }))
    }
}

/// Whether a model with so many outputs can tell so many classes apart.
fn check_classes(classes: usize, outputs: usize) -> Result<(), ModelError> {
    if classes == outputs || (classes == 2 && outputs == 1) {
        return Ok(());
    }
    Err(ModelError::Argument(format!(
        "the data has {classes} classes, but the model gives {outputs} output(s); give its last layer {classes} units"
    )))
}
