//! The gradient of batch normalisation with what was joined to it: a shortcut, a rectifier, and the sum of two gradients
//! where two operations read the result.
//!
//! Without a shortcut the rectified gradient is never written: where it passes follows from x again, once for the sums and
//! once for the gradient of x. A shortcut needs it as such, and gets it from the pass that sums.

use super::{BatchNorm, Epilogue, count, sample};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target, Value};
use ocellus_kernels::{Level, batch_norm};

pub(super) fn add_gradients(op: &BatchNorm, at: &mut Backward<'_>) -> Result<(), GraphError> {
    let norm: Vec<Value> = at.inputs[..5].to_vec();
    let terms = at.gradient_terms();
    let shortcut = at.inputs.len() == 6;
    let plain = BatchNorm { epilogue: Epilogue::Linear, ..op.clone() };
    // The gradient as it will be handed on, what the remaining work has to apply to it, and the sums.
    let (gradient, rest, dbeta, dgamma);
    if terms.len() == 2 || (shortcut && op.epilogue != Epilogue::Linear) {
        // Without a rectifier, y is not read, and x stands in for it.
        let y = if op.epilogue == Epilogue::Linear { norm[0] } else { at.outputs[0] };
        let inputs = [&norm[..], &[y], &terms].concat();
        let outputs = at.graph.add_all(SumsAndGradient(op.clone()), &inputs)?;
        (gradient, rest, dbeta, dgamma) = (outputs[2], plain, outputs[0], outputs[1]);
    } else {
        let sums = at.graph.add_all(Sums(op.clone()), &[&norm[..], &terms].concat())?;
        (gradient, rest, dbeta, dgamma) = (terms[0], op.clone(), sums[0], sums[1]);
    }
    for (input, sum) in [(4, dbeta), (3, dgamma)] {
        if at.wants(input) {
            at.set(input, sum);
        }
    }
    if at.wants(5) {
        at.set(5, gradient);
    }
    if at.wants(0) {
        add_data(&rest, at, gradient, [dbeta, dgamma])?;
    }
    Ok(())
}

/// Adds the gradient of x, the first of the node's inputs, from that of what was normalised and from the sums, the gradients of beta and
/// gamma.
pub(super) fn add_data(op: &BatchNorm, at: &mut Backward<'_>, dy: Value, sums: [Value; 2]) -> Result<(), GraphError> {
    let x = at.graph.spec(at.inputs[0]);
    let data = Data { pixels: x.len() / x.channels().max(1), op: op.clone() };
    let dx = at.add(data, &[&at.inputs[..5], &[dy], &sums].concat())?;
    at.set(0, dx);
    Ok(())
}

/// Inputs: x, mean, variance, gamma, beta, dy. Outputs: the gradients of beta and of gamma.
#[derive(Clone, Debug)]
struct Sums(BatchNorm);

impl Op for Sums {
    fn name(&self) -> &'static str {
        "BatchNormSums"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0 || input == 5
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 6..=6)?;
        sample(inputs[5])?;
        Ok(vec![Spec::sum([inputs[0].channels()]), Spec::sum([inputs[0].channels()])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunSums { level, op: self.0.clone() })
    }
}

#[derive(Debug)]
struct RunSums {
    level: Level,
    op: BatchNorm,
}

impl Run for RunSums {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let [dbeta, dgamma] = outputs else { unreachable!("it has two outputs") };
        let (norm, x, dy) = (self.op.norm(inputs, 1), inputs.values(0), inputs.values(5));
        batch_norm::backward_sums(self.level, &norm, x, dy, dbeta.f32(), dgamma.f32(), at.accumulate);
    }
}

/// Inputs: x, mean, variance, gamma, beta, y, one or two terms of the gradient of y. Outputs: the gradients of beta and of
/// gamma, and the gradient before the rectifier.
#[derive(Clone, Debug)]
struct SumsAndGradient(BatchNorm);

impl Op for SumsAndGradient {
    fn name(&self) -> &'static str {
        "BatchNormSumsAndGradient"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0 || input >= 5
    }
    fn writes_bf16(&self, _inputs: &[&Spec], output: usize) -> bool {
        output == 2
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 7..=8)?;
        inputs[5..].iter().try_for_each(|spec| sample(spec))?;
        let channels = inputs[0].channels();
        Ok(vec![Spec::sum([channels]), Spec::sum([channels]), inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunSumsAndGradient { level, op: self.0.clone(), two: inputs.len() == 8 })
    }
}

#[derive(Debug)]
struct RunSumsAndGradient {
    level: Level,
    op: BatchNorm,
    two: bool,
}

impl Run for RunSumsAndGradient {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let [dbeta, dgamma, g] = outputs else { unreachable!("it has three outputs") };
        let (norm, x, y) = (self.op.norm(inputs, 1), inputs.values(0), inputs.values(5));
        let terms = (inputs.values(6), self.two.then(|| inputs.values(7)));
        let (g, dbeta, dgamma) = (g.values(), dbeta.f32(), dgamma.f32());
        batch_norm::backward_sums_and_gradient(self.level, &norm, x, y, terms, g, dbeta, dgamma, at.accumulate);
    }
}

/// Inputs: x, mean, variance, gamma, beta, dy, and the gradients of beta and gamma. Output: gradient of x.
#[derive(Clone, Debug)]
struct Data {
    pixels: usize,
    op: BatchNorm,
}

impl Op for Data {
    fn name(&self) -> &'static str {
        "BatchNormBackwardData"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0 || input == 5
    }
    fn writes_bf16(&self, _inputs: &[&Spec], _output: usize) -> bool {
        true
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 8..=8)?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunData { level, data: self.clone() })
    }
}

#[derive(Debug)]
struct RunData {
    level: Level,
    data: Data,
}

impl Run for RunData {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let Data { pixels, op } = &self.data;
        // Where the statistics are constants the terms that come through them vanish: as for an endless batch.
        let count = if op.batch_statistics { (at.batch * pixels) as f32 } else { f32::INFINITY };
        let (x, dy, dbeta, dgamma) = (inputs.values(0), inputs.values(5), inputs.f32(6), inputs.f32(7));
        batch_norm::backward(self.level, &op.norm(inputs, 1), count, x, dy, dbeta, dgamma, outputs[0].values());
    }
}
