//! The plan: a graph made ready for one batch size. Order, stages, memory; plain data that can be printed.
//!
//! The batch is cut into *slots*, fixed runs of samples that do not depend on the number of threads. Within a *stage* a
//! slot's samples go through all steps in small *groups*, so that what one step writes is still in the cache when the
//! next reads it. A stage ends where something needs a sum over the whole batch: batch statistics, or the updates; and where later
//! layers had better take more samples together, since their weights are what passes through memory. Sums
//! are kept for each slot and gathered in slot order, which is why results are the same for any number of threads.

mod build;
mod late;
mod narrow;
mod recompute;

use crate::graph::MovingAverage;
use crate::op::MOST_PARTS;
use crate::{Clip, DType, ParameterId, Run, Spec, Update, Value};
use ocellus_kernels::{Level, Packing, Precision};
use std::fmt;

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Samples in a full batch; a run may have fewer.
    pub batch: usize,
    /// The instruction set.
    pub level: Level,
    /// What convolutions and dense layers round the factors of their products to.
    pub precision: Precision,
    /// A sum that must be finite, or the updates are not applied: the total loss.
    pub guard: Option<Value>,
    /// Runs of samples that sums are kept for; by default one for every 8 samples, at most 16.
    pub slots: Option<usize>,
    /// Samples that go through a stage together; by default as many as stay in a core's second-level cache.
    pub group: Option<usize>,
    /// Threads that the plan will run on, where that is known: it changes how an inference plan is cut into slots, never
    /// its results.
    pub threads: usize,
    /// Nanoseconds that a step must be expected to take before several workers share a sample; smaller only to test that it
    /// makes no difference.
    pub share_above: u64,
    /// Bytes of values that a group of samples may take, or a band of one sample where that is too large.
    pub group_bytes: usize,
    /// Bytes of weights that a sample must save for the last layers of an inference plan to take several samples together;
    /// fewer only to test that it makes no difference.
    pub late_above: usize,
    /// Let values whose lifetimes do not meet share memory. Off only to test that it makes no difference.
    pub share_memory: bool,
    /// Where the precision is bf16, keep images from stage to stage in that, too. Off only to test what it changes.
    pub narrow: bool,
    /// Compute cheap values again in a later stage rather than keep them. Off only to test that it makes no difference.
    pub recompute: bool,
}

impl PlanOptions {
    /// The defaults for this batch size.
    pub fn new(batch: usize, level: Level) -> Self {
        // Three quarters of a common second-level cache.
        let group_bytes = 768 << 10;
        PlanOptions {
            group_bytes,
            batch,
            level,
            precision: Precision::F32,
            guard: None,
            slots: None,
            group: None,
            threads: 1,
            share_above: SHARE_ABOVE,
            late_above: LATE_ABOVE,
            share_memory: true,
            narrow: true,
            recompute: true,
        }
    }
}

/// A graph made ready to run. It is built once and cannot fail afterwards.
#[derive(Debug)]
pub struct Plan {
    pub(crate) batch: usize,
    pub(crate) level: Level,
    pub(crate) slots: usize,
    pub(crate) steps: Vec<Step>,
    /// Stage 0 has no samples: it is what follows from the parameters alone.
    pub(crate) stages: Vec<Stage>,
    pub(crate) inputs: Vec<Spec>,
    /// Bytes of each buffer that a slot keeps from stage to stage.
    pub(crate) slot_bytes: Vec<usize>,
    /// Bytes of each buffer that a worker uses within a stage.
    pub(crate) worker_bytes: Vec<usize>,
    /// Values in each buffer that all share.
    pub(crate) shared_len: Vec<usize>,
    /// Values of scratch memory for each worker.
    pub(crate) scratch_len: usize,
    pub(crate) share_above: u64,
    pub(crate) guard: Option<Value>,
    pub(crate) updates: Vec<Update>,
    /// Steps that read in packed form a parameter which nothing in a run changes but an update.
    pub(crate) packs: Vec<usize>,
    /// For each update, those of them that read its parameter.
    pub(crate) update_packs: Vec<Vec<usize>>,
    pub(crate) moving_averages: Vec<MovingAverage>,
    pub(crate) clip: Clip,
    specs: Vec<Spec>,
    places: Vec<Option<Place>>,
    reduced: Vec<Option<usize>>,
}

/// Where a value lies while the plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Input(usize),
    Parameter(ParameterId),
    /// Kept by each slot: values that outlast a stage, and sums.
    Slot(usize),
    /// Kept by each worker for the group it works on.
    Worker(usize),
    Shared(usize),
}

/// One operation, ready to run.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) run: Box<dyn Run>,
    pub(crate) name: &'static str,
    pub(crate) place: String,
    pub(crate) inputs: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
    /// The input that is read in packed form, and the shared buffer that holds it.
    pub(crate) packed: Option<(usize, usize)>,
    pub(crate) flops: u64,
    /// Bytes that one sample's values take, read and written.
    pub(crate) bytes: u64,
    /// Values of a sample's outputs, and of the smallest piece of them; 0 where they cannot be cut.
    pub(crate) len: usize,
    pub(crate) dtypes: [DType; MOST_PARTS],
    pub(crate) unit: usize,
    /// Roughly how long one sample takes, in nanoseconds.
    pub(crate) nanos: u64,
    /// Whether several workers share a sample.
    pub(crate) shared: bool,
}

