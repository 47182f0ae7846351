//! Pooling: the maximum or the mean of windows, or of the whole image.

use super::image;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Level;
use ocellus_kernels::pool2d::{self, PoolShape};

/// Maximum of each window. Outputs: the maxima, and the position of each in its window.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool2d {
    /// Height and width of the windows.
    pub size: [usize; 2],
    /// Step between windows, in rows and columns.
    pub strides: [usize; 2],
    /// Pixels around the image that no maximum comes from: top, bottom, left, right.
    pub padding: [usize; 4],
}

/// Mean of each window; padding does not count.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool2d {
    /// Height and width of the windows.
    pub size: [usize; 2],
    /// Step between windows, in rows and columns.
    pub strides: [usize; 2],
    /// Pixels around the image: top, bottom, left, right.
    pub padding: [usize; 4],
}

/// Mean over all pixels of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalAveragePool2d;

/// Maximum over all pixels of each channel. Outputs: the maxima, and the pixel of each.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalMaxPool2d;

/// Most pixels in a window of a max-pool: positions are bytes.
const MOST_POSITIONS: usize = 255;

fn shape(input: &Spec, size: [usize; 2], strides: [usize; 2], padding: [usize; 4]) -> Result<PoolShape, String> {
    let [h, w, c] = image(input)?;
    if size.contains(&0) || strides.contains(&0) {
        return Err(format!("pool size and strides must be at least 1, received {size:?} and {strides:?}"));
    }
    if padding[0].max(padding[1]) >= size[0] || padding[2].max(padding[3]) >= size[1] {
        return Err(format!("padding {padding:?} must be smaller than the pool size {size:?}"));
    }
    if size[0] > h + padding[0] + padding[1] || size[1] > w + padding[2] + padding[3] {
        return Err(format!("pool size {}x{} is larger than its input {h}x{w}", size[0], size[1]));
    }
    Ok(PoolShape { input: [h, w, c], size, strides, padding })
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "MaxPool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        let shape = shape(inputs[0], self.size, self.strides, self.padding)?;
        let positions = self.size[0] * self.size[1];
        if positions > MOST_POSITIONS {
            return Err(format!(
                "expected at most {MOST_POSITIONS} pixels in a window, received {positions}; use global pooling"
            ));
        }
        Ok(vec![Spec::sample(shape.output()), Spec::sample(shape.output()).bytes()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = shape(inputs[0], self.size, self.strides, self.padding);
        Box::new(RunPool { level, kind: Kind::Max, shape: shape.expect("checked when the node was added") })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = shape(at.graph.spec(at.inputs[0]), self.size, self.strides, self.padding);
        let shape = shape.expect("checked when the node was added");
        let (dy, positions) = (at.gradient(), at.outputs[1]);
        let gradient = at.add(PoolBackward { kind: Kind::Max, shape }, &[dy, positions])?;
        at.set(0, gradient);
        Ok(())
    }
}

impl Op for AveragePool2d {
    fn name(&self) -> &'static str {
        "AveragePool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        Ok(vec![Spec::sample(shape(inputs[0], self.size, self.strides, self.padding)?.output())])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = shape(inputs[0], self.size, self.strides, self.padding);
        Box::new(RunPool { level, kind: Kind::Average, shape: shape.expect("checked when the node was added") })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = shape(at.graph.spec(at.inputs[0]), self.size, self.strides, self.padding);
        let shape = shape.expect("checked when the node was added");
        let dy = at.gradient();
        let gradient = at.add(PoolBackward { kind: Kind::Average, shape }, &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

/// Global pooling takes the whole image for its window.
fn whole(input: [usize; 3]) -> PoolShape {
    PoolShape { input, size: [input[0], input[1]], strides: [1, 1], padding: [0; 4] }
}

impl Op for GlobalAveragePool2d {
    fn name(&self) -> &'static str {
        "GlobalAveragePool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        Ok(vec![Spec::sample([image(inputs[0])?[2]])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = whole(image(inputs[0]).expect("checked when the node was added"));
        Box::new(RunPool { level, kind: Kind::GlobalAverage, shape })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = whole(image(at.graph.spec(at.inputs[0])).expect("checked when the node was added"));
        let dy = at.gradient();
        let gradient = at.add(PoolBackward { kind: Kind::GlobalAverage, shape }, &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

impl Op for GlobalMaxPool2d {
    fn name(&self) -> &'static str {
        "GlobalMaxPool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        let channels = image(inputs[0])?[2];
        Ok(vec![Spec::sample([channels]), Spec::sample([channels])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = whole(image(inputs[0]).expect("checked when the node was added"));
        Box::new(RunPool { level, kind: Kind::GlobalMax, shape })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = whole(image(at.graph.spec(at.inputs[0])).expect("checked when the node was added"));
        let (dy, positions) = (at.gradient(), at.outputs[1]);
        let gradient = at.add(PoolBackward { kind: Kind::GlobalMax, shape }, &[dy, positions])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Max,
    Average,
    GlobalMax,
    GlobalAverage,
}

#[derive(Debug)]
struct RunPool {
    level: Level,
    kind: Kind,
    shape: PoolShape,
}

impl Run for RunPool {
    fn unit(&self) -> usize {
        // A row of the output: it is the output of the rows of the image that its windows meet.
        match self.kind {
            Kind::Max | Kind::Average => self.shape.output()[1..].iter().product(),
            Kind::GlobalMax | Kind::GlobalAverage => 0,
        }
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let unit = self.unit().max(1);
        let (shape, rows) = self.shape.some_rows(piece.values().start / unit..piece.values().end.div_ceil(unit));
        let x =
            &inputs.f32(0)[rows.start * shape.input[1] * shape.input[2]..rows.end * shape.input[1] * shape.input[2]];
        match self.kind {
            Kind::Max => {
                let (y, argmax) = piece.f32_and_u8();
                pool2d::max_forward(self.level, &shape, 1, x, y, argmax);
            }
            _ => pool2d::average_forward(self.level, &shape, 1, x, piece.f32()),
        }
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let ([h, w, channels], samples, x) = (self.shape.input, at.samples, inputs.f32(0));
        let (first, rest) = outputs.split_at_mut(1);
        let y = first[0].f32();
        match (self.kind, rest) {
            (Kind::Max, [argmax]) => pool2d::max_forward(self.level, &self.shape, samples, x, y, argmax.u8()),
            (Kind::GlobalMax, [argmax]) => {
                pool2d::global_max_forward(self.level, h * w, channels, samples, x, y, argmax.f32());
            }
            (Kind::Average, _) => pool2d::average_forward(self.level, &self.shape, samples, x, y),
            (Kind::GlobalAverage, _) => pool2d::global_average_forward(self.level, h * w, channels, samples, x, y),
            _ => unreachable!("maxima come with their positions"),
        }
    }
}

/// Inputs: gradient of the output, and positions of maxima. Output: gradient of the image.
#[derive(Clone, Debug)]
struct PoolBackward {
    kind: Kind,
    shape: PoolShape,
}

impl Op for PoolBackward {
    fn name(&self) -> &'static str {
        "PoolBackward"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.shape.input)])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, op: self.clone() })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    op: PoolBackward,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (shape, level, samples) = (&self.op.shape, self.level, at.samples);
        let ([h, w, channels], dy, dx) = (shape.input, inputs.f32(0), outputs[0].f32());
        match self.op.kind {
            Kind::Max => pool2d::max_backward(level, shape, samples, dy, inputs.u8(1), dx),
            Kind::Average => pool2d::average_backward(level, shape, samples, dy, dx),
            Kind::GlobalMax => pool2d::global_max_backward(level, h * w, channels, samples, dy, inputs.f32(1), dx),
            Kind::GlobalAverage => pool2d::global_average_backward(level, h * w, channels, samples, dy, dx),
        }
    }
}
