//! The order of a tensor's numbers: PyTorch's, and ours.

/// How PyTorch lays out what a parameter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As we do.
    Same,
    /// `[filters][channels][height][width]`, ours `[height][width][channels][filters]`.
    Convolution,
    /// `[channels * multiplier][1][height][width]`, ours `[height][width][channels][multiplier]`.
    Depthwise,
    /// `[units][inputs]`, ours `[inputs][units]`; where inputs are a flattened image (height, width, channels), PyTorch's
    /// channels come first.
    Dense { image: Option<[usize; 3]> },
}

impl Layout {
    /// How PyTorch lays out a parameter of a layer of this class.
    pub(super) fn of(class: &str, parameter: &str) -> Self {
        match (class, parameter) {
            ("Conv2d", "kernel") => Layout::Convolution,
            ("DepthwiseConv2d", "kernel") => Layout::Depthwise,
            ("Dense", "kernel") => Layout::Dense { image: None },
            _ => Layout::Same,
        }
    }

    /// PyTorch's shape for a parameter of ours.
    pub(super) fn expected(self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Layout::Convolution, &[height, width, channels, filters]) => vec![filters, channels, height, width],
            (Layout::Depthwise, &[height, width, channels, multiplier]) => {
                vec![channels * multiplier, 1, height, width]
            }
            (Layout::Dense { .. }, &[inputs, units]) => vec![units, inputs],
            _ => ours.to_vec(),
        }
    }

    /// Whether a tensor of this shape can be the parameter. A 1x1 convolution may be a dense layer there, and what is no kernel may
    /// have axes of one before and behind: a class token, a layer scale.
    pub(super) fn fits(self, ours: &[usize], theirs: &[usize]) -> bool {
        if self == Layout::Same {
            let first = |shape: &[usize]| shape.iter().position(|&n| n != 1).unwrap_or(shape.len());
            return bare(&ours[first(ours)..]) == bare(&theirs[first(theirs)..]);
        }
        bare(&self.expected(ours)) == bare(theirs)
    }

    /// How many outputs a layer with a tensor of this shape has, where it would be the parameter if ours had as many.
    pub(super) fn other_outputs(self, ours: &[usize], theirs: &[usize]) -> Option<usize> {
        let expected = self.expected(ours);
        let (found, rest, wanted, others) = match self {
            Layout::Same => {
                let ((found, rest), (wanted, others)) = (theirs.split_last()?, expected.split_last()?);
                (found, rest, wanted, others)
            }
            _ => {
                let ((found, rest), (wanted, others)) = (bare(theirs).split_first()?, bare(&expected).split_first()?);
                (found, rest, wanted, others)
            }
        };
        (found != wanted && rest == others).then_some(*found)
    }

    /// The numbers in our order.
    pub(super) fn arrange(self, ours: &[usize], values: &[f32]) -> Vec<f32> {
        match (self, ours) {
            // Of all these the outputs are PyTorch's first axis and our last.
            (Layout::Convolution, &[height, width, channels, filters]) => {
                transposed(values, [filters, channels, height * width], [2, 1, 0])
            }
            (Layout::Depthwise, &[height, width, channels, multiplier]) => {
                transposed(values, [channels * multiplier, height * width, 1], [1, 0, 2])
            }
            (Layout::Dense { image: Some([height, width, channels]) }, &[_, units]) => {
                transposed(values, [units, channels, height * width], [2, 1, 0])
            }
            (Layout::Dense { image: None }, &[inputs, units]) => transposed(values, [units, inputs, 1], [1, 0, 2]),
            _ => values.to_vec(),
        }
    }
}

/// A shape without the axes of one at its end.
fn bare(shape: &[usize]) -> &[usize] {
    let length = shape.iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
    &shape[..length]
}

/// The axes of an array in another order.
fn transposed(values: &[f32], shape: [usize; 3], order: [usize; 3]) -> Vec<f32> {
    let strides = [shape[1] * shape[2], shape[2], 1];
    let [a, b, c] = order.map(|axis| (shape[axis], strides[axis]));
    let mut result = Vec::with_capacity(values.len());
    for i in 0..a.0 {
        for j in 0..b.0 {
            result.extend((0..c.0).map(|k| values[i * a.1 + j * b.1 + k * c.1]));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(len: usize) -> Vec<f32> {
        (0..len).map(|n| n as f32).collect()
    }

    #[test]
    fn kernels_are_turned() {
        // Two filters of three channels and 1x2 windows: number = filter * 6 + channel * 2 + column.
        let found = Layout::Convolution.arrange(&[1, 2, 3, 2], &counted(12));
        assert_eq!(found, [0.0, 6.0, 2.0, 8.0, 4.0, 10.0, 1.0, 7.0, 3.0, 9.0, 5.0, 11.0]);
        let found = Layout::Depthwise.arrange(&[1, 2, 2, 2], &counted(8));
        assert_eq!(found, [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        assert_eq!(Layout::Dense { image: None }.arrange(&[3, 2], &counted(6)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        // Two channels of 1x2 pixels, flattened: number = unit * 4 + channel * 2 + column.
        let found = Layout::Dense { image: Some([1, 2, 2]) }.arrange(&[4, 1], &counted(4));
        assert_eq!(found, [0.0, 2.0, 1.0, 3.0]);
        assert_eq!(Layout::Same.arrange(&[3], &counted(3)), counted(3));
    }

    #[test]
    fn shapes_that_mean_the_same_fit() {
        let dense = Layout::Dense { image: None };
        assert!(dense.fits(&[3, 2], &[2, 3]) && dense.fits(&[3, 2], &[2, 3, 1, 1]) && !dense.fits(&[3, 2], &[3, 2]));
        assert!(Layout::Convolution.fits(&[1, 1, 3, 2], &[2, 3]) && !Layout::Convolution.fits(&[1, 3, 3, 2], &[2, 3]));
        assert!(
            Layout::Same.fits(&[5, 4], &[1, 5, 4])
                && Layout::Same.fits(&[4], &[1, 1, 4])
                && !Layout::Same.fits(&[5, 4], &[4, 5])
        );
        assert!(Layout::Same.fits(&[4], &[4, 1, 1]) && Layout::Depthwise.fits(&[3, 3, 8, 1], &[8, 1, 3, 3]));
        assert_eq!((dense.other_outputs(&[3, 2], &[5, 3]), dense.other_outputs(&[3, 2], &[2, 3])), (Some(5), None));
        assert_eq!((dense.other_outputs(&[3, 2], &[5, 4]), Layout::Same.other_outputs(&[2], &[5])), (None, Some(5)));
        assert_eq!(Layout::Same.other_outputs(&[3, 2], &[3, 5]), Some(5));
    }
}
