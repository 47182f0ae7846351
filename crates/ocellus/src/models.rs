//! Whole models by name.
//!
//! ```
//! let model = ocellus::models::find("reference_cnn").unwrap().build([28, 28, 1], 10)?;
//! assert_eq!(model.parameter_count(), 121_930);
//! # Ok::<(), ocellus::model::LayerError>(())
//! ```

mod airbench94;
mod convnext;
mod efficientnet;
mod lenet5;
mod mobilenet_v2;
mod reference_cnn;
mod residual_cnn;
mod resnet;
mod squeezenet;
mod vgg;
mod vit;

use crate::layers::{Layer, Normalization};
use crate::model::{Architecture, LayerError, Model, Tensor};

/// A model that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// The images that it was published for: height, width, channels.
    pub image_shape: [usize; 3],
    /// The classes that it was published for.
    pub classes: usize,
    layers: fn([usize; 3], usize) -> Result<Architecture, LayerError>,
}

impl NamedModel {
    /// The model for images of this shape (height, width, channels) and so many classes, its weights drawn with seed 0.
    ///
    /// # Errors
    /// Where the images are too small for its layers: which layer, and how large they must be.
    pub fn build(&self, input_shape: [usize; 3], classes: usize) -> Result<Model, LayerError> {
        Model::from_architecture(self.architecture(input_shape, classes)?, 0)
    }

    /// Its layers, without weights.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn architecture(&self, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
        let found = self.checked(input_shape, classes);
        let Err(LayerError::Layer { name, class, problem }) = found else { return found };
        // Images of some size fit, unless it is not the size that is wrong.
        let [height, width, channels] = input_shape;
        let fits = |&size: &usize| self.checked([size, size, channels], classes).is_ok();
        let problem = match (1..=self.image_shape[0]).find(fits) {
            Some(least) if height < least || width < least => {
                let what = problem.split(';').next().unwrap_or_default();
                format!("{what}; {} takes images of at least {least}x{least}, not {height}x{width}", self.name)
            }
            _ => problem,
        };
        Err(LayerError::Layer { name, class, problem })
    }

    fn checked(&self, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
        let architecture = (self.layers)(input_shape, classes)?;
        architecture.costs()?;
        Ok(architecture)
    }
}

