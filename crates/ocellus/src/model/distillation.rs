//! Knowledge distillation: a model learns what a larger one makes of the same images, beside their classes.
//!
//! Hinton, Vinyals and Dean, *Distilling the knowledge in a neural network*, 2015.

use super::file::to_bytes;
use super::graph::{Basis, Forward};
use super::{Model, ModelError};
use crate::data::fingerprint::xxh64;
use crate::layers::shape_text;
use crate::losses::Loss;
use ocellus_engine::{DType, Graph, GraphError, Input, Level, Parameters, Pool, Runner, Scalars, Value, ops};

/// A trained model to learn from: the loss of a sample is
/// `weight * T² * KL(teacher || student) + (1 - weight) * loss`, with the probabilities of both models taken from their logits divided
/// by the temperature `T`, and the loss that the model was compiled with.
///
/// The teacher sees the pixels of each batch as the student does, changed, mixed and made smaller alike, and prepares them in its own
/// way. Class weights count for both parts.
///
/// ```no_run
/// # use ocellus::{data::Dataset, model::{Distillation, FitOptions, Model, ModelError}};
/// # fn train(teacher: &Model, student: &mut Model, images: &Dataset) -> Result<(), ModelError> {
/// let distillation = Distillation::new(teacher).temperature(4.0).weight(0.7);
/// student.fit(images, FitOptions::new().epochs(10).distillation(distillation))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Distillation<'a> {
    teacher: &'a Model,
    temperature: f32,
    weight: f32,
}

impl Distillation<'_> {
    /// What its results depend on: temperature, weight, and a hash of the teacher's parameters.
    pub(super) fn identity(&self) -> (f32, f32, u64) {
        let parameters = self.teacher.parameters.iter().map(|(_, parameter)| xxh64(&to_bytes(parameter.values())));
        let hashes: Vec<u8> = parameters.flat_map(u64::to_le_bytes).collect();
        (self.temperature, self.weight, xxh64(&hashes))
    }
}

impl<'a> Distillation<'a> {
    /// What the logits are divided by, where nothing else is said.
    pub const TEMPERATURE: f32 = 4.0;
    /// The teacher's share of the loss, where nothing else is said.
    pub const WEIGHT: f32 = 0.7;

    /// To learn from this model, in the precision that it predicts in.
    pub fn new(teacher: &'a Model) -> Self {
        Distillation { teacher, temperature: Self::TEMPERATURE, weight: Self::WEIGHT }
    }

    /// What the logits are divided by. 4 by default.
    pub fn temperature(self, temperature: f32) -> Self {
        Distillation { temperature, ..self }
    }

    /// The teacher's share of the loss. 0.7 by default.
    pub fn weight(self, weight: f32) -> Self {
        Distillation { weight, ..self }
    }

