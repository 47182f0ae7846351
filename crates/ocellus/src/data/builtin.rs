//! The data set that the binary carries: 6,000 + 1,000 images of Fashion-MNIST, so that a first training needs no download.

use std::path::Path;
use std::sync::Arc;

use super::source::Memory;
use super::{DataError, Dataset, Known, Preprocessing, Split, idx};

/// Class names of Fashion-MNIST, in the order of its labels.
pub(super) const FASHION_MNIST: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The carried data set: 600 training and 100 test images of each of the 10 classes of Fashion-MNIST, 28 x 28 grey pixels,
/// in random order.
///
/// Zalando Research, MIT licence; `crates/ocellus/assets/fashion-mnist/README.md` has the details.
///
/// # Errors
/// There is no validation split: split one off with [`Dataset::split_stratified`].
pub fn builtin(split: Split) -> Result<Dataset, DataError> {
    let (images, labels): (&[u8], &[u8]) = match split {
        Split::Train => (
            include_bytes!("../../assets/fashion-mnist/train-images-idx3-ubyte.gz"),
            include_bytes!("../../assets/fashion-mnist/train-labels-idx1-ubyte.gz"),
        ),
        Split::Test => (
            include_bytes!("../../assets/fashion-mnist/t10k-images-idx3-ubyte.gz"),
            include_bytes!("../../assets/fashion-mnist/t10k-labels-idx1-ubyte.gz"),
        ),
        Split::Validation => {
            return Err(DataError::NoSplit {
                path: Known::BUILTIN.into(),
                split,
                hint: "give a fraction of the training data to hold back".into(),
            });
        }
    };
    let path = Path::new(Known::BUILTIN).join(split.to_string());
    let labels = idx::from_bytes(&path, labels, &[1])?.data;
    let images = idx::from_bytes(&path, images, &[3])?;
    let [_, height, width] = images.sizes[..] else { return Err(DataError::format(&path, "expected 3 dimensions")) };
    let memory = Memory::new(images.data, [height, width, 1], &path)
        .ok_or_else(|| DataError::format(&path, "its sizes do not fit its data"))?;
    let labels = labels.into_iter().map(u32::from).collect();
    let preprocessing = Preprocessing { image_size: [height, width], channels: 1, ..Preprocessing::default() };
    Dataset::from_source(Arc::new(memory), labels, FASHION_MNIST.map(String::from).to_vec(), preprocessing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_images_are_balanced_and_distinct() {
        let train = builtin(Split::Train).unwrap();
        let test = builtin(Split::Test).unwrap();
        assert_eq!((train.len(), train.samples_per_class()), (6000, vec![600; 10]));
        assert_eq!((test.len(), test.samples_per_class()), (1000, vec![100; 10]));
        assert_ne!(train.fingerprint().unwrap(), test.fingerprint().unwrap());
        assert_eq!(train.class_names()[9], "Ankle boot");
        // Shuffled: the first batch has most classes, not one.
        let mut first: Vec<u32> = train.labels()[..64].to_vec();
        first.sort_unstable();
        first.dedup();
        assert!(first.len() >= 8, "{first:?}");
        assert!(matches!(builtin(Split::Validation), Err(DataError::NoSplit { .. })));
    }
}