/// All models that are known by name, the default first.
pub const ALL: [NamedModel; 22] = [
    NamedModel {
        name: "reference_cnn",
        description: "the small convolutional network of every tutorial: two convolutions with pooling, two dense layers",
        image_shape: [28, 28, 1],
        classes: 10,
        layers: reference_cnn::build,
    },
    NamedModel {
        name: "lenet5",
        description: "LeNet-5: the first convolutional network that read cheques",
        image_shape: [28, 28, 1],
        classes: 10,
        layers: lenet5::build,
    },
    NamedModel {
        name: "residual_cnn",
        description: "a small residual network with batch normalisation: three blocks of 16, 32 and 64 channels",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: residual_cnn::build,
    },
    NamedModel {
        name: "airbench94",
        description: "the net for images of 32x32 that reaches 94% of CIFAR-10 soonest: whitened patches, three blocks",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: airbench94::build,
    },
    NamedModel {
        name: "resnet20",
        description: "the residual network of 20 layers for images of 32x32",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: |shape, classes| resnet::small(3, shape, classes),
    },
    NamedModel {
        name: "resnet32",
        description: "the residual network of 32 layers for images of 32x32",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: |shape, classes| resnet::small(5, shape, classes),
    },
    NamedModel {
        name: "resnet56",
        description: "the residual network of 56 layers for images of 32x32",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: |shape, classes| resnet::small(9, shape, classes),
    },
    NamedModel {
        name: "resnet18_cifar",
        description: "ResNet-18 with the first layer that images of 32x32 need",
        image_shape: [32, 32, 3],
        classes: 10,
        layers: resnet::resnet18_cifar,
    },
    NamedModel {
        name: "resnet18",
        description: "ResNet-18: residual blocks of two convolutions",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| resnet::with_basic([2, 2, 2, 2], shape, classes),
    },
    NamedModel {
        name: "resnet34",
        description: "ResNet-34: residual blocks of two convolutions",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| resnet::with_basic([3, 4, 6, 3], shape, classes),
    },
    NamedModel {
        name: "resnet50",
        description: "ResNet-50: residual blocks with bottlenecks",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| resnet::with_bottlenecks([3, 4, 6, 3], shape, classes),
    },
    NamedModel {
        name: "vgg11",
        description: "VGG-11: 3x3 convolutions and large dense layers",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| vgg::build(vgg::VGG11, shape, classes),
    },
    NamedModel {
        name: "vgg16",
        description: "VGG-16: 3x3 convolutions and large dense layers",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| vgg::build(vgg::VGG16, shape, classes),
    },
    NamedModel {
        name: "squeezenet1_1",
        description: "SqueezeNet 1.1: few parameters, no dense layer",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: squeezenet::build,
    },
    NamedModel {
        name: "mobilenet_v2",
        description: "MobileNetV2: depthwise convolutions between few channels",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: mobilenet_v2::build,
    },
    NamedModel {
        name: "efficientnet_lite0",
        description: "EfficientNet-Lite0: MobileNetV2's blocks, laid out by search",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| efficientnet::LITE0.build(shape, classes),
    },
    NamedModel {
        name: "efficientnet_lite1",
        description: "EfficientNet-Lite1: deeper",
        image_shape: [240, 240, 3],
        classes: 1000,
        layers: |shape, classes| efficientnet::LITE1.build(shape, classes),
    },
    NamedModel {
        name: "efficientnet_lite2",
        description: "EfficientNet-Lite2: deeper and wider",
        image_shape: [260, 260, 3],
        classes: 1000,
        layers: |shape, classes| efficientnet::LITE2.build(shape, classes),
    },
    NamedModel {
        name: "efficientnet_b0",
        description: "EfficientNet-B0: with squeeze-and-excitation",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| efficientnet::B0.build(shape, classes),
    },
    NamedModel {
        name: "convnext_atto",
        description: "ConvNeXt-Atto: 7x7 depthwise convolutions and layer normalisation",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| convnext::ATTO.build(shape, classes),
    },
    NamedModel {
        name: "convnext_tiny",
        description: "ConvNeXt-Tiny: 7x7 depthwise convolutions and layer normalisation",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: |shape, classes| convnext::TINY.build(shape, classes),
    },
    NamedModel {
        name: "vit_tiny",
        description: "ViT-Tiny: attention between patches of 16x16 pixels",
        image_shape: [224, 224, 3],
        classes: 1000,
        layers: vit::tiny,
    },
];

/// The model of that name.
pub fn find(name: &str) -> Option<NamedModel> {
    ALL.into_iter().find(|model| model.name == name)
}

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

