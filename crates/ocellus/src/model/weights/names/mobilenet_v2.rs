//! MobileNetV2: timm's names.

use super::{BICUBIC, Others};

pub(super) const OTHERS: &[Others] =
    &[Others { architecture: "mobilenet_v2", origin: "timm", modules: timm, published: BICUBIC }];

fn timm() -> Vec<String> {
    let mut modules = vec!["conv_stem".to_owned(), "bn1".to_owned()];
    for (stage, blocks) in [1, 2, 3, 4, 3, 3, 1].into_iter().enumerate() {
        for block in 0..blocks {
            // The first block does not expand.
            let parts: &[&str] = match stage {
                0 => &["conv_dw", "bn1", "conv_pw", "bn2"],
                _ => &["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"],
            };
            modules.extend(parts.iter().map(|part| format!("blocks.{stage}.{block}.{part}")));
        }
    }
    modules.extend(["conv_head", "bn2", "classifier"].map(str::to_owned));
    modules
}
