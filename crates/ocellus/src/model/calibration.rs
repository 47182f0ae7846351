//! Prediction in 8 bits: what is measured on images beforehand, so that numbers can be rounded to bytes.

use super::graph::Observed;
use super::{FileError, Images, Model, ModelError, Samples};
use ocellus_engine::{Input, Runner, Scalars};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What convolutional and dense layers compute in. Weights, normalisation, losses and updates are in single precision
/// whatever it is, and so is a loaded model until told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to bf16, sums in single precision; for training, too. Fast where the processor has AVX512_BF16;
    /// elsewhere it is emulated, to the same rounding, and slow.
    Bf16,
    /// 8-bit weights and activations: faster, and nearly as accurate. For predictions only; it needs a [`Calibration`].
    Int8,
}

impl Precision {
    /// Its name: `f32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// What the factors of products that are not in 8 bits are rounded to.
    pub(super) fn factors(self) -> ocellus_engine::Precision {
        match self {
            Precision::Bf16 => ocellus_engine::Precision::Bf16,
            Precision::F32 | Precision::Int8 => ocellus_engine::Precision::F32,
        }
    }
}

/// The ranges of numbers that layers read, seen on some images: what 8-bit prediction rounds to bytes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// How many images were looked at.
    pub images: usize,
    /// For each convolutional or dense layer, the least and the greatest number in its input.
    pub ranges: BTreeMap<String, [f32; 2]>,
}

/// Bytes of the values that are looked at in one step.
const STEP_BYTES: usize = 128 << 20;
/// Images looked at in one step, at most.
const BATCH: usize = 32;

