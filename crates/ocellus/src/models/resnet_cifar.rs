//! Residual networks for images of 32x32, from section 4.2 of He et al., *Deep residual learning for image recognition* (2016):
//! a convolution, then three stages of 16, 32 and 64 filters with `n` blocks each, `6n + 2` layers in all.
//!
//! Where a stage halves the image the shortcut is a 1x1 convolution with stride 2 (the paper's option B).

use super::residual_cnn::{block, normalized};
use crate::layers::{Activation, Dense, GlobalAveragePooling2d, Layer};
use crate::model::{Input, LayerError, Model};

pub(super) fn build(blocks: usize, input_shape: [usize; 3], classes: usize) -> Result<Model, LayerError> {
    let input = Input::new(input_shape);
    let mut x = Activation::Relu.call(normalized(&input, 16, 3, 1));
    for filters in [16, 32, 64] {
        for number in 0..blocks {
            x = block(&x, filters, if number == 0 && filters > 16 { 2 } else { 1 });
        }
    }
    let x = GlobalAveragePooling2d::new().call(&x);
    Model::new(&input, &Dense::new(classes).activation(Activation::Softmax).call(&x))
}
