//! ConvNeXt: the names of torchvision.

use super::{IMAGENET, Others, Published};

pub(super) const OTHERS: &[Others] = &[Others {
    architecture: "convnext_tiny",
    origin: "torchvision",
    modules: torchvision,
    published: Published { crop: 224.0 / 236.0, ..IMAGENET },
}];

fn torchvision() -> Vec<String> {
    let mut modules = vec!["features.0.0".to_owned(), "features.0.1".to_owned()];
    for (stage, blocks) in [3, 3, 9, 3].into_iter().enumerate() {
        if stage > 0 {
            modules.extend([0, 1].map(|part| format!("features.{}.{part}", 2 * stage)));
        }
        for block in 0..blocks {
            let parts = ["block.0", "block.2", "block.3", "block.5", "layer_scale"];
            modules.extend(parts.map(|part| format!("features.{}.{block}.{part}", 2 * stage + 1)));
        }
    }
    modules.extend(["classifier.0", "classifier.2"].map(str::to_owned));
    modules
}