impl Model {
    /// Measures, on images like those that will be predicted, the ranges that prediction in 8 bits needs; some hundred images of
    /// the training data do. Files of the model hold them. Whatever changes the weights makes the model forget them.
    ///
    /// ```no_run
    /// # use ocellus::{data::Dataset, model::{Model, ModelError, Precision}};
    /// # fn quantize(model: &mut Model, train: &Dataset, test: &Dataset) -> Result<(), ModelError> {
    /// model.calibrate(&train.take(1000))?;
    /// model.set_precision(Precision::Int8)?;
    /// println!("{}", model.evaluate(test)?.accuracy);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the images do not suit the model or cannot be read, or a layer's input is no finite number.
    pub fn calibrate<'a>(&mut self, images: impl Into<Images<'a>>) -> Result<&Calibration, ModelError> {
        let images = images.into();
        let count = images.count(self.input_shape())?;
        if let Images::Dataset(dataset) = images {
            let samples = Samples::from(dataset);
            self.check_class_names(samples)?;
            samples.check(self.input_shape(), self.outputs())?;
        }
        if count == 0 {
            return Err(ModelError::argument("there are no images to calibrate on"));
        }
        let ranges = self.observe(images, count)?;
        self.forget_calibration();
        Ok(self.calibration.insert(Calibration { images: count, ranges }))
    }

    fn observe(&mut self, images: Images<'_>, count: usize) -> Result<BTreeMap<String, [f32; 2]>, ModelError> {
        let values: usize = self.input_shape().iter().product();
        let level = self.engine.level()?;
        let observed = self.observed(images.are_bytes())?;
        let batch = (STEP_BYTES / 4 / observed.values().max(1)).clamp(1, BATCH).min(count);
        let Observed { plan, inputs } = self.observing_plan(observed, batch, level)?;
        let threads = self.engine.pool().threads();
        let mut runner = Runner::new(plan, threads);
        let mut ranges = vec![Extremes::default(); inputs.len()];
        let (mut pixels, mut seen) = (Vec::new(), Vec::new());
        let mut first = 0;
        while first < count {
            let samples = (count - first).min(batch);
            let input = images.stretch(first..first + samples, values, &mut pixels)?;
            runner.run(self.engine.pool(), &mut self.parameters, &[input], samples, &Scalars::default());
            for (layer, range) in inputs.iter().zip(&mut ranges) {
                match (layer.value, input) {
                    (Some(value), _) => {
                        seen.resize(samples * layer.len, 0.0);
                        runner.read(value, &mut seen);
                        range.take(&seen);
                    }
                    (None, Input::F32(values)) => range.take(values),
                    (None, Input::U8(_)) => range.take(&[0.0, 255.0]),
                }
            }
            first += samples;
        }
        let mut all: BTreeMap<String, [f32; 2]> = BTreeMap::new();
        for (layer, range) in inputs.iter().zip(ranges) {
            let [low, high] = range.finish().ok_or_else(|| {
                ModelError::Argument(format!("{}: on these images its input is no finite number", layer.name))
            })?;
            let known = all.entry(layer.name.clone()).or_insert([low, high]);
            *known = [known[0].min(low), known[1].max(high)];
        }
        Ok(all)
    }

    /// What was measured by [`calibrate`](Self::calibrate), now or before the model was saved.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Sets what training, predictions and evaluations compute in from now on; training in 8 bits there is none.
    ///
    /// # Errors
    /// 8 bits without a [`Calibration`].
    pub fn set_precision(&mut self, precision: Precision) -> Result<(), ModelError> {
        if precision == Precision::Int8 && self.calibration.is_none() {
            return Err(ModelError::argument("the model was not calibrated for int8: call `calibrate` first"));
        }
        if precision != self.precision {
            self.precision = precision;
            self.engine.forget_plans();
        }
        Ok(())
    }

    /// What training, predictions and evaluations compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// After what changes the ranges.
    pub(super) fn forget_calibration(&mut self) {
        self.calibration = None;
        if self.precision == Precision::Int8 {
            self.precision = Precision::F32;
            self.engine.forget_plans();
        }
    }

    /// Takes over the ranges in a file, if they suit the layers.
    pub(super) fn adopt_calibration(
        &mut self,
        calibration: Option<Calibration>,
        path: &Path,
    ) -> Result<(), ModelError> {
        let Some(calibration) = calibration else { return Ok(()) };
        let format = |problem: String| FileError::Format { path: path.to_owned(), problem };
        let needed = self.observed(true)?;
        let unknown = calibration.ranges.keys().find(|name| !needed.names().any(|known| known == *name));
        if let Some(name) = unknown {
            return Err(format(format!("has a range for {name:?}, but no layer of that name is calibrated")).into());
        }
        for name in needed.names() {
            let Some(&[low, high]) = calibration.ranges.get(name) else {
                return Err(format(format!("{name}: the calibration has no range for it")).into());
            };
            if !(low.is_finite() && high.is_finite() && low <= high) {
                return Err(format(format!("{name}: the calibration's range from {low} to {high} is none")).into());
            }
        }
        self.calibration = Some(calibration);
        Ok(())
    }
}

/// The least and the greatest of some numbers.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    low: [f32; LANES],
    high: [f32; LANES],
    /// Whether all were numbers.
    numbers: bool,
}

const LANES: usize = 16;

impl Default for Extremes {
    fn default() -> Self {
        Extremes { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES], numbers: true }
    }
}

impl Extremes {
    fn take(&mut self, values: &[f32]) {
        let mut odd = false;
        for values in values.chunks(LANES) {
            for (lane, &value) in values.iter().enumerate() {
                self.low[lane] = if value < self.low[lane] { value } else { self.low[lane] };
                self.high[lane] = if value > self.high[lane] { value } else { self.high[lane] };
                odd |= value.is_nan();
            }
        }
        self.numbers &= !odd;
    }

    fn finish(&self) -> Option<[f32; 2]> {
        let low = self.low.iter().copied().fold(f32::INFINITY, f32::min);
        let high = self.high.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (self.numbers && low.is_finite() && high.is_finite()).then_some([low, high])
    }
}