impl Step {
    /// What packs its input, which input that is, and the shared buffer that the packed form lies in.
    pub(crate) fn packing(&self) -> (&dyn Packing, usize, usize) {
        let ((input, packing), (_, buffer)) = self.run.packing().zip(self.packed).expect("the step packs an input");
        (packing, input, buffer)
    }
}

/// A step that takes longer than this, nanoseconds, is worth a meeting of all workers, which takes a fifth of it; five times as long
/// a worker that sleeps takes to wake.
const SHARE_ABOVE: u64 = 10_000;

/// Weights of so many bytes take as long from memory as a stage of their own costs, many times over.
const LATE_ABOVE: usize = 1 << 20;

/// What runs between two meetings of all workers.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Steps that every group of samples goes through.
    pub(crate) steps: Vec<usize>,
    /// Parts that every sample is cut into, runs of its pixels: more than 1 where one sample is too much for the cache and
    /// all steps are pixelwise.
    pub(crate) bands: usize,
    /// Bands in a group.
    pub(crate) group: usize,
    /// Sums to gather afterwards, with the shared buffers that take them.
    pub(crate) sums: Vec<(Value, usize)>,
    /// Steps that run once, after the sums were gathered.
    pub(crate) once: Vec<usize>,
    /// Steps whose packed input is then ready to be packed: one that is computed, or a moving average.
    pub(crate) packs: Vec<usize>,
    /// Whether nothing is summed over samples.
    pub(crate) separate: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Stage {
            steps: Vec::new(),
            bands: 1,
            group: 1,
            sums: Vec::new(),
            once: Vec::new(),
            packs: Vec::new(),
            separate: false,
        }
    }
}

impl Plan {
    /// Samples in a full batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The instruction set that it is made for.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Bytes that a runner with so many threads allocates.
    pub fn memory(&self, threads: usize) -> usize {
        let slot: usize = self.slot_bytes.iter().sum();
        let worker: usize = self.worker_bytes.iter().sum::<usize>() + self.scratch_len * 4;
        slot * self.slots + worker * threads + (self.shared_len.iter().sum::<usize>() + self.update_scratch_len()) * 4
    }

    /// Values of scratch memory that the largest update needs.
    pub(crate) fn update_scratch_len(&self) -> usize {
        self.updates.iter().map(|update| update.rule.scratch_len(self.level)).max().unwrap_or(0)
    }

    /// Floating-point operations for one sample.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|step| step.flops).sum()
    }

    pub(crate) fn spec(&self, value: Value) -> &Spec {
        &self.specs[value.index()]
    }

    pub(crate) fn place(&self, value: Value) -> Place {
        self.places[value.index()].expect("every value that a step touches has a place")
    }

    pub(crate) fn reduced(&self, value: Value) -> Option<usize> {
        self.reduced[value.index()]
    }

    /// Roughly how long a sample takes in this stage on one thread, and on so many that share its steps; in nanoseconds.
    pub(crate) fn stage_nanos(&self, stage: &Stage, threads: usize) -> [u64; 2] {
        let steps = || stage.steps.iter().map(|&step| &self.steps[step]);
        let shared = |step: &Step| match step.shared {
            true => step.nanos / threads as u64 + self.share_above / 5,
            false => step.nanos,
        };
        [steps().map(|step| step.nanos).sum(), steps().map(shared).sum()]
    }

    /// How long a worker may take to wake, nanoseconds.
    pub(crate) fn waking(&self) -> u64 {
        5 * self.share_above
    }

    /// Samples in a slot when the batch has so many.
    pub(crate) fn slot_samples(&self, samples: usize) -> usize {
        samples.div_ceil(self.slots).max(1)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "batch {}, {} slots, {}", self.batch, self.slots, self.level.name())?;
        let value = |v: &Value| match self.places[v.index()] {
            Some(place) => format!("%{} {} {place:?}", v.0, self.spec(*v)),
            None => format!("%{} {}", v.0, self.spec(*v)),
        };
        let mut list = |title: String, steps: &[usize]| {
            if steps.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title}")?;
            for &s in steps {
                let step = &self.steps[s];
                let inputs: Vec<String> = step.inputs.iter().map(value).collect();
                let outputs: Vec<String> = step.outputs.iter().map(value).collect();
                writeln!(f, "  {:<24} {:<20} {} -> {}", step.name, step.place, inputs.join(", "), outputs.join(", "))?;
            }
            Ok(())
        };
        for (i, stage) in self.stages.iter().enumerate() {
            list(format!("stage {i}, in {} bands, in groups of {}", stage.bands, stage.group), &stage.steps)?;
            list(format!("stage {i}, once"), &stage.once)?;
        }
        Ok(())
    }
}