    /// What is wrong with these arguments.
    pub(crate) fn problem(temperature: f32, weight: f32) -> Option<String> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Some(format!("distillation: expected a temperature above 0, received {temperature}"));
        }
        let wrong = !(0.0..=1.0).contains(&weight);
        wrong.then(|| format!("distillation: expected a weight from 0 to 1, received {weight}"))
    }

    /// Refuses a teacher that cannot teach this model.
    pub(super) fn check(&self, student: &Model, loss: &Loss) -> Result<(), ModelError> {
        let refused = |problem: String| Err(ModelError::Argument(format!("distillation: {problem}")));
        if let Some(problem) = Self::problem(self.temperature, self.weight) {
            return Err(ModelError::Argument(problem));
        }
        let teacher = self.teacher;
        if teacher.input_shape() != student.input_shape() {
            let (theirs, ours) = (shape_text(teacher.input_shape()), shape_text(student.input_shape()));
            return refused(format!(
                "the teacher takes images of {theirs}, the model {ours}; they see the same pixels, so train it on images of {theirs}"
            ));
        }
        if teacher.outputs() != student.outputs() {
            let (theirs, ours) = (teacher.outputs(), student.outputs());
            return refused(format!("the teacher gives {theirs} outputs, the model {ours}"));
        }
        let names = teacher.class_names.iter().zip(&student.class_names).enumerate();
        if let Some((class, (theirs, ours))) = names.into_iter().find(|(_, (theirs, ours))| theirs != ours) {
            return refused(format!("class {class} is {theirs:?} for the teacher, but {ours:?} in the data"));
        }
        let categorical =
            matches!(loss, Loss::CategoricalCrossEntropy { .. } | Loss::SparseCategoricalCrossEntropy { .. });
        if !categorical {
            return refused("expected a model that is trained with categorical cross-entropy".into());
        }
        if !ends_in_softmax(teacher) {
            return refused("expected a teacher that ends in softmax".into());
        }
        if !(takes_logits(loss) || ends_in_softmax(student)) {
            return refused("expected a model that ends in softmax, or a loss of logits".into());
        }
        Ok(())
    }

    /// The loss of each sample, of the student's output and the loss of the classes; adds the teacher's probabilities to the graph's
    /// inputs.
    pub(super) fn add_to(
        &self,
        graph: &mut Graph,
        loss: &Loss,
        output: Value,
        of_classes: Value,
    ) -> Result<Value, GraphError> {
        graph.set_place("distillation");
        let shape = graph.shape(output).to_vec();
        let taught = graph.input(&shape, DType::F32);
        let logits = if takes_logits(loss) { output } else { before_softmax(graph, output) };
        let softened = scaled(graph, logits, 1.0 / self.temperature)?;
        // KL(q || p) is the cross-entropy of the two less the entropy of q, which no weight changes.
        let crossed = graph.add_all(ops::SoftmaxCrossEntropy { label_smoothing: 0.0 }, &[softened, taught])?[0];
        let entropy = graph.add(ops::CategoricalCrossEntropy { label_smoothing: 0.0 }, &[taught, taught])?;
        let factor = self.weight * self.temperature * self.temperature;
        let parts = [
            scaled(graph, of_classes, 1.0 - self.weight)?,
            scaled(graph, crossed, factor)?,
            scaled(graph, entropy, -factor)?,
        ];
        graph.add(ops::Add, &parts)
    }

    /// The teacher made ready for batches of this size; with a size of its own where images are made smaller.
    pub(super) fn teacher(
        &self,
        size: Option<[usize; 2]>,
        (images, batch, level): (DType, usize, Level),
        threads: usize,
    ) -> Result<Teacher, ModelError> {
        let model = self.teacher;
        let network = size.map(|size| model.network_at(size)).transpose()?;
        let basis = Basis { network: network.as_ref(), cut: None };
        let Forward { mut graph, outputs, .. } = model.forward_of(basis, images, None)?;
        let logits = before_softmax(&graph, outputs[outputs.len() - 1]);
        let softened = scaled(&mut graph, logits, 1.0 / self.temperature)?;
        let probabilities = graph.add(ops::Softmax, &[softened])?;
        let (plan, fetched) = model.finish_inference(&graph, &[probabilities], batch, level, threads)?;
        Ok(Teacher {
            runner: Runner::new(plan, threads),
            parameters: model.parameters.clone(),
            fetched: fetched[0],
            classes: model.outputs(),
            probabilities: vec![0.0; batch * model.outputs()],
        })
    }
}

/// A teacher with its memory.
pub(super) struct Teacher {
    runner: Runner,
    parameters: Parameters,
    fetched: Value,
    classes: usize,
    probabilities: Vec<f32>,
}

impl Teacher {
    /// Its probabilities at the temperature, for each of these images.
    pub(super) fn teach(&mut self, pool: &mut Pool, images: Input<'_>, samples: usize) -> &[f32] {
        self.runner.run(pool, &mut self.parameters, &[images], samples, &Scalars::default());
        let probabilities = &mut self.probabilities[..samples * self.classes];
        self.runner.read(self.fetched, probabilities);
        probabilities
    }
}

fn takes_logits(loss: &Loss) -> bool {
    matches!(
        loss,
        Loss::CategoricalCrossEntropy { from_logits: true, .. }
            | Loss::SparseCategoricalCrossEntropy { from_logits: true }
    )
}

fn ends_in_softmax(model: &Model) -> bool {
    let Ok(Forward { graph, outputs, .. }) = model.forward(DType::F32) else { return false };
    outputs.last().is_some_and(|&output| before_softmax(&graph, output) != output)
}

/// What softmax made this value of; the value itself where it did not.
fn before_softmax(graph: &Graph, value: Value) -> Value {
    let made = graph.nodes().iter().find(|node| node.outputs.contains(&value));
    made.filter(|node| node.op.name() == ops::Softmax::NAME).map_or(value, |node| node.inputs[0])
}

