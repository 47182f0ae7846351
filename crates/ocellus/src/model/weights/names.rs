//! What the tensors of each architecture are called, by whom; and how images are prepared for them.
//!
//! Layers mostly bear the names that PyTorch's modules have in torchvision or timm, so that a tensor's name follows from its layer's:
//! `layer1.0.conv1`. Where others use other names, a table has the module of each layer with parameters, in the layers' order.

mod convnext;
mod efficientnet;
mod mobilenet_v2;

use crate::data::{Filter, Preprocessing, Resize};
use crate::model::Architecture;
use crate::models;
use serde::Deserialize;
use std::path::Path;
use std::sync::OnceLock;

/// The modules of an architecture as one publisher names them.
#[derive(Debug)]
pub(super) struct Table {
    /// The architecture's name in `ocellus models`.
    pub(super) architecture: &'static str,
    /// Whose names these are.
    pub(super) origin: &'static str,
    /// For each layer that has parameters, in the layers' order, the module, and the shape of its first parameter as ours.
    pub(super) modules: Vec<Module>,
    /// How images are prepared for weights with these names.
    pub(super) published: Published,
}

/// A layer as others name it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    /// Our layer's class and the name and shape of its first parameter.
    pub(super) class: &'static str,
    pub(super) parameter: &'static str,
    pub(super) shape: Vec<usize>,
}

/// Names other than those that our layers bear.
struct Others {
    architecture: &'static str,
    origin: &'static str,
    modules: fn() -> Vec<String>,
    published: Published,
}

/// All tables.
pub(super) fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let own = models::ALL.iter().filter_map(|recipe| {
            let (origin, published) = own(recipe.name)?;
            Table::new(recipe.name, origin, published, None)
        });
        let others = convnext::OTHERS.iter().chain(efficientnet::OTHERS).chain(mobilenet_v2::OTHERS);
        let others = others.filter_map(|o| Table::new(o.architecture, o.origin, o.published, Some((o.modules)())));
        own.chain(others).collect()
    })
}

/// Whose names an architecture's layers bear, and how images are prepared for weights with these.
fn own(architecture: &str) -> Option<(&'static str, Published)> {
    let sized = |side: usize, published: Published| Published { image_size: [side; 2], ..published };
    Some(match architecture {
        "resnet20" | "resnet32" | "resnet56" | "resnet18_cifar" => ("pytorch-cifar-models", CIFAR),
        "resnet18" | "resnet34" | "resnet50" | "mobilenet_v2" | "vgg11" | "vgg16" | "squeezenet1_1" => {
            ("torchvision", IMAGENET)
        }
        "efficientnet_lite0" | "efficientnet_b0" => ("timm", BICUBIC),
        "efficientnet_lite1" => ("timm", sized(240, BICUBIC)),
        "efficientnet_lite2" => ("timm", sized(260, BICUBIC)),
        "convnext_atto" | "convnext_tiny" => ("timm", BICUBIC),
        "vit_tiny" => ("timm", Published { crop: 0.9, mean: [0.5; 3], deviation: [0.5; 3], ..BICUBIC }),
        _ => return None,
    })
}

impl Table {
    fn new(
        architecture: &'static str,
        origin: &'static str,
        published: Published,
        names: Option<Vec<String>>,
    ) -> Option<Self> {
        let [height, width] = published.image_size;
        let layers = models::find(architecture)?.architecture([height, width, 3], 1000).ok()?;
        let mut modules = modules_of(layers)?;
        if let Some(names) = names {
            debug_assert_eq!(names.len(), modules.len(), "{architecture} of {origin}");
            modules.iter_mut().zip(names).for_each(|(module, name)| module.name = name);
        }
        Some(Table { architecture, origin, modules, published })
    }
}

/// The layers that have parameters, under their own names.
fn modules_of(architecture: Architecture) -> Option<Vec<Module>> {
    let network = architecture.check().ok()?;
    let layers = network.architecture.layers.iter().zip(&network.nodes);
    let modules = layers.filter_map(|(config, node)| {
        let first = node.parameters.first()?;
        let class = config.layer.class();
        Some(Module { name: config.name.clone(), class, parameter: first.name, shape: first.shape.clone() })
    });
    Some(modules.collect())
}

/// The tensor of a module's parameter; `parameter` is our name for it.
pub(super) fn tensor(module: &str, parameter: &str) -> String {
    let theirs = match parameter {
        "kernel" | "gamma" => "weight",
        "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        // Parameters that are no module's: `cls_token`, `pos_embed`, `stages.0.blocks.0.gamma`.
        "token" | "embedding" | "scale" => return module.to_owned(),
        same => same,
    };
    format!("{module}.{theirs}")
}

/// How images are prepared for pretrained weights: the middle part is cut out, brought to a size and normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Height and width that the weights were trained for, or are measured at.
    pub image_size: [usize; 2],
    /// The share of the shorter side that the middle part takes.
    pub crop: f32,
    /// The kernel that resizing averages with.
    pub filter: Filter,
    /// The mean that is taken off each channel, of pixels from 0 to 1.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub deviation: [f32; 3],
}

/// As torchvision and most others do for ImageNet.
const IMAGENET: Published = Published {
    image_size: [224, 224],
    crop: 0.875,
    filter: Filter::Bilinear,
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
};

const BICUBIC: Published = Published { filter: Filter::CatmullRom, ..IMAGENET };

/// The mean and deviation of CIFAR-10's pixels.
const CIFAR: Published = Published {
    image_size: [32, 32],
    crop: 1.0,
    mean: [0.4914, 0.4822, 0.4465],
    deviation: [0.2023, 0.1994, 0.2010],
    ..IMAGENET
};

impl Published {
    /// The preprocessing; what normalises pixels is a layer: see [`Model::with_pixels_normalized`](crate::Model::with_pixels_normalized).
    pub fn preprocessing(&self) -> Preprocessing {
        let Published { image_size, crop, filter, .. } = *self;
        let resize = Resize::CenterCrop;
        Preprocessing {
            image_size,
            channels: 3,
            resize,
            crop,
            filter,
            scale: 1.0,
            offset: 0.0,
            ..Preprocessing::default()
        }
    }
}

/// What timm's `config.json` beside a file says.
pub(super) fn beside(weights: &Path) -> Option<Published> {
    #[derive(Deserialize)]
    struct Config {
        pretrained_cfg: Pretrained,
    }
    #[derive(Deserialize)]
    struct Pretrained {
        input_size: [usize; 3],
        crop_pct: Option<f32>,
        interpolation: Option<String>,
        mean: [f32; 3],
        std: [f32; 3],
    }
    let text = std::fs::read_to_string(weights.with_file_name("config.json")).ok()?;
    let Pretrained { input_size, crop_pct, interpolation, mean, std } =
        serde_json::from_str::<Config>(&text).ok()?.pretrained_cfg;
    let [channels, height, width] = input_size;
    let crop = crop_pct.unwrap_or(IMAGENET.crop);
    let usable = channels == 3
        && (1..=4096).contains(&height)
        && (1..=4096).contains(&width)
        && (crop > 0.0 && crop <= 1.0)
        && mean.iter().all(|mean| mean.is_finite())
        && std.iter().all(|std| std.is_finite() && *std > 0.0);
    let filter = if interpolation.as_deref() == Some("bilinear") { Filter::Bilinear } else { Filter::CatmullRom };
    usable.then_some(Published { image_size: [height, width], crop, filter, mean, deviation: std })
}
