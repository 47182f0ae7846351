//! The definitions in double precision, loop by loop: what every kernel is tested against.

use super::{CLOSED, ConvShape, PooledShape};

/// Calls `each(x, w, y)` with the offsets of every product of the convolution: `y += x * w`.
pub(super) fn products(shape: &ConvShape, samples: usize, mut each: impl FnMut(usize, usize, usize)) {
    let [height, width, channels] = shape.input;
    let [out_height, out_width, filters] = shape.output();
    let (group_channels, group_filters) = (channels / shape.groups, filters / shape.groups);
    let inside = |out: usize, tap: usize, axis: usize, len: usize| {
        (out * shape.strides[axis] + tap * shape.dilation[axis])
            .checked_sub(shape.padding[2 * axis])
            .filter(|&p| p < len)
    };
    for n in 0..samples {
        for out_row in 0..out_height {
            for out_column in 0..out_width {
                for tap in 0..shape.kernel[0] * shape.kernel[1] {
                    let (tap_row, tap_column) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                    let Some(row) = inside(out_row, tap_row, 0, height) else { continue };
                    let Some(column) = inside(out_column, tap_column, 1, width) else { continue };
                    for filter in 0..filters {
                        for c in 0..group_channels {
                            let channel = filter / group_filters * group_channels + c;
                            each(
                                ((n * height + row) * width + column) * channels + channel,
                                (tap * group_channels + c) * filters + filter,
                                ((n * out_height + out_row) * out_width + out_column) * filters + filter,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Offset into the convolution's output of pixel `position` of the window of a pooled value.
pub(super) fn window_pixel(shape: &PooledShape, pooled: usize, position: usize) -> usize {
    let [height, width, filters] = shape.output();
    let [full_height, full_width, _] = shape.conv.output();
    let [down, across] = shape.pool;
    let (filter, pixel) = (pooled % filters, pooled / filters);
    let (sample, row, column) = (pixel / (height * width), pixel / width % height, pixel % width);
    let (row, column) = (row * down + position / across, column * across + position % across);
    ((sample * full_height + row) * full_width + column) * filters + filter
}

/// The gradient of every pixel of the convolution, given where the maxima were.
pub(super) fn unpooled(shape: &PooledShape, samples: usize, dy: &[f64], argmax: &[u8]) -> Vec<f64> {
    let mut full = vec![0.0; samples * shape.conv.output_len()];
    for (pooled, (&g, &position)) in dy.iter().zip(argmax).enumerate() {
        if position != CLOSED {
            full[window_pixel(shape, pooled, usize::from(position))] = g;
        }
    }
    full
}