fn scaled(graph: &mut Graph, value: Value, scale: f32) -> Result<Value, GraphError> {
    graph.add(ops::Affine { scale: vec![scale], offset: vec![0.0] }, &[value])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::{Mixing, Translate};
    use crate::data::{self, Augment, Dataset, Split};
    use crate::layers::{Activation, Conv2d, Dense, Flatten, GlobalAveragePooling2d};
    use crate::model::{FitOptions, Precision, ProgressiveResizing, Sequential};
    use crate::optimizers::Sgd;

    const IMAGES: [f32; 15] = [0.3, -0.7, 1.1, 0.9, 0.2, -0.4, -1.3, 0.8, 0.1, 0.6, 0.5, -0.9, 1.7, -0.2, 0.4];
    const LABELS: [u32; 5] = [0, 3, 1, 2, 3];

    /// Logits of one dense layer of four units on three numbers, each with a weight of its own.
    fn logits(weights: &[f64], image: &[f32]) -> Vec<f64> {
        let (kernel, bias) = weights.split_at(12);
        (0..4)
            .map(|unit| bias[unit] + (0..3).map(|n| f64::from(image[n]) * kernel[n * 4 + unit]).sum::<f64>())
            .collect()
    }

    fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|logit| (logit / temperature).exp()).sum();
        logits.iter().map(|logit| (logit / temperature).exp() / sum).collect()
    }

    /// The formula, over all images.
    fn loss(student: &[f64], teacher: &[f64], temperature: f64, weight: f64, smoothing: f64, weights: [f64; 4]) -> f64 {
        let of_image = |(image, &label): (&[f32], &u32)| {
            let (logits, taught) = (logits(student, image), softmax(&logits(teacher, image), temperature));
            let hard = softmax(&logits, 1.0);
            let target = |class: usize| smoothing / 4.0 + if class == label as usize { 1.0 - smoothing } else { 0.0 };
            let of_classes: f64 = (0..4).map(|class| -target(class) * hard[class].ln()).sum();
            let soft = softmax(&logits, temperature);
            let divergence: f64 = taught.iter().zip(soft).map(|(q, p)| q * (q / p).ln()).sum();
            weights[label as usize] * (weight * temperature.powi(2) * divergence + (1.0 - weight) * of_classes)
        };
        IMAGES.chunks(3).zip(&LABELS).map(of_image).sum::<f64>() / 5.0
    }

    fn single(weights: &[f64]) -> Model {
        let mut model = Sequential::new([3]).add(Dense::new(4).activation(Activation::Softmax)).build().unwrap();
        let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
        model.set_weight("dense/kernel", &weights[..12]).unwrap();
        model.set_weight("dense/bias", &weights[12..]).unwrap();
        model
    }

    #[test]
    fn a_step_is_the_formula_s() {
        let of = |key: f64| (0..16).map(|n| (key * f64::from(n)).sin() as f32).map(f64::from).collect::<Vec<f64>>();
        let (student, teacher) = (of(1.3), of(2.9));
        let taught = single(&teacher);
        for (temperature, weight, smoothing, from_logits) in [
            (1.0, 1.0, 0.0, false),
            (4.0, 0.7, 0.0, false),
            (2.5, 0.3, 0.2, false),
            (0.5, 0.5, 0.1, true),
            (3.0, 0.0, 0.0, false),
        ] {
            let counts = [1.0, 0.5, 2.0, 1.5];
            let formula = |weights: &[f64]| {
                let (temperature, weight, smoothing) =
                    (f64::from(temperature), f64::from(weight), f64::from(smoothing));
                loss(weights, &teacher, temperature, weight, smoothing, counts)
            };
            let mut model = single(&student);
            let mut of_classes = Loss::categorical_cross_entropy().label_smoothing(smoothing);
            if from_logits {
                let plain = Sequential::new([3]).add(Dense::new(4)).build().unwrap();
                let snapshot = std::mem::replace(&mut model, plain).snapshot();
                model.restore(&snapshot);
                of_classes = of_classes.from_logits();
            }
            model.compile(Sgd::new().learning_rate(1.0), of_classes, ()).unwrap();
            let distillation = Distillation::new(&taught).temperature(temperature).weight(weight);
            let options = FitOptions::new().batch_size(5).class_weight(counts.map(|count| count as f32));
            let history = model.fit((&IMAGES, &LABELS), options.distillation(distillation)).unwrap();
            let (found, expected) = (history.get("loss").unwrap()[0], formula(&student));
            assert!((found - expected).abs() < 1e-5, "T {temperature}, weight {weight}: {found}, not {expected}");
            let after: Vec<f32> = model.weights().flat_map(|(_, _, values)| values.to_vec()).collect();
            for (at, after) in after.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut weights = student.clone();
                    weights[at] += by;
                    formula(&weights)
                };
                let gradient = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let found = student[at] - f64::from(after);
                assert!(
                    (found - gradient).abs() < 1e-5,
                    "T {temperature}, weight {weight}, {at}: {found}, not {gradient}"
                );
            }
        }
    }

    fn clothes() -> Dataset {
        data::builtin(Split::Train).unwrap().take(64)
    }

    fn net(classes: usize) -> Model {
        let mut model = Sequential::new([28, 28, 1])
            .add(Conv2d::new(8, 5).strides(2).activation(Activation::Relu))
            .add(GlobalAveragePooling2d::new())
            .add(Dense::new(classes).activation(Activation::Softmax))
            .build()
            .unwrap();
        model.compile(Sgd::new().learning_rate(1e-9), Loss::categorical_cross_entropy(), ()).unwrap();
        model
    }

    /// A model that is its own teacher has nothing to learn, whatever happens to the images: both see the same.
    #[test]
    fn the_teacher_sees_what_the_student_sees() {
        let (train, mut teacher) = (clothes(), net(10));
        teacher.compile(Sgd::new().learning_rate(0.5), Loss::categorical_cross_entropy(), ()).unwrap();
        teacher.fit(&train, FitOptions::new().epochs(3)).unwrap();
        type Told = for<'a> fn(FitOptions<'a>) -> FitOptions<'a>;
        let told: [Told; 5] = [
            |options| options,
            |options| options.augment(Augment::new().then(Translate::new(6))),
            |options| options.mixing(Mixing { mixup: 1.0, cutmix: 1.0, ..Mixing::default() }).accumulate(2),
            |options| options.resizing(ProgressiveResizing { from: 0.5, until: 1.0, multiple: 1 }),
            |options| options.batch_size(7).drop_last(true),
        ];
        for (precision, most) in [(Precision::F32, 1e-5), (Precision::Bf16, 1e-3)] {
            teacher.set_precision(precision).unwrap();
            for (number, told) in told.into_iter().enumerate() {
                let mut student = net(10);
                student.restore(&teacher.snapshot());
                student.set_precision(precision).unwrap();
                let distillation = Distillation::new(&teacher).weight(1.0);
                let options = told(FitOptions::new().epochs(2)).distillation(distillation);
                let history = student.fit(&train, options).unwrap();
                let losses = history.get("loss").unwrap();
                assert!(losses.iter().all(|loss| loss.abs() < most), "{precision:?} {number}: {losses:?}");
            }
        }
    }

    #[test]
    fn many_threads_learn_the_same() {
        let (train, mut teacher) = (clothes(), net(10));
        teacher.fit(&train, FitOptions::new()).unwrap();
        let run = |threads| {
            let mut student = net(10);
            student.initialize(3);
            student.compile(Sgd::new().learning_rate(0.1), Loss::categorical_cross_entropy(), ()).unwrap();
            let mixing = Mixing { mixup: 0.5, ..Mixing::default() };
            let options = FitOptions::new().batch_size(24).mixing(mixing).threads(threads);
            student.fit(&train, options.distillation(Distillation::new(&teacher))).unwrap();
            student.snapshot()
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }

    #[test]
    fn teachers_that_do_not_suit_are_refused() {
        let train = clothes();
        let named = |change: fn(&mut Vec<String>)| {
            let mut names = train.class_names().to_vec();
            change(&mut names);
            let mut teacher = net(10);
            teacher.set_class_names(names).unwrap();
            teacher
        };
        let other = Sequential::new([14, 28, 1]).add(Flatten::new()).add(Dense::new(10)).build().unwrap();
        let logits = Sequential::new([28, 28, 1]).add(Flatten::new()).add(Dense::new(10)).build().unwrap();
        for (teacher, temperature, weight, problem) in [
            (net(10), 0.0, 0.5, "expected a temperature above 0, received 0"),
            (net(10), 4.0, 1.5, "expected a weight from 0 to 1, received 1.5"),
            (net(9), 4.0, 0.5, "the teacher gives 9 outputs, the model 10"),
            (other, 4.0, 0.5, "the teacher takes images of 14x28x1, the model 28x28x1"),
            (logits, 4.0, 0.5, "a teacher that ends in softmax"),
            (
                named(|names| names.swap(2, 5)),
                4.0,
                0.5,
                "class 2 is \"sandal\" for the teacher, but \"pullover\" in the data",
            ),
        ] {
            let distillation = Distillation::new(&teacher).temperature(temperature).weight(weight);
            let error = net(10).fit(&train, FitOptions::new().distillation(distillation)).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(&problem.to_lowercase()), "{error:?} instead of {problem:?}");
        }
        let fine = named(|_| {});
        net(10).fit(&train, FitOptions::new().distillation(Distillation::new(&fine))).unwrap();
    }
}
