//! EfficientNet and EfficientNet-Lite: the names of `efficientnet_pytorch`, which others converted from TensorFlow with, and
//! those of torchvision.

use super::{BICUBIC, IMAGENET, Others, Published};
use crate::data::Filter;

/// Pixels are brought to about -1..1 by one number for all channels, as in TensorFlow.
const LITE: Published =
    Published { filter: Filter::CatmullRom, mean: [127.0 / 255.0; 3], deviation: [128.0 / 255.0; 3], ..IMAGENET };

pub(super) const OTHERS: &[Others] = &[
    Others {
        architecture: "efficientnet_lite0",
        origin: "efficientnet_pytorch",
        modules: || pytorch(&BLOCKS, false),
        published: LITE,
    },
    Others {
        architecture: "efficientnet_lite1",
        origin: "efficientnet_pytorch",
        modules: || pytorch(&[1, 3, 3, 4, 4, 5, 1], false),
        published: Published { image_size: [240, 240], ..LITE },
    },
    Others {
        architecture: "efficientnet_lite2",
        origin: "efficientnet_pytorch",
        modules: || pytorch(&[1, 3, 3, 4, 4, 5, 1], false),
        published: Published { image_size: [260, 260], ..LITE },
    },
    Others {
        architecture: "efficientnet_b0",
        origin: "efficientnet_pytorch",
        modules: || pytorch(&BLOCKS, true),
        published: BICUBIC,
    },
    Others { architecture: "efficientnet_b0", origin: "torchvision", modules: torchvision, published: BICUBIC },
];

/// Blocks in each stage of the smallest.
const BLOCKS: [usize; 7] = [1, 2, 2, 3, 3, 4, 1];

fn pytorch(blocks: &[usize], squeeze: bool) -> Vec<String> {
    let mut modules = vec!["_conv_stem".to_owned(), "_bn0".to_owned()];
    let blocks: usize = blocks.iter().sum();
    for block in 0..blocks {
        let expand: &[&str] = if block == 0 { &[] } else { &["_expand_conv", "_bn0"] };
        let squeeze: &[&str] = if squeeze { &["_se_reduce", "_se_expand"] } else { &[] };
        let parts = [expand, &["_depthwise_conv", "_bn1"], squeeze, &["_project_conv", "_bn2"]].concat();
        modules.extend(parts.iter().map(|part| format!("_blocks.{block}.{part}")));
    }
    modules.extend(["_conv_head", "_bn1", "_fc"].map(str::to_owned));
    modules
}

fn torchvision() -> Vec<String> {
    let mut modules = vec!["features.0.0".to_owned(), "features.0.1".to_owned()];
    for (stage, blocks) in (1..).zip(BLOCKS) {
        for block in 0..blocks {
            let parts: &[&str] = match stage {
                1 => &["0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"],
                _ => &["0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"],
            };
            modules.extend(parts.iter().map(|part| format!("features.{stage}.{block}.block.{part}")));
        }
    }
    modules.extend(["features.8.0", "features.8.1", "classifier.1"].map(str::to_owned));
    modules
}
