//! A few images that a model file holds with the outputs expected for them, so that loading can see that they still come.

use super::{Images, ModelError};
use crate::random::{Purpose, Random};

/// How many images a file holds.
const COUNT: usize = 4;

/// The images.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GoldenImages {
    pub(super) values: Values,
    pub(super) count: usize,
}

/// Pixels as bytes or numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
}

impl GoldenImages {
    /// Some of the images, chosen by the seed.
    pub(super) fn choose(images: Images<'_>, shape: &[usize], seed: u64) -> Result<Self, ModelError> {
        let (available, length) = (images.count(shape)?, shape.iter().product::<usize>());
        let mut random = Random::new(seed, Purpose::Sample, 0, 0);
        let chosen: Vec<usize> = (0..COUNT.min(available)).map(|_| random.below(available as u64) as usize).collect();
        let span = |index: usize| index * length..(index + 1) * length;
        let values = match images {
            Images::U8(all) => Values::U8(chosen.iter().flat_map(|&index| &all[span(index)]).copied().collect()),
            Images::F32(all) => Values::F32(chosen.iter().flat_map(|&index| &all[span(index)]).copied().collect()),
            Images::Dataset(dataset) => {
                let mut pixels = vec![0; chosen.len() * length];
                for (&index, pixels) in chosen.iter().zip(pixels.chunks_exact_mut(length)) {
                    dataset.copy_image(index, pixels)?;
                }
                Values::U8(pixels)
            }
        };
        Ok(GoldenImages { values, count: chosen.len() })
    }

    /// Random pixels, for a model that has seen no images.
    pub(super) fn random(shape: &[usize]) -> Self {
        let mut random = Random::new(0, Purpose::Sample, 0, 1);
        let length = COUNT * shape.iter().product::<usize>();
        let values = Values::U8((0..length).map(|_| random.below(256) as u8).collect());
        GoldenImages { values, count: COUNT }
    }

    pub(super) fn images(&self) -> Images<'_> {
        match &self.values {
            Values::U8(values) => Images::U8(values),
            Values::F32(values) => Images::F32(values),
        }
    }
}
