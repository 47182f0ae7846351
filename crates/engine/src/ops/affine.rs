//! A fixed scale and offset for each channel: rescaled or normalised pixels.

use crate::{At, Backward, DType, GraphError, Inputs, Op, Output, Piece, Role, Run, Spec, Target};
use ocellus_kernels::{Level, elementwise};

/// `y[.., c] = x[.., c] * scale[c] + offset[c]`; one number stands for all channels. Bytes become single precision here.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Factor for each channel, or one for all.
    pub scale: Vec<f32>,
    /// What is added for each channel, or one for all.
    pub offset: Vec<f32>,
}

impl Op for Affine {
    fn name(&self) -> &'static str {
        "Affine"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        if inputs[0].role != Role::Sample {
            return Err(format!("expected values for each sample, received {}", inputs[0]));
        }
        let channels = inputs[0].channels();
        for (what, given) in [("scale", self.scale.len()), ("offset", self.offset.len())] {
            if given != 1 && given != channels {
                return Err(format!("expected a {what} for each of {channels} channels, received {given}"));
            }
        }
        Ok(vec![Spec::sample(inputs[0].shape.clone())])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let channels = inputs[0].channels();
        let spread = |v: &[f32]| v.iter().copied().cycle().take(channels).collect();
        Box::new(RunAffine { level, channels, scale: spread(&self.scale), offset: spread(&self.offset) })
    }
    fn is_cheap(&self) -> bool {
        true
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let dy = at.gradient();
        if at.graph.spec(at.inputs[0]).dtype == DType::F32 {
            let gradient = at.add(Affine { scale: self.scale.clone(), offset: vec![0.0] }, &[dy])?;
            at.set(0, gradient);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RunAffine {
    level: Level,
    channels: usize,
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Run for RunAffine {
    fn unit(&self) -> usize {
        self.channels
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let values = piece.values();
        if inputs.is_u8(0) {
            let x = &inputs.u8(0)[values];
            elementwise::affine_u8(self.level, self.channels, x, &self.scale, &self.offset, piece.f32());
        } else {
            let x = &inputs.f32(0)[values];
            elementwise::affine(self.level, self.channels, x, &self.scale, &self.offset, piece.f32());
        }
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let y = outputs[0].f32();
        if inputs.is_u8(0) {
            elementwise::affine_u8(self.level, self.channels, inputs.u8(0), &self.scale, &self.offset, y);
        } else {
            elementwise::affine(self.level, self.channels, inputs.f32(0), &self.scale, &self.offset, y);
        }
    }
}
