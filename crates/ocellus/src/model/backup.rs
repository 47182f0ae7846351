//! Backups: what a training needs to go on after an epoch as if it had never been ended.
//!
//! One safetensors file, written anew after each epoch. Its tensors are the parameters and the optimizer's state by name (`conv2d/kernel`,
//! `conv2d/kernel/optimizer/0`), where weights are averaged their average (`conv2d/kernel/average`), and where samples are recorded the
//! tensors of [their record](crate::labels::SampleRecord). The metadata's key `ocellus_backup` holds a JSON document.

use super::averaging::{Average, Averaging};
use super::distillation::Distillation;
use super::file::{self, Reader, Tensor, to_bytes};
use super::{FileError, FitOptions, Images, Model, ModelError, TrainingRecord};
use crate::history::History;
use crate::labels::Trajectories;
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use crate::schedules::Schedule;
use ocellus_engine::ParameterId;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The version of the format that this version writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;
/// The metadata's key.
const KEY: &str = "ocellus_backup";
/// Arguments that are longer are not quoted.
const LONGEST_QUOTED: usize = 80;

/// A training after one of its epochs: Keras' `BackupAndRestore`, in two halves.
///
/// [`FitOptions::backup`] writes one after each epoch, [`FitOptions::resume`] goes on with it: then the weights in the end are those of a training
/// that was never ended, to the bit on the same instruction set, and so is the history. Of what callbacks remember, only what the history tells is
/// known again: `CsvLogger`'s lines, which epoch was best for `ModelCheckpoint`, how long `EarlyStopping` and `ReduceLrOnPlateau` have waited. Weights
/// that `EarlyStopping` would put back are not: it then chooses among the epochs from here on.
///
/// The file stays when the training is done; with it, the same call trains no more. Remove it once the model is saved.
///
/// ```no_run
/// # use ocellus::{data::Dataset, model::{Backup, FitOptions, Model, ModelError}};
/// # fn train(model: &mut Model, train: &Dataset) -> Result<(), ModelError> {
/// let path = "backup.safetensors";
/// model.fit(train, FitOptions::new().epochs(100).backup(path).resume(Backup::read(path)?))?;
/// model.save("model.safetensors")?;
/// std::fs::remove_file(path).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backup {
    path: PathBuf,
    document: Document,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup")
            .field("path", &self.path)
            .field("next_epoch", &self.next_epoch())
            .finish_non_exhaustive()
    }
}

/// Arguments of a training by name, as JSON.
pub(super) type Arguments = BTreeMap<String, String>;

/// The JSON document in the metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    format_version: u32,
    /// What the training was asked for.
    arguments: Arguments,
    #[serde(flatten)]
    progress: TrainingProgress,
    average: Option<AverageProgress>,
    record: TrainingRecord,
    /// The epochs so far, as CSV.
    history: String,
}

/// How far a training has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TrainingProgress {
    /// The number of the epoch that comes next.
    pub(super) next_epoch: u64,
    /// Steps of the optimizer, those of earlier trainings included.
    pub(super) iterations: u64,
    /// Steps of this training.
    pub(super) steps: u64,
    /// Whether it was to end here.
    pub(super) stop: bool,
    /// The learning rates from here on, and that of the last step.
    pub(super) schedule: Schedule,
    pub(super) learning_rate: f32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct AverageProgress {
    exchanged: bool,
    epochs: u64,
}

/// What a backup holds, all of it read and found to suit the training.
pub(super) struct Resumed {
    pub(super) progress: TrainingProgress,
    pub(super) trajectories: Option<Trajectories>,
    parameters: Vec<Vec<f32>>,
    average: Option<(AverageProgress, Vec<Vec<f32>>)>,
    history: History,
    record: TrainingRecord,
}

