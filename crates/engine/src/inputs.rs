//! What a step reads: the caller's batch, parameters, and values that earlier steps left in memory.

use crate::plan::{Place, Plan, Step};
use crate::{DType, Parameters, Role, Spec, Value};
use ocellus_kernels::{Buffer, Values};

/// One input of the whole batch, as the caller gives it.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Single-precision values, sample after sample.
    F32(&'a [f32]),
    /// Bytes, sample after sample.
    U8(&'a [u8]),
}

/// The memory that a step can see.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) batch: &'a [Input<'a>],
    pub(crate) parameters: &'a Parameters,
    pub(crate) shared: &'a [Buffer],
    pub(crate) slot: &'a [Buffer],
    pub(crate) worker: &'a [Buffer],
    /// Position in the batch of the slot's first sample.
    pub(crate) slot_first: usize,
    /// Parts that samples are cut into; what follows counts these.
    pub(crate) bands: usize,
    /// Position in the slot of the group's first band.
    pub(crate) group_first: usize,
    pub(crate) samples: usize,
}

/// The inputs of one call, found in memory when they are asked for.
pub struct Inputs<'a> {
    pub(crate) memory: Memory<'a>,
    pub(crate) step: &'a Step,
}

impl<'a> Inputs<'a> {
    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.step.inputs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The n-th input; in its packed form where the step has one.
    pub fn f32(&self, n: usize) -> &'a [f32] {
        match self.step.packed {
            Some((input, buffer)) if input == n => self.memory.shared[buffer].f32(),
            _ => self.memory.f32(self.step.inputs[n]),
        }
    }

    /// The n-th input as what the plan made of it: single precision or bf16.
    pub fn values(&self, n: usize) -> Values<'a> {
        let value = self.step.inputs[n];
        match self.memory.plan.spec(value).dtype {
            DType::Bf16 => Values::Bf16(self.memory.bf16(value)),
            _ => Values::F32(self.f32(n)),
        }
    }

    /// The n-th input, which holds bytes.
    pub fn u8(&self, n: usize) -> &'a [u8] {
        self.memory.u8(self.step.inputs[n])
    }

    /// Whether the n-th input's values are where the first output's will be, and are found there.
    pub fn is_overwritten(&self, n: usize) -> bool {
        let plan = self.memory.plan;
        plan.place(self.step.inputs[n]) == plan.place(self.step.outputs[0])
    }

    /// Whether the n-th input holds bytes.
    pub fn is_u8(&self, n: usize) -> bool {
        self.memory.plan.spec(self.step.inputs[n]).dtype == DType::U8
    }
}

impl<'a> Memory<'a> {
    pub(crate) fn f32(&self, value: Value) -> &'a [f32] {
        let spec = self.plan.spec(value);
        let len = self.len(spec);
        match self.plan.place(value) {
            Place::Input(n) => match self.batch[n] {
                Input::F32(values) => {
                    &values[(self.slot_first * self.bands + self.group_first) * len..][..self.samples * len]
                }
                Input::U8(_) => unreachable!("the runner has checked the inputs' types"),
            },
            Place::Parameter(id) => self.parameters.get(id).values(),
            Place::Slot(_) if spec.role == Role::Sum => self.reduced(value),
            Place::Slot(buffer) => &self.slot[buffer].f32()[self.group_first * len..][..self.samples * len],
            Place::Worker(buffer) => &self.worker[buffer].f32()[..self.samples * len],
            Place::Shared(buffer) => &self.shared[buffer].f32()[..len],
        }
    }

    /// Elements of a band, or of what belongs to no sample.
    fn len(&self, spec: &Spec) -> usize {
        if spec.role == Role::Sample { spec.len() / self.bands } else { spec.len() }
    }

    fn bf16(&self, value: Value) -> &'a [u16] {
        let len = self.len(self.plan.spec(value));
        match self.plan.place(value) {
            Place::Slot(buffer) => &self.slot[buffer].bf16()[self.group_first * len..][..self.samples * len],
            Place::Worker(buffer) => &self.worker[buffer].bf16()[..self.samples * len],
            _ => unreachable!("only samples' values are kept as bf16"),
        }
    }

    fn u8(&self, value: Value) -> &'a [u8] {
        let len = self.len(self.plan.spec(value));
        match self.plan.place(value) {
            Place::Input(n) => match self.batch[n] {
                Input::U8(values) => {
                    &values[(self.slot_first * self.bands + self.group_first) * len..][..self.samples * len]
                }
                Input::F32(_) => unreachable!("the runner has checked the inputs' types"),
            },
            Place::Slot(buffer) => &self.slot[buffer].u8()[self.group_first * len..][..self.samples * len],
            Place::Worker(buffer) => &self.worker[buffer].u8()[..self.samples * len],
            Place::Parameter(_) | Place::Shared(_) => unreachable!("shared values are single precision"),
        }
    }

    /// A sum after it was gathered from all slots.
    pub(crate) fn reduced(&self, value: Value) -> &'a [f32] {
        let buffer = self.plan.reduced(value).expect("the plan gathers every sum that is read");
        &self.shared[buffer].f32()[..self.plan.spec(value).len()]
    }
}
