//! Each channel multiplied by a number: a learned one (layer scale, Touvron et al., 2021), or one for each sample
//! (squeeze-and-excitation, Hu et al., 2018).

use super::{count, sample};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Role, Run, Spec, Target};
use ocellus_kernels::{Level, elementwise, reduce};

/// `y[.., c] = x[.., c] * s[c]`. Inputs: x, and s, which all samples share or each has its own.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiplyChannels;

impl Op for MultiplyChannels {
    fn name(&self) -> &'static str {
        "MultiplyChannels"
    }
    fn is_pixelwise(&self, inputs: &[&Spec]) -> bool {
        inputs[1].role == Role::Shared
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        sample(inputs[0])?;
        let channels = inputs[0].channels();
        if inputs[1].role == Role::Sum || inputs[1].shape != [channels] {
            return Err(format!("expected a factor for each of the {channels} channels, received {}", inputs[1]));
        }
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, size: Size::of(inputs) })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (x, s, dy) = (at.inputs[0], at.inputs[1], at.gradient());
        if at.wants(0) {
            let dx = at.add(MultiplyChannels, &[dy, s])?;
            at.set(0, dx);
        }
        if at.wants(1) {
            let role = at.graph.spec(s).role;
            let ds = at.add(ChannelProducts { role }, &[x, dy])?;
            at.set(1, ds);
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        inputs[0].len() as u64
    }
}

/// How the factors lie upon the values.
#[derive(Clone, Copy, Debug)]
struct Size {
    pixels: usize,
    channels: usize,
    /// Whether each sample has factors of its own.
    each: bool,
}

impl Size {
    fn of(inputs: &[&Spec]) -> Self {
        let channels = inputs[0].channels().max(1);
        Size { pixels: inputs[0].len() / channels, channels, each: inputs[1].role == Role::Sample }
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    size: Size,
}

impl Run for RunForward {
    fn unit(&self) -> usize {
        self.size.channels
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let (x, channels) = (&inputs.f32(0)[piece.values()], self.size.channels);
        elementwise::multiply_channels(self.level, x.len() / channels, channels, x, inputs.f32(1), piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, Size { pixels, channels, each }) = (inputs.f32(0), self.size);
        let pixels = if each { pixels } else { x.len() / channels };
        elementwise::multiply_channels(self.level, pixels, channels, x, inputs.f32(1), outputs[0].f32());
    }
}

/// Inputs: x, dy. Output: the sums of their products for each channel, over pixels or over samples, too.
#[derive(Clone, Debug)]
struct ChannelProducts {
    role: Role,
}

impl Op for ChannelProducts {
    fn name(&self) -> &'static str {
        "ChannelProducts"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        self.role != Role::Sample
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let shape = [inputs[0].channels()];
        Ok(vec![if self.role == Role::Sample { Spec::sample(shape) } else { Spec::sum(shape) }])
    }
    fn prepare(&self, inputs: &[&Spec], outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunProducts { level, size: Size::of(&[inputs[0], outputs[0]]) })
    }
}

#[derive(Debug)]
struct RunProducts {
    level: Level,
    size: Size,
}

impl Run for RunProducts {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (x, dy, ds) = (inputs.f32(0), inputs.f32(1), outputs[0].f32());
        let Size { pixels, channels, each } = self.size;
        if each {
            elementwise::multiply_channels_backward(self.level, pixels, channels, x, dy, ds);
        } else {
            reduce::column_products(self.level, channels, x, dy, ds, at.accumulate);
        }
    }
}
