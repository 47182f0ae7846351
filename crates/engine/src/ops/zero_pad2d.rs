//! Zeros around an image; a convolution behind it takes them over as its own padding when the graph is fused.

use super::image;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};

/// Adds rows and columns of zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroPad2d {
    /// Rows and columns added: top, bottom, left, right.
    pub padding: [usize; 4],
}

impl ZeroPad2d {
    fn output(&self, [height, width, channels]: [usize; 3]) -> [usize; 3] {
        let [top, bottom, left, right] = self.padding;
        [height + top + bottom, width + left + right, channels]
    }
}

impl Op for ZeroPad2d {
    fn name(&self) -> &'static str {
        "ZeroPad2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        Ok(vec![Spec::sample(self.output(image(inputs[0])?))])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunPad { pad: self.clone(), image: image(inputs[0]).expect("checked when the node was added") })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let image = image(at.graph.spec(at.inputs[0])).expect("checked when the node was added");
        let dy = at.gradient();
        let gradient = at.add(Crop2d { pad: self.clone(), image }, &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunPad {
    pad: ZeroPad2d,
    image: [usize; 3],
}

impl RunPad {
    /// Fills rows of the padded images from the `first` on.
    fn fill(&self, first: usize, x: &[f32], y: &mut [f32]) {
        let ([height, width, channels], [top, _, left, _]) = (self.image, self.pad.padding);
        let [rows, columns, _] = self.pad.output(self.image);
        for (number, row) in y.chunks_exact_mut((columns * channels).max(1)).enumerate() {
            let (sample, line) = ((first + number) / rows, (first + number) % rows);
            if line < top || line >= top + height {
                row.fill(0.0);
                continue;
            }
            let from = (sample * height + line - top) * width * channels;
            let (before, rest) = row.split_at_mut(left * channels);
            let (inside, after) = rest.split_at_mut(width * channels);
            before.fill(0.0);
            inside.copy_from_slice(&x[from..from + width * channels]);
            after.fill(0.0);
        }
    }
}

impl Run for RunPad {
    fn unit(&self) -> usize {
        self.pad.output(self.image)[1..].iter().product()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let first = piece.values().start / self.unit().max(1);
        self.fill(first, inputs.f32(0), piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        self.fill(0, inputs.f32(0), outputs[0].f32());
    }
}

/// Input: gradient of the padded image. Output: the part of it that is not padding.
#[derive(Clone, Debug)]
struct Crop2d {
    pad: ZeroPad2d,
    image: [usize; 3],
}

impl Op for Crop2d {
    fn name(&self) -> &'static str {
        "Crop2d"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.image)])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunCrop(self.clone()))
    }
}

#[derive(Debug)]
struct RunCrop(Crop2d);

impl Run for RunCrop {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let ([height, width, channels], [top, _, left, _]) = (self.0.image, self.0.pad.padding);
        let [rows, columns, _] = self.0.pad.output(self.0.image);
        let (dy, dx) = (inputs.f32(0), outputs[0].f32());
        for (number, row) in dx.chunks_exact_mut((width * channels).max(1)).enumerate() {
            let (sample, line) = (number / height, number % height);
            let from = ((sample * rows + line + top) * columns + left) * channels;
            row.copy_from_slice(&dy[from..from + width * channels]);
        }
    }
}