#[cfg(test)]
mod pytorch_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::Loss;
    use crate::model::{FitOptions, LayerCosts};
    use crate::optimizers::Sgd;

    /// Name, learned parameters, multiply-adds of an image.
    type Published = (&'static str, u64, u64);

    /// What `reference/zoo_costs.py` counts in torchvision's and timm's models, and in those written there, with PyTorch's own
    /// counter. The papers' figures of the small ResNets (269,722, 464,154, 853,018) are with option A, to which two
    /// projections and their normalisation add 2,752.
    const PUBLISHED: [Published; ALL.len()] = [
        ("reference_cnn", 121_930, 2_528_000),
        ("lenet5", 61_706, 416_520),
        ("residual_cnn", 78_042, 12_501_632),
        ("airbench94", 1_971_640, 118_147_360),
        ("resnet20", 269_722 + 2_752, 40_813_184),
        ("resnet32", 464_154 + 2_752, 69_124_736),
        ("resnet56", 853_018 + 2_752, 125_747_840),
        ("resnet18_cifar", 11_173_962, 555_422_720),
        ("resnet18", 11_689_512, 1_814_073_344),
        ("resnet34", 21_797_672, 3_663_761_408),
        ("resnet50", 25_557_032, 4_089_184_256),
        ("vgg11", 132_863_336, 7_609_090_048),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("squeezenet1_1", 1_235_496, 349_151_936),
        ("mobilenet_v2", 3_504_872, 300_774_272),
        ("efficientnet_lite0", 4_652_008, 385_187_552),
        ("efficientnet_lite1", 5_416_680, 600_185_232),
        ("efficientnet_lite2", 6_092_072, 859_736_272),
        ("efficientnet_b0", 5_288_548, 385_814_752),
        ("convnext_atto", 3_695_520, 547_332_480),
        ("convnext_tiny", 28_589_128, 4_455_531_264),
        ("vit_tiny", 5_717_416, 1_253_683_200),
    ];

    #[test]
    fn costs_are_as_published() {
        for (recipe, (name, parameters, multiply_adds)) in ALL.into_iter().zip(PUBLISHED) {
            let costs = recipe.architecture(recipe.image_shape, recipe.classes).unwrap().costs().unwrap();
            let sum = |of: fn(&LayerCosts) -> u64| costs.iter().map(of).sum::<u64>();
            let found = (recipe.name, sum(|layer| layer.learned), sum(|layer| layer.multiply_adds));
            assert_eq!(found, (name, parameters, multiply_adds));
        }
    }

    /// Plans are made here, which building a model does not do. The rate is next to nothing: two images that are one pixel in the
    /// last layers give batch normalisation gradients that no deep net takes a step along. VGG-16 is VGG-11 with more of the same,
    /// and would take as long as all others together.
    #[test]
    fn all_train_a_step_and_predict() {
        let images: Vec<f32> =
            (0..2 * 32 * 32u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0).collect();
        for recipe in ALL.into_iter().filter(|recipe| recipe.name != "vgg16") {
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
    fn all_end_in_the_classes_or_say_how_large_images_must_be() {
        for recipe in ALL {
            assert_eq!(find(recipe.name).unwrap().name, recipe.name);
            for shape in [[33, 47, 1], [64, 64, 3], [51, 60, 4]] {
                let costs = recipe.architecture(shape, 7).unwrap().costs().unwrap();
                assert_eq!(costs.last().unwrap().output_shape, [7], "{} {shape:?}", recipe.name);
            }
        }
        assert!(find("reference").is_none());
        for (name, shape, problem) in [
            (
                "reference_cnn",
                [8, 8, 1],
                "max_pooling2d_1 (MaxPooling2d): the pool covers 2x2, more than its input of 1x1; reference_cnn takes images of \
                 at least 10x10, not 8x8",
            ),
            (
                "vgg11",
                [64, 31, 3],
                "features.20 (MaxPooling2d): the pool covers 2x2, more than its input of 4x1; vgg11 takes images of at least \
                 32x32, not 64x31",
            ),
            (
                "vit_tiny",
                [15, 40, 3],
                "patch_embed.proj (Conv2d): the kernel covers 16x16, more than its input of 15x40; vit_tiny takes images of at \
                 least 16x16, not 15x40",
            ),
            (
                "airbench94",
                [20, 20, 3],
                "pool (MaxPooling2d): the pool covers 3x3, more than its input of 2x2; airbench94 takes images of at least 25x25, \
                 not 20x20",
            ),
            ("resnet18", [224, 224, 0], "the input shape 224x224x0 holds no values, or too many"),
            ("convnext_atto", [224, 224, 3], "head.fc (Dense): expected at least one unit, received 0"),
        ] {
            let classes = if name == "convnext_atto" { 0 } else { 10 };
            assert_eq!(find(name).unwrap().build(shape, classes).unwrap_err().to_string(), problem);
        }
    }
}
