//! Between single precision and bf16: what the plan adds where a value is kept as bf16. Graphs as written have none.

use crate::{At, DType, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::{Level, convert};

/// Input: values. Output: the same as bf16, rounded to nearest, or in single precision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Convert(pub(crate) DType);

impl Op for Convert {
    fn name(&self) -> &'static str {
        if self.0 == DType::Bf16 { "Narrow" } else { "Widen" }
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn reads_bf16(&self, _input: usize) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        Ok(vec![Spec { dtype: self.0, ..inputs[0].clone() }])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunConvert(level))
    }
}

#[derive(Debug)]
struct RunConvert(Level);

impl Run for RunConvert {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        convert(self.0, inputs.values(0), outputs[0].values());
    }
}
