//! What flows along the edges of a graph.

use std::fmt;

/// One result in a graph; only meaningful with the graph that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a value relates to the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One for each sample; the shape leaves the batch out.
    Sample,
    /// A sum over the batch's samples: a parameter's gradient, a statistic, the total loss.
    Sum,
    /// One for all samples: a parameter, or what is computed from parameters and sums.
    Shared,
}

/// The type of a value's elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DType {
    /// Single precision.
    #[default]
    F32,
    /// The upper halves of single-precision numbers: only what a plan keeps from stage to stage.
    Bf16,
    /// Bytes: pixels as they were decoded, positions within a pooling window.
    U8,
}

impl DType {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 => 2,
            DType::U8 => 1,
        }
    }
}

/// Role, shape and element type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How the value relates to the batch.
    pub role: Role,
    /// Sizes of the axes, without the batch.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: DType,
}

impl Spec {
    /// A single-precision value for each sample.
    pub fn sample(shape: impl Into<Vec<usize>>) -> Self {
        Spec { role: Role::Sample, shape: shape.into(), dtype: DType::F32 }
    }

    /// A single-precision sum over samples.
    pub fn sum(shape: impl Into<Vec<usize>>) -> Self {
        Spec { role: Role::Sum, shape: shape.into(), dtype: DType::F32 }
    }

    /// A single-precision value that all samples share.
    pub fn shared(shape: impl Into<Vec<usize>>) -> Self {
        Spec { role: Role::Shared, shape: shape.into(), dtype: DType::F32 }
    }

    /// The same with bytes as elements.
    pub fn bytes(self) -> Self {
        Spec { dtype: DType::U8, ..self }
    }

    /// Elements, for one sample where the role is `Sample`.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the last axis: the channels.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, size) in self.shape.iter().enumerate() {
            write!(f, "{}{size}", if i == 0 { "" } else { "x" })?;
        }
        if self.shape.is_empty() {
            f.write_str("scalar")?;
        }
        Ok(())
    }
}
