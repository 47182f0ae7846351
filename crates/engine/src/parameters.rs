//! Where the numbers live that outlast a step: weights, statistics, optimizer state.

use ocellus_kernels::Buffer;
use std::sync::atomic::{AtomicU64, Ordering};

/// A parameter's place in its [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub usize);

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Learned by gradient.
    Weight,
    /// Follows the data, such as a moving average: part of the model, but not learned by gradient.
    Statistic,
    /// Belongs to the optimizer, not to the model.
    OptimizerState,
}

/// A named array.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// `layer/variable`, for example `conv2d/kernel`.
    pub name: String,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: ParameterKind,
    pub(crate) values: Buffer,
}

impl Parameter {
    /// The numbers, row-major.
    pub fn values(&self) -> &[f32] {
        self.values.f32()
    }
}

/// All parameters of a model, shared by every plan made for it.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pub(crate) entries: Vec<Parameter>,
    /// New with every change and never used twice in a process, so that runners know when to pack weights again, even
    /// where they are handed another store.
    version: u64,
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

impl Parameters {
    /// No parameters.
    pub fn new() -> Self {
        Parameters::default()
    }

    /// Adds a parameter with these values.
    ///
    /// # Panics
    /// Where the shape does not hold the values.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        kind: ParameterKind,
        values: &[f32],
    ) -> ParameterId {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "the shape holds the values");
        self.entries.push(Parameter { name: name.into(), shape: shape.to_vec(), kind, values: Buffer::from(values) });
        self.touch();
        ParameterId(self.entries.len() - 1)
    }

    /// The parameter's record.
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.entries[id.0]
    }

    /// The parameter's numbers, to write.
    pub fn values_mut(&mut self, id: ParameterId) -> &mut [f32] {
        self.touch();
        self.entries[id.0].values.f32_mut()
    }

    /// The id of a name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.entries.iter().position(|p| p.name == name).map(ParameterId)
    }

    /// All parameters in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Parameter)> {
        self.entries.iter().enumerate().map(|(i, p)| (ParameterId(i), p))
    }

    /// Drops the optimizer's state, for a new optimizer.
    pub fn remove_optimizer_state(&mut self) {
        self.entries.retain(|p| p.kind != ParameterKind::OptimizerState);
        self.touch();
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn touch(&mut self) {
        self.version = VERSIONS.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of parameters (arrays, not scalars).
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