impl Backup {
    /// Reads a backup; `None` where there is no such file.
    ///
    /// # Errors
    /// Where the file cannot be read, is no backup, is damaged, or is of a newer version.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>, ModelError> {
        let path = path.as_ref().to_owned();
        match file::read(&path) {
            Ok(bytes) => Self::parse(path, bytes).map(Some).map_err(ModelError::File),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::ReadBackup { path, source }.into()),
        }
    }

    fn parse(path: PathBuf, bytes: Vec<u8>) -> Result<Self, FileError> {
        let wrong = |problem: String| FileError::Format { path: path.clone(), problem };
        let broken = |error| wrong(format!("not a backup of a training, or a damaged one ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        // The tensors' places, too.
        SafeTensors::deserialize(&bytes).map_err(broken)?;
        let json = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
        let json =
            json.ok_or_else(|| wrong(format!("a safetensors file, but no backup: its metadata has no key {KEY:?}")))?;
        file::check_version(&path, "training", json, FORMAT_VERSION)?;
        let document = serde_json::from_str(json);
        let document =
            document.map_err(|error| wrong(format!("the description of the training is damaged: {error}")))?;
        Ok(Backup { path, document, bytes })
    }

    /// The number of the epoch that comes next, 0 for the first.
    pub fn next_epoch(&self) -> u64 {
        self.document.progress.next_epoch
    }

    /// Refuses to go on where another training was asked for, or the data is another.
    pub(super) fn check(
        &self,
        arguments: &Arguments,
        images: Images<'_>,
        epochs: RangeInclusive<u64>,
    ) -> Result<(), ModelError> {
        let other = |difference: String| FileError::OtherTraining { path: self.path.clone(), difference };
        let known = &self.document.arguments;
        if let Some((name, now)) = arguments.iter().find(|(name, now)| known.get(*name) != Some(now)) {
            let then = known.get(name).map_or("missing", String::as_str);
            let short = then.len().max(now.len()) <= LONGEST_QUOTED;
            let values = if short { format!(": {then} in the backup, {now} now") } else { String::new() };
            return Err(other(format!("another `{name}`{values}")).into());
        }
        if let (Images::Dataset(dataset), Some(then)) = (images, &self.document.record.data_fingerprint)
            && dataset.fingerprint()? != *then
        {
            return Err(other("other training images or labels".into()).into());
        }
        let TrainingProgress { next_epoch, iterations, steps, .. } = self.document.progress;
        if !epochs.contains(&next_epoch) || iterations.max(steps) > u64::MAX / 2 {
            let problem = format!("its next epoch is {next_epoch}, of {}, after {iterations} steps", epochs.end());
            return Err(FileError::Format { path: self.path.clone(), problem }.into());
        }
        Ok(())
    }

    /// What goes on with this model, before anything of the model is changed.
    pub(super) fn resumed(
        self,
        model: &Model,
        averaging: Option<Averaging>,
        recorded: bool,
        samples: usize,
    ) -> Result<Resumed, ModelError> {
        let Backup { path, document, bytes } = self;
        let wrong = |problem: String| FileError::Format { path: path.clone(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let reader = Reader { path: &path };
        let finite = |name: &str, shape: &[usize]| {
            let values = reader.numbers(&tensors, name, shape)?;
            let all = values.iter().all(|value| value.is_finite());
            all.then_some(values)
                .ok_or_else(|| wrong(format!("tensor {name:?}: expected numbers, found NaN or infinity")))
        };
        let parameters = model.parameters.iter().map(|(_, parameter)| finite(&parameter.name, &parameter.shape));
        let parameters = parameters.collect::<Result<Vec<_>, _>>()?;
        let next_epoch = document.progress.next_epoch;
        let average = match (averaging, document.average) {
            (None, None) => None,
            (Some(averaging), Some(progress))
                if progress.epochs <= next_epoch
                    && (!progress.exchanged || matches!(averaging, Averaging::Exponential { .. })) =>
            {
                let slow = model.weights().map(|(name, shape, _)| finite(&of_average(name), shape));
                Some((progress, slow.collect::<Result<Vec<_>, _>>()?))
            }
            _ => return Err(wrong("the average of its weights is not of such a training".into()).into()),
        };
        let history = History::from_csv(&document.history).map_err(|error| wrong(error.to_string()))?;
        if document.record.epochs > next_epoch {
            return Err(wrong(format!("{} epochs before epoch {next_epoch}", document.record.epochs)).into());
        }
        let trajectories = recorded.then(|| Trajectories::from_tensors(&tensors)).transpose().map_err(wrong)?;
        if let Some(kept) = trajectories.as_ref().filter(|kept| kept.len() != samples) {
            return Err(wrong(format!("expected a record of {samples} samples, found one of {}", kept.len())).into());
        }
        let Document { progress, record, .. } = document;
        Ok(Resumed { progress, trajectories, parameters, average, history, record })
    }
}

impl Resumed {
    /// Gives the model, and where there is one the average of its weights, what they had.
    pub(super) fn restore(
        self,
        model: &mut Model,
        average: Option<&mut Average>,
    ) -> (TrainingProgress, Option<Trajectories>) {
        for (number, values) in self.parameters.iter().enumerate() {
            model.parameters.values_mut(ParameterId(number)).copy_from_slice(values);
        }
        if let (Some(average), Some((progress, slow))) = (average, self.average) {
            average.slow.values.iter_mut().zip(&slow).for_each(|(to, values)| to.copy_from_slice(values));
            (average.exchanged, average.epochs) = (progress.exchanged, progress.epochs);
        }
        model.history = self.history;
        let TrainingRecord { epochs, metrics, data_fingerprint, .. } = self.record;
        model.record = TrainingRecord { epochs, metrics, data_fingerprint, ..model.record.clone() };
        if let Some(compiled) = &mut model.compiled {
            compiled.iterations = self.progress.iterations;
        }
        (self.progress, self.trajectories)
    }
}

/// Writes a backup, whole or not at all.
pub(super) fn write(
    path: &Path,
    model: &Model,
    arguments: &Arguments,
    progress: TrainingProgress,
    average: Option<&Average>,
    trajectories: Option<&Trajectories>,
) -> Result<(), ModelError> {
    let mut tensors: Vec<Tensor> = Vec::new();
    for (_, parameter) in model.parameters.iter() {
        tensors.push((parameter.name.clone(), Dtype::F32, parameter.shape.clone(), to_bytes(parameter.values())));
    }
    if let Some(average) = average {
        let slow = model.weights().zip(&average.slow.values);
        tensors.extend(
            slow.map(|((name, shape, _), slow)| (of_average(name), Dtype::F32, shape.to_vec(), to_bytes(slow))),
        );
    }
    tensors.extend(trajectories.into_iter().flat_map(Trajectories::tensors));
    let document = Document {
        format_version: FORMAT_VERSION,
        arguments: arguments.clone(),
        progress,
        average: average.map(|average| AverageProgress { exchanged: average.exchanged, epochs: average.epochs }),
        record: model.record.clone(),
        history: model.history.to_csv(),
    };
    let json = serde_json::to_string(&document).map_err(|error| file::not_written(&error))?;
    file::write_tensors(path, &tensors, KEY, json)
}

fn of_average(name: &str) -> String {
    format!("{name}/average")
}

/// What a training is asked for, as far as its results depend on it.
pub(super) fn arguments(
    model: &Model,
    options: &FitOptions<'_>,
    samples: usize,
    optimizer: &Optimizer,
    loss: &Loss,
) -> Result<Arguments, ModelError> {
    let mut arguments = Arguments::new();
    let mut add = |name: &str, json: serde_json::Result<String>| {
        arguments.insert(name.into(), json.map_err(|error| ModelError::Argument(format!("{name}: {error}")))?);
        Ok::<(), ModelError>(())
    };
    macro_rules! add {
        ($($name:literal: $value:expr),* $(,)?) => { $(add($name, serde_json::to_string(&$value))?;)* };
    }
    add! {
        "layers": model.network.architecture,
        "optimizer": optimizer,
        "loss": loss,
        "precision": model.precision,
        "samples": samples,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "initial_epoch": options.initial_epoch,
        "epochs_before": options.epochs_before,
        "shuffle": options.shuffle,
        "validation_split": options.validation_split,
        "class_weight": options.class_weight,
        "sampler": format!("{:?}", options.sampler),
        "seed": options.seed,
        "augment": options.augment,
        "mixing": options.mixing,
        "drop_last": options.drop_last,
        "resizing": options.resizing,
        "accumulate": options.accumulate,
        "steps": options.steps,
        "groups": options.groups,
        "distillation": options.distillation.as_ref().map(Distillation::identity),
        "averaging": options.averaging,
        "record_samples": options.record_samples,
    }
    Ok(arguments)
}
