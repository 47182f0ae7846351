//! `Source`: where the pixels of a data set come from; here, from memory or from another source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fingerprint::xxh64;
use super::{DataError, Preprocessing};

/// Where the pixels of a [`Dataset`](super::Dataset) come from. Its images all have the shape that its [`Preprocessing`] says.
pub trait Source: Send + Sync {
    /// How many images there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Write the prepared pixels of image `index` to `pixels`, which has their length.
    ///
    /// # Errors
    /// The image can no longer be read.
    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError>;

    /// All pixels of all images, where they are in memory.
    fn pixels(&self) -> Option<&[u8]> {
        None
    }

    /// A name by which a person finds image `index` again.
    fn name_of(&self, index: usize) -> String;

    /// A hash of the content of image `index`.
    ///
    /// # Errors
    /// The image can no longer be read.
    fn hash_of(&self, index: usize) -> Result<u64, DataError>;

    /// Whether [`hash_of`](Self::hash_of) tells what is known already.
    fn is_hashed(&self) -> bool {
        false
    }

    /// Put image `index` in `bytes` as it is stored, and say whether that is so: pixels that were never encoded are not.
    ///
    /// # Errors
    /// The image can no longer be read.
    fn read_encoded(&self, _index: usize, _bytes: &mut Vec<u8>) -> Result<bool, DataError> {
        Ok(false)
    }
}

/// Images that lie in memory, one after another.
pub(super) struct Memory {
    pixels: Vec<u8>,
    image_len: usize,
    /// The file they come from, for names.
    origin: PathBuf,
}

impl Memory {
    /// `None` where the pixels are not a whole number of images.
    pub(super) fn new(pixels: Vec<u8>, image_shape: [usize; 3], origin: &Path) -> Option<Self> {
        let image_len = image_shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        (pixels.len().checked_rem(image_len) == Some(0)).then(|| Self { pixels, image_len, origin: origin.to_owned() })
    }
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.pixels.len() / self.image_len
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        pixels.copy_from_slice(&self.pixels[index * self.image_len..][..self.image_len]);
        Ok(())
    }

    fn pixels(&self) -> Option<&[u8]> {
        Some(&self.pixels)
    }

    fn name_of(&self, index: usize) -> String {
        format!("{}[{index}]", self.origin.display())
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        Ok(xxh64(&self.pixels[index * self.image_len..][..self.image_len]))
    }
}

/// Images of another source, brought to another shape when asked for.
pub(super) struct Prepared {
    pub(super) from: Arc<dyn Source>,
    /// The shape of that source's images.
    pub(super) shape: [usize; 3],
    pub(super) preprocessing: Preprocessing,
}

impl Source for Prepared {
    fn len(&self) -> usize {
        self.from.len()
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        let image_len = self.shape.iter().product::<usize>();
        let mut buffer = Vec::new();
        let image = match self.from.pixels() {
            Some(all) => &all[index * image_len..][..image_len],
            None => {
                buffer.resize(image_len, 0);
                self.from.copy_image(index, &mut buffer)?;
                &buffer
            }
        };
        let prepared = self.preprocessing.prepare_pixels(image, self.shape, pixels);
        prepared.map_err(|problem| DataError::Image { path: self.name_of(index).into(), problem })
    }

    fn name_of(&self, index: usize) -> String {
        self.from.name_of(index)
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        self.from.hash_of(index)
    }
}

/// What [`Prepared`] gives, made once.
pub(super) struct InMemory {
    pub(super) pixels: Vec<u8>,
    pub(super) on_demand: Prepared,
}

impl Source for InMemory {
    fn len(&self) -> usize {
        self.on_demand.len()
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        let image_len = pixels.len();
        pixels.copy_from_slice(&self.pixels[index * image_len..][..image_len]);
        Ok(())
    }

    fn pixels(&self) -> Option<&[u8]> {
        Some(&self.pixels)
    }

    fn name_of(&self, index: usize) -> String {
        self.on_demand.name_of(index)
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        self.on_demand.hash_of(index)
    }
}
