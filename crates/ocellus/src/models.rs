//! Whole models by name.
//!
//! ```
//! let model = ocellus::models::find("reference_cnn").unwrap().build([28, 28, 1], 10)?;
//! assert_eq!(model.parameter_count(), 121_930);
//! # Ok::<(), ocellus::model::LayerError>(())
//! ```

mod airbench94;
mod efficientnet;
mod mobilenet_v2;
mod reference_cnn;
mod residual_cnn;
mod resnet;

use crate::layers::{Layer, Normalization};
use crate::model::{Architecture, LayerError, Model, Tensor};

/// A model that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    layers: fn([usize; 3], usize) -> Result<Architecture, LayerError>,
}

impl Recipe {
    /// The model for images of this shape (height, width, channels) and so many classes, its weights drawn with seed 0.
    ///
    /// # Errors
    /// Where the images are too small for its layers.
    pub fn build(&self, input_shape: [usize; 3], classes: usize) -> Result<Model, LayerError> {
        Model::from_architecture(self.architecture(input_shape, classes)?, 0)
    }

    /// Its layers, without weights.
    ///
    /// # Errors
    /// Where the images are too small for some layers to be laid out; most of that is found when a model is built.
    pub fn architecture(&self, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
        (self.layers)(input_shape, classes)
    }
}

/// All models that are known by name, the default first.
pub const ALL: [Recipe; 14] = [
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
        name: "resnet32",
        description: "the residual network of 32 layers for images of 32x32",
        layers: |shape, classes| resnet::small(5, shape, classes),
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
        name: "airbench94",
        description: "the net for images of 32x32 that reaches 94% of CIFAR-10 soonest: whitened patches, three blocks",
        layers: airbench94::build,
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
    Recipe {
        name: "efficientnet_lite0",
        description: "EfficientNet-Lite0 for images of 224x224: MobileNetV2's blocks, found by search",
        layers: |shape, classes| efficientnet::lite(&efficientnet::LITE0, shape, classes),
    },
    Recipe {
        name: "efficientnet_lite1",
        description: "EfficientNet-Lite1 for images of 240x240: deeper",
        layers: |shape, classes| efficientnet::lite(&efficientnet::LITE1, shape, classes),
    },
    Recipe {
        name: "efficientnet_lite2",
        description: "EfficientNet-Lite2 for images of 260x260: deeper and wider",
        layers: |shape, classes| efficientnet::lite(&efficientnet::LITE2, shape, classes),
    },
];

/// Mean and standard deviation of a data set's red, green and blue, of pixels in 0..1.
struct Colours {
    mean: [f32; 3],
    deviation: [f32; 3],
}

const CIFAR_10: Colours = Colours { mean: [0.4914, 0.4822, 0.4465], deviation: [0.2470, 0.2435, 0.2616] };
const IMAGENET: Colours = Colours { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

/// Pixels (0 to 255) normalised as the data set's; where there are not three channels, as its green.
fn normalized_pixels(input: &Tensor, channels: usize, colours: Colours) -> Tensor {
    let of = |values: [f32; 3], c: usize| if channels == 3 { values[c] } else { values[1] };
    let mean: Vec<f32> = (0..channels).map(|c| 255.0 * of(colours.mean, c)).collect();
    let variance: Vec<f32> = (0..channels).map(|c| (255.0 * of(colours.deviation, c)).powi(2)).collect();
    Normalization::new(mean, variance).call(input)
}

/// The model of that name.
pub fn find(name: &str) -> Option<Recipe> {
    ALL.into_iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::Loss;
    use crate::model::{FitOptions, LayerCosts};
    use crate::optimizers::Sgd;

    /// Name, height, width, channels, classes, learned parameters, multiply-adds of an image.
    type Published = (&'static str, [usize; 3], usize, u64, u64);

    /// What `reference/zoo_costs.py` counts in torchvision's and timm's models with PyTorch's own counter; the small ResNets' are
    /// the paper's: 269,722, 464,154 and 853,018 with option A, to which two projections and their normalisation add 2,752.
    const PUBLISHED: [Published; 14] = [
        ("reference_cnn", [28, 28, 1], 10, 121_930, 2_528_000),
        ("resnet20", [32, 32, 3], 10, 269_722 + 2_752, 40_813_184),
        ("resnet32", [32, 32, 3], 10, 464_154 + 2_752, 69_124_736),
        ("resnet56", [32, 32, 3], 10, 853_018 + 2_752, 125_747_840),
        ("resnet18_cifar", [32, 32, 3], 10, 11_173_962, 555_422_720),
        ("airbench94", [32, 32, 3], 10, 1_971_640, 118_147_360),
        ("resnet18", [224, 224, 3], 1000, 11_689_512, 1_814_073_344),
        ("resnet34", [224, 224, 3], 1000, 21_797_672, 3_663_761_408),
        ("resnet50", [224, 224, 3], 1000, 25_557_032, 4_089_184_256),
        ("mobilenet_v2", [224, 224, 3], 1000, 3_504_872, 300_774_272),
        ("efficientnet_lite0", [224, 224, 3], 1000, 4_652_008, 385_187_552),
        ("efficientnet_lite1", [240, 240, 3], 1000, 5_416_680, 600_185_232),
        ("efficientnet_lite2", [260, 260, 3], 1000, 6_092_072, 859_736_272),
        ("residual_cnn", [32, 32, 3], 10, 78_042, 12_501_632),
    ];

    #[test]
    fn costs_are_as_published() {
        for (name, shape, classes, parameters, multiply_adds) in PUBLISHED {
            let costs = find(name).unwrap().architecture(shape, classes).unwrap().costs().unwrap();
            let sum = |of: fn(&LayerCosts) -> u64| costs.iter().map(of).sum::<u64>();
            let found = (sum(|layer| layer.learned), sum(|layer| layer.multiply_adds));
            assert_eq!(found, (parameters, multiply_adds), "{name}");
        }
        for recipe in ALL {
            assert!(
                PUBLISHED.iter().any(|published| published.0 == recipe.name),
                "{}: nothing to compare",
                recipe.name
            );
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
            let costs = recipe.architecture(shape, classes).unwrap().costs().unwrap();
            assert_eq!(costs.last().unwrap().output_shape, [classes], "{}", recipe.name);
            assert_eq!(find(recipe.name).unwrap().name, recipe.name);
        }
        assert!(find("reference").is_none());
        let error = ALL[0].build([8, 8, 1], 10).unwrap_err().to_string();
        assert!(error.starts_with("max_pooling2d_1 (MaxPooling2d): the pool covers 2x2"), "{error}");
    }
}
