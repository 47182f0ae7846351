//! Whole models by name.
//!
//! ```
//! let model = ocellus::models::find("reference_cnn").unwrap().build([28, 28, 1], 10)?;
//! assert_eq!(model.parameter_count(), 121_930);
//! # Ok::<(), ocellus::model::LayerError>(())
//! ```

mod mobilenet_v2;
mod reference_cnn;
mod residual_cnn;
mod resnet;

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
pub const ALL: [Recipe; 9] = [
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
        layers: |shape, classes| resnet::small(3, shape, classes),
    },
    Recipe {
        name: "resnet56",
        description: "the residual network of 56 layers for images of 32x32",
        layers: |shape, classes| resnet::small(9, shape, classes),
    },
    Recipe {
        name: "resnet18_cifar",
        description: "ResNet-18 with the first layer that images of 32x32 need",
        layers: resnet::resnet18_cifar,
    },
    Recipe {
        name: "resnet18",
        description: "ResNet-18 for images of 224x224",
        layers: |shape, classes| resnet::with_basic([2, 2, 2, 2], shape, classes),
    },
    Recipe {
        name: "resnet34",
        description: "ResNet-34 for images of 224x224",
        layers: |shape, classes| resnet::with_basic([3, 4, 6, 3], shape, classes),
    },
    Recipe {
        name: "resnet50",
        description: "ResNet-50 for images of 224x224, with bottlenecks",
        layers: |shape, classes| resnet::with_bottlenecks([3, 4, 6, 3], shape, classes),
    },
    Recipe {
        name: "mobilenet_v2",
        description: "MobileNetV2 for images of 224x224: depthwise convolutions between few channels",
        layers: mobilenet_v2::build,
    },
];

/// The model of that name.
pub fn find(name: &str) -> Option<Recipe> {
    ALL.into_iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::Loss;
    use crate::model::FitOptions;
    use crate::optimizers::Sgd;

    #[test]
    fn parameters_are_as_many_as_published() {
        // Learned ones, for 1000 classes (torchvision's documentation) or 10. The paper counts 0.27 and 0.85 million for
        // the small ones: 269,722 and 853,018 with option A, to which two projections and their normalisation add 2,752.
        let published = [
            ("reference_cnn", [28, 28, 1], 10, 121_930),
            ("resnet20", [32, 32, 3], 10, 269_722 + 2_752),
            ("resnet56", [32, 32, 3], 10, 853_018 + 2_752),
            ("resnet18_cifar", [32, 32, 3], 10, 11_173_962),
            ("resnet18", [224, 224, 3], 1000, 11_689_512),
            ("resnet34", [224, 224, 3], 1000, 21_797_672),
            ("resnet50", [224, 224, 3], 1000, 25_557_032),
            ("mobilenet_v2", [224, 224, 3], 1000, 3_504_872),
        ];
        for (name, shape, classes, expected) in published {
            let model = find(name).unwrap().build(shape, classes).unwrap();
            let learned = model.weights().filter(|(name, ..)| !name.contains("/moving_"));
            assert_eq!(learned.map(|(_, shape, _)| shape.iter().product::<usize>()).sum::<usize>(), expected, "{name}");
        }
    }

    /// Plans are made here, which building a model does not do. The rate is next to nothing: two images that are one pixel in the
    /// last layers give batch normalisation gradients that no deep net takes a step along.
    #[test]
    fn all_train_a_step_and_predict() {
        let images: Vec<f32> =
            (0..2 * 32 * 32u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0).collect();
        for recipe in ALL {
            let mut model = recipe.build([32, 32, 1], 2).unwrap();
            model.compile(Sgd::new().learning_rate(1e-9), Loss::categorical_cross_entropy(), ()).unwrap();
            let options = FitOptions::new().epochs(1).batch_size(2).threads(2);
            let history =
                model.fit((&images, &[0, 1]), options).unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
            assert!(history.get("loss").unwrap()[0].is_finite(), "{}", recipe.name);
            let sums: Vec<f32> = model.predict(&images).unwrap().rows().map(|row| row.iter().sum()).collect();
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{}: {sums:?}", recipe.name);
        }
    }

    #[test]
    fn all_are_buildable_and_end_in_the_classes() {
        for recipe in ALL {
            let (shape, classes) = ([30, 34, 3], 10);
            let model = recipe.build(shape, classes).unwrap();
            assert_eq!((model.input_shape(), model.output_shape()), (&shape[..], &[classes][..]), "{}", recipe.name);
            assert_eq!(find(recipe.name).unwrap().name, recipe.name);
        }
        assert!(find("reference").is_none());
        let error = ALL[0].build([8, 8, 1], 10).unwrap_err().to_string();
        assert!(error.starts_with("max_pooling2d_1 (MaxPooling2d): the pool covers 2x2"), "{error}");
    }
}
