//! Whole models by name.
//!
//! ```
//! let model = ocellus::models::find("reference_cnn").unwrap().build([28, 28, 1], 10)?;
//! assert_eq!(model.parameter_count(), 121_930);
//! # Ok::<(), ocellus::model::LayerError>(())
//! ```

mod reference_cnn;
mod residual_cnn;
mod resnet_cifar;

use crate::model::{LayerError, Model};

/// A model that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    layers: fn([usize; 3], usize) -> Result<Model, LayerError>,
}

impl Recipe {
    /// The model for images of this shape (height, width, channels) and so many classes.
    ///
    /// # Errors
    /// Where the images are too small for its layers.
    pub fn build(&self, input_shape: [usize; 3], classes: usize) -> Result<Model, LayerError> {
        (self.layers)(input_shape, classes)
    }
}

/// All models that are known by name, the default first.
pub const ALL: [Recipe; 3] = [
    Recipe {
        name: "reference_cnn",
        description: "the small convolutional network of every tutorial: two convolutions with pooling, two dense layers",
        layers: reference_cnn::build,
    },
    Recipe {
        name: "residual_cnn",
        description: "a small residual network with batch normalisation: three blocks of 16, 32 and 64 channels",
        layers: residual_cnn::build,
    },
    Recipe {
        name: "resnet20",
        description: "the residual network of 20 layers for images of 32x32",
        layers: |shape, classes| resnet_cifar::build(3, shape, classes),
    },
];

/// The model of that name.
pub fn find(name: &str) -> Option<Recipe> {
    ALL.into_iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_as_many_as_published() {
        // The paper counts 0.27 million: 269,722 with option A; two projections and their normalisation add 2,752, and
        // moving averages are 1,568 more.
        let model = find("resnet20").unwrap().build([32, 32, 3], 10).unwrap();
        assert_eq!(model.parameter_count(), 269_722 + 2_752 + 1_568);
    }

    #[test]
    fn all_are_buildable_and_end_in_the_classes() {
        for recipe in ALL {
            for (shape, classes) in [([28, 28, 1], 10), ([32, 32, 3], 2), ([96, 64, 3], 100)] {
                let model = recipe.build(shape, classes).unwrap();
                assert_eq!(
                    (model.input_shape(), model.output_shape()),
                    (&shape[..], &[classes][..]),
                    "{}",
                    recipe.name
                );
            }
            assert_eq!(find(recipe.name).unwrap().name, recipe.name);
        }
        assert!(find("reference").is_none());
        let error = ALL[0].build([8, 8, 1], 10).unwrap_err().to_string();
        assert!(error.starts_with("max_pooling2d_1 (MaxPooling2d): the pool covers 2x2"), "{error}");
    }
}
