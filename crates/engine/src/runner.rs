//! Running a plan: all memory is allocated here, once; a run allocates nothing.

use crate::inputs::{Input, Inputs, Memory};
use crate::op::{At, MOST_PARTS, Output, Part, Piece, Scalars};
use crate::plan::{Place, Plan, Step};
use crate::{DType, Parameters, Role, Value};
use ocellus_kernels::update::{self, MOST_PACKED};
use ocellus_kernels::{Buffer, Packed, Pool, reduce};
use std::time::{Duration, Instant};

/// Most slots that a plan can have.
pub(crate) const MOST_SLOTS: usize = 64;
/// Most results that one operation can have.
const MOST_OUTPUTS: usize = 4;
/// Most pieces that a sample's outputs are cut into.
const MOST_PIECES: usize = 64;
/// Most arrays that an optimizer keeps for a parameter.
const MOST_STATES: usize = 3;

/// A plan with its memory.
#[derive(Debug)]
pub struct Runner {
    plan: Plan,
    slots: Vec<Slot>,
    workers: Vec<Worker>,
    shared: Vec<Buffer>,
    /// The parameters' version whose packed forms there are: updates make them anew.
    packed: u64,
    /// The version that the first stage was computed from: what follows from the parameters alone.
    computed: u64,
    samples: usize,
    /// The gradients of the parts before, for each update; empty until a step has parts.
    gathered: Vec<Buffer>,
    /// For updates that take more than a pass.
    update_scratch: Buffer,
    profile: bool,
    once_times: Vec<Duration>,
    update_time: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was computed and every update applied.
    Done,
    /// The guarded sum was infinite or not a number; no parameter was changed.
    NotFinite,
}

/// Time that a step of the plan took, over all runs since profiling began.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// The layer.
    pub place: String,
    /// The operation.
    pub op: &'static str,
    /// Time, added up over the workers.
    pub time: Duration,
    /// Floating-point operations for one sample, as the operation's definition counts them.
    pub flops: u64,
    /// Bytes of one sample's values, read and written.
    pub bytes: u64,
}

/// A fixed run of samples: what it keeps from stage to stage.
#[derive(Debug)]
struct Slot {
    buffers: Vec<Buffer>,
    first: usize,
    samples: usize,
}

/// A thread's memory for the group of samples it works on.
#[derive(Debug)]
struct Worker {
    buffers: Vec<Buffer>,
    scratch: Buffer,
    times: Vec<Duration>,
}

impl Runner {
    /// Allocates memory for the plan and so many threads.
    pub fn new(plan: Plan, threads: usize) -> Self {
        let buffers = |bytes: &[usize]| bytes.iter().map(|b| Buffer::new(b.div_ceil(4))).collect::<Vec<_>>();
        let slots =
            (0..plan.slots).map(|_| Slot { buffers: buffers(&plan.slot_bytes), first: 0, samples: 0 }).collect();
        let workers = (0..threads.max(1)).map(|_| Worker {
            buffers: buffers(&plan.worker_bytes),
            scratch: Buffer::new(plan.scratch_len),
            times: vec![Duration::ZERO; plan.steps.len()],
        });
        Runner {
            slots,
            workers: workers.collect(),
            shared: plan.shared_len.iter().map(|&len| Buffer::new(len)).collect(),
            packed: 0,
            computed: 0,
            samples: 0,
            gathered: Vec::new(),
            update_scratch: Buffer::new(plan.update_scratch_len()),
            profile: false,
            once_times: vec![Duration::ZERO; plan.steps.len()],
            update_time: Duration::ZERO,
            plan,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs the plan on a batch of at most its size. The first run of a step of several parts allocates memory for their gradients.
    ///
    /// # Panics
    /// Where the inputs do not have the types and lengths that the graph's inputs say, or `samples` is 0 or above the
    /// plan's batch, or the step has no such part, or the pool has more threads than the runner was made for: errors of the caller's
    /// code, not of data.
    pub fn run(
        &mut self,
        pool: &mut Pool,
        parameters: &mut Parameters,
        inputs: &[Input<'_>],
        samples: usize,
        scalars: &Scalars,
    ) -> Outcome {
        self.check(pool, inputs, samples);
        assert!(scalars.part < scalars.parts, "part {} of {}", scalars.part, scalars.parts);
        self.cut(samples);
        let version = parameters.version();
        if self.packed != version {
            (0..self.plan.packs.len()).for_each(|i| self.pack(self.plan.packs[i], pool, parameters, inputs));
        }
        for number in 0..self.plan.stages.len() {
            if number == 0 && self.computed == version {
                continue;
            }
            self.run_samples(number, pool, parameters, inputs, scalars);
            self.gather(number);
            self.run_once(number, parameters, inputs, scalars);
            let packs = self.plan.stages[number].packs.len();
            (0..packs).for_each(|i| self.pack(self.plan.stages[number].packs[i], pool, parameters, inputs));
        }
        (self.packed, self.computed) = (version, version);
        if self.plan.guard.is_some_and(|guard| !self.sum(guard).iter().all(|v| v.is_finite())) {
            return Outcome::NotFinite;
        }
        let start = Instant::now();
        self.average(parameters);
        if scalars.part + 1 < scalars.parts {
            self.gather_gradients(pool, scalars.part);
        } else {
            self.update(pool, parameters, scalars);
        }
        // What has changed was packed, or belongs to the first stage.
        self.packed = parameters.version();
        self.update_time += start.elapsed();
        Outcome::Done
    }

    /// A sum over the last batch, or a value that all samples share; it must have been fetched.
    ///
    /// # Panics
    /// Where the plan does not fetch it.
    pub fn sum(&self, value: Value) -> &[f32] {
        let buffer = match self.plan.place(value) {
            Place::Shared(buffer) => Some(buffer),
            _ => self.plan.reduced(value),
        };
        &self.shared[buffer.expect("the plan fetches this value")].f32()[..self.plan.spec(value).len()]
    }

    /// Copies a fetched value of the last batch, sample after sample.
    ///
    /// # Panics
    /// Where the plan does not fetch it, or `to` does not have the length of the last batch.
    pub fn read(&self, value: Value, to: &mut [f32]) {
        let len = self.plan.spec(value).len();
        assert_eq!(to.len(), self.samples * len, "room for {} samples of {len} values", self.samples);
        let Place::Slot(buffer) = self.plan.place(value) else { panic!("the plan does not fetch this value") };
        for slot in self.slots.iter().filter(|slot| slot.samples > 0) {
            let part = &mut to[slot.first * len..][..slot.samples * len];
            part.copy_from_slice(&slot.buffers[buffer].f32()[..slot.samples * len]);
        }
    }

    /// From now on, measure each step; or stop. Starts from zero either way.
    pub fn set_profile(&mut self, on: bool) {
        self.profile = on;
        self.workers.iter_mut().for_each(|w| w.times.fill(Duration::ZERO));
        self.once_times.fill(Duration::ZERO);
        self.update_time = Duration::ZERO;
    }

    /// The time of each step in running order, and of the updates.
    pub fn profile(&self) -> Vec<StepTime> {
        let mut times: Vec<StepTime> = Vec::new();
        for (i, step) in self.plan.steps.iter().enumerate() {
            let time = self.once_times[i] + self.workers.iter().map(|w| w.times[i]).sum::<Duration>();
            times.push(StepTime {
                place: step.place.clone(),
                op: step.name,
                time,
                flops: step.flops,
                bytes: step.bytes,
            });
        }
        times.push(StepTime { place: String::new(), op: "Update", time: self.update_time, flops: 0, bytes: 0 });
        times
    }

    fn check(&self, pool: &Pool, inputs: &[Input<'_>], samples: usize) {
        assert!(pool.threads() <= self.workers.len(), "a worker's memory for each thread");
        assert!((1..=self.plan.batch).contains(&samples), "1 to {} samples, received {samples}", self.plan.batch);
        assert_eq!(inputs.len(), self.plan.inputs.len(), "as many inputs as the graph has");
        for (i, (input, spec)) in inputs.iter().zip(&self.plan.inputs).enumerate() {
            let (dtype, len) = match input {
                Input::F32(values) => (DType::F32, values.len()),
                Input::U8(values) => (DType::U8, values.len()),
            };
            assert_eq!((dtype, len), (spec.dtype, spec.len() * samples), "input {i}: type and length");
        }
    }

    /// Gives each slot its samples: equal runs, the last ones shorter or empty.
    fn cut(&mut self, samples: usize) {
        self.samples = samples;
        let each = self.plan.slot_samples(samples);
        for (i, slot) in self.slots.iter_mut().enumerate() {
            slot.first = (i * each).min(samples);
            slot.samples = each.min(samples - slot.first);
        }
    }

    fn run_samples(
        &mut self,
        number: usize,
        pool: &mut Pool,
        parameters: &Parameters,
        batch: &[Input<'_>],
        scalars: &Scalars,
    ) {
        let (plan, shared, total, profile) = (&self.plan, &self.shared[..], self.samples, self.profile);
        let stage = &plan.stages[number];
        if stage.steps.is_empty() {
            return;
        }
        let active = self.slots.iter().filter(|slot| slot.samples > 0).count();
        // Slots that would leave threads idle are taken one after the other, each by all threads.
        let threads = pool.threads();
        let left = active % threads;
        let [alone, shared_time] = plan.stage_nanos(stage, threads);
        // The others may have to be woken first.
        let together = stage.separate && left as u64 * shared_time + plan.waking() < alone;
        let apart = if together { active - left } else { active };
        // Every other stage takes the slots from the end: what the stage before wrote last is then still in a cache.
        let backwards = number % 2 == 1;
        pool.for_each_in_order(&mut self.workers, &mut self.slots[..apart], backwards, |worker, _, slot| {
            let bands = stage.bands;
            let (mut done, all) = (0, slot.samples * bands);
            while done < all {
                let samples = stage.group.min(all - done);
                let at = At { samples, first: slot.first + done / bands, accumulate: done > 0, batch: total, scalars };
                let group = Group { plan, shared, parameters, batch, bands, group_first: done };
                let Worker { buffers, scratch, times } = worker;
                for &step in &stage.steps {
                    if profile {
                        let start = Instant::now();
                        group.run(&plan.steps[step], slot, buffers, scratch.f32_mut(), &at);
                        times[step] += start.elapsed();
                    } else {
                        group.run(&plan.steps[step], slot, buffers, scratch.f32_mut(), &at);
                    }
                }
                done += samples;
            }
        });
        if apart == active {
            return;
        }
        let mut buffers = std::mem::take(&mut self.workers[0].buffers);
        for slot in &mut self.slots[apart..active] {
            for done in 0..slot.samples {
                let at = At { samples: 1, first: slot.first + done, accumulate: false, batch: total, scalars };
                let group = Group { plan, shared, parameters, batch, bands: 1, group_first: done };
                for &step in &stage.steps {
                    let start = profile.then(Instant::now);
                    group.run_shared(&plan.steps[step], slot, &mut buffers, &mut self.workers, pool, &at);
                    if let Some(start) = start {
                        self.workers[0].times[step] += start.elapsed();
                    }
                }
            }
        }
        self.workers[0].buffers = buffers;
    }

    /// Adds up the slots' parts of each sum, in slot order.
    fn gather(&mut self, number: usize) {
        for &(value, to) in &self.plan.stages[number].sums {
            let Place::Slot(buffer) = self.plan.place(value) else { unreachable!("sums are kept by slots") };
            let len = self.plan.spec(value).len();
            let mut parts: [&[f32]; MOST_SLOTS] = [&[]; MOST_SLOTS];
            let parts = parts_of(&self.slots, buffer, len, &mut parts);
            reduce::sum_parts(self.plan.level, parts, self.shared[to].f32_mut());
        }
    }

    fn run_once(&mut self, number: usize, parameters: &Parameters, batch: &[Input<'_>], scalars: &Scalars) {
        for i in 0..self.plan.stages[number].once.len() {
            let start = Instant::now();
            let index = self.plan.stages[number].once[i];
            let step = &self.plan.steps[index];
            let mut outputs: [Output; MOST_OUTPUTS] = Default::default();
            for (output, &value) in outputs.iter_mut().zip(&step.outputs) {
                let Place::Shared(buffer) = self.plan.place(value) else { unreachable!("once means shared") };
                let len = self.plan.spec(value).len();
                *output = Output { buffer: std::mem::take(&mut self.shared[buffer]), start: 0, len, dtype: DType::F32 };
            }
            let memory = self.shared_memory(parameters, batch);
            let at = At { samples: self.samples, first: 0, accumulate: false, batch: self.samples, scalars };
            step.run.run(&Inputs { memory, step }, &mut outputs[..step.outputs.len()], &mut [], &at);
            for (output, &value) in outputs.iter_mut().zip(&step.outputs) {
                let Place::Shared(buffer) = self.plan.place(value) else { unreachable!("once means shared") };
                self.shared[buffer] = std::mem::take(&mut output.buffer);
            }
            self.once_times[index] += start.elapsed();
        }
    }

    /// Packs the input of a step.
    fn pack(&mut self, index: usize, pool: &mut Pool, parameters: &Parameters, batch: &[Input<'_>]) {
        let start = Instant::now();
        let step = &self.plan.steps[index];
        let (packing, input, buffer) = step.packing();
        let mut packed = std::mem::take(&mut self.shared[buffer]);
        let from = self.shared_memory(parameters, batch).f32(step.inputs[input]);
        packing.pack(pool, from, packed.f32_mut());
        self.shared[buffer] = packed;
        self.once_times[index] += start.elapsed();
    }

    /// The memory as steps see it that belong to no sample.
    fn shared_memory<'a>(&'a self, parameters: &'a Parameters, batch: &'a [Input<'a>]) -> Memory<'a> {
        Memory {
            plan: &self.plan,
            batch,
            parameters,
            shared: &self.shared,
            slot: &[],
            worker: &[],
            slot_first: 0,
            bands: 1,
            group_first: 0,
            samples: self.samples,
        }
    }

    fn average(&self, parameters: &mut Parameters) {
        for average in &self.plan.moving_averages {
            let values = self.sum(average.value);
            for (p, &v) in parameters.entries[average.parameter.0].values.f32_mut().iter_mut().zip(values) {
                *p = average.momentum * *p + (1.0 - average.momentum) * v;
            }
        }
        if !self.plan.moving_averages.is_empty() {
            parameters.touch();
        }
    }

    /// Adds the gradients to those of the parts before.
    fn gather_gradients(&mut self, pool: &mut Pool, part: usize) {
        if self.gathered.is_empty() {
            let lengths = self.plan.updates.iter().map(|u| self.plan.spec(u.gradient).len());
            self.gathered = lengths.map(Buffer::new).collect();
        }
        for (u, sum) in self.plan.updates.iter().zip(&mut self.gathered) {
            let mut parts: [&[f32]; MOST_SLOTS] = [&[]; MOST_SLOTS];
            let parts = gradient_parts(&self.plan, &self.slots, &self.shared, u.gradient, &mut parts);
            reduce::gather(pool, self.plan.level, parts, sum.f32_mut(), part > 0);
        }
    }

    fn update(&mut self, pool: &mut Pool, parameters: &mut Parameters, scalars: &Scalars) {
        if self.plan.updates.is_empty() {
            return;
        }
        let clip = self.plan.clip;
        // Gradients are sums over so many parts, of which the mean counts.
        let parts = scalars.parts as f32;
        let mut step = update::Step {
            learning_rate: scalars.learning_rate,
            step: scalars.step,
            gradient_scale: 1.0 / parts,
            clip_value: clip.value,
            l1: 0.0,
            l2: 0.0,
            decay: 0.0,
        };
        if let Some(limit) = clip.global_norm {
            let mut squares = 0.0;
            for (number, u) in self.plan.updates.iter().enumerate() {
                step = update::Step { l1: parts * u.l1, l2: parts * u.l2, ..step };
                let mut gradients = NO_GRADIENTS;
                let gradients = self.gradients(number, scalars.part, &mut gradients);
                let values = parameters.get(u.parameter).values();
                squares += update::gradient_square_sum(pool, self.plan.level, &step, gradients, values);
            }
            step.gradient_scale = scale_to(limit, squares, parts);
        }
        let mut scratch = std::mem::take(&mut self.update_scratch);
        for number in 0..self.plan.updates.len() {
            let (u, packs) = (&self.plan.updates[number], &self.plan.update_packs[number]);
            let learning_rate = scalars.learning_rate * u.learning_rate;
            step = update::Step { learning_rate, l1: parts * u.l1, l2: parts * u.l2, decay: u.decay, ..step };
            let mut forms: [Buffer; MOST_PACKED] = Default::default();
            for (form, &step) in forms.iter_mut().zip(packs) {
                let (.., buffer) = self.plan.steps[step].packing();
                *form = std::mem::take(&mut self.shared[buffer]);
            }
            let mut packed: [Option<Packed<'_>>; MOST_PACKED] = Default::default();
            for ((packed, form), &step) in packed.iter_mut().zip(&mut forms).zip(packs) {
                let (packing, ..) = self.plan.steps[step].packing();
                *packed = Some(Packed { packing, to: form.f32_mut() });
            }
            let mut gradients = NO_GRADIENTS;
            let gradients = self.gradients(number, scalars.part, &mut gradients);
            let mut parameter = std::mem::take(&mut parameters.entries[u.parameter.0].values);
            if let Some(limit) = clip.norm {
                let squares = update::gradient_square_sum(pool, self.plan.level, &step, gradients, parameter.f32());
                step.gradient_scale = scale_to(limit, squares, parts);
            }
            let mut states: [Buffer; MOST_STATES] = Default::default();
            for (state, id) in states.iter_mut().zip(&u.state) {
                *state = std::mem::take(&mut parameters.entries[id.0].values);
            }
            let [a, b, c] = &mut states;
            let slices = [a, b, c].map(|state| if state.is_empty() { None } else { Some(state.f32_mut()) });
            let (values, scratch) = (parameter.f32_mut(), scratch.f32_mut());
            update::apply(pool, self.plan.level, u.rule, &step, gradients, values, slices, scratch, packed);
            parameters.entries[u.parameter.0].values = parameter;
            for (state, id) in states.iter_mut().zip(&u.state) {
                parameters.entries[id.0].values = std::mem::take(state);
            }
            for (form, &step) in forms.iter_mut().zip(packs) {
                let (.., buffer) = self.plan.steps[step].packing();
                self.shared[buffer] = std::mem::take(form);
            }
            let left = MOST_PACKED.min(packs.len())..packs.len();
            left.for_each(|i| self.pack(self.plan.update_packs[number][i], pool, parameters, &[]));
        }
        self.update_scratch = scratch;
        parameters.touch();
    }

    /// The gradient of an update as a sum: of the parts before this batch, if there were any, and of the slots.
    fn gradients<'a>(
        &'a self,
        number: usize,
        part: usize,
        all: &'a mut [&'a [f32]; MOST_SLOTS + 1],
    ) -> &'a [&'a [f32]] {
        let mut slots: [&[f32]; MOST_SLOTS] = [&[]; MOST_SLOTS];
        let gradient = self.plan.updates[number].gradient;
        let of_slots = gradient_parts(&self.plan, &self.slots, &self.shared, gradient, &mut slots);
        let before = usize::from(part > 0);
        if before > 0 {
            all[0] = self.gathered[number].f32();
        }
        all[before..before + of_slots.len()].copy_from_slice(of_slots);
        let count = before + of_slots.len();
        &all[..count]
    }
}

const NO_GRADIENTS: [&[f32]; MOST_SLOTS + 1] = [&[]; MOST_SLOTS + 1];

/// A gradient in the parts that it is the sum of.
fn gradient_parts<'a, 'b>(
    plan: &Plan,
    slots: &'a [Slot],
    shared: &'a [Buffer],
    gradient: Value,
    parts: &'b mut [&'a [f32]; MOST_SLOTS],
) -> &'b [&'a [f32]] {
    let len = plan.spec(gradient).len();
    match plan.place(gradient) {
        Place::Slot(buffer) => parts_of(slots, buffer, len, parts),
        Place::Shared(buffer) => {
            parts[0] = &shared[buffer].f32()[..len];
            &parts[..1]
        }
        _ => unreachable!("gradients of parameters are sums"),
    }
}

/// The factor that brings a sum over parts to the mean and that to at most this norm.
fn scale_to(limit: f32, squares: f64, parts: f32) -> f32 {
    let norm = squares.sqrt() as f32 / parts;
    (if norm > limit { limit / norm } else { 1.0 }) / parts
}

fn parts_of<'a, 'b>(
    slots: &'a [Slot],
    buffer: usize,
    len: usize,
    parts: &'b mut [&'a [f32]; MOST_SLOTS],
) -> &'b [&'a [f32]] {
    let mut count = 0;
    for slot in slots.iter().filter(|slot| slot.samples > 0) {
        parts[count] = &slot.buffers[buffer].f32()[..len];
        count += 1;
    }
    &parts[..count]
}

/// A group of samples on its way through a stage.
struct Group<'a> {
    plan: &'a Plan,
    shared: &'a [Buffer],
    parameters: &'a Parameters,
    batch: &'a [Input<'a>],
    bands: usize,
    group_first: usize,
}

impl Group<'_> {
    /// Runs a step on the calling thread.
    fn run(&self, step: &Step, slot: &mut Slot, buffers: &mut [Buffer], scratch: &mut [f32], at: &At<'_>) {
        let mut outputs = self.take_outputs(step, slot, buffers, at.samples);
        let inputs = Inputs { memory: self.memory(slot, buffers, at.samples), step };
        step.run.run(&inputs, &mut outputs[..step.outputs.len()], scratch, at);
        self.give_back(step, slot, buffers, &mut outputs);
    }

    /// Runs a step for one sample on all threads, where it is long enough.
    fn run_shared(
        &self,
        step: &Step,
        slot: &mut Slot,
        buffers: &mut [Buffer],
        workers: &mut [Worker],
        pool: &mut Pool,
        at: &At<'_>,
    ) {
        if !step.shared {
            // As a job of one task, so that the arithmetic is in the mode that workers have.
            return pool.for_each(workers, &mut [(slot, buffers)], |worker, _, (slot, buffers)| {
                self.run(step, slot, buffers, worker.scratch.f32_mut(), at);
            });
        }
        let mut outputs = self.take_outputs(step, slot, buffers, 1);
        let inputs = Inputs { memory: self.memory(slot, buffers, 1), step };
        let mut pieces: [Piece<'_>; MOST_PIECES] = std::array::from_fn(|_| Piece::default());
        let count = cut(&mut outputs[..step.outputs.len()], step, pool.threads(), &mut pieces);
        pool.for_each(workers, &mut pieces[..count], |worker, _, piece| {
            step.run.run_piece(&inputs, piece, worker.scratch.f32_mut(), at);
        });
        self.give_back(step, slot, buffers, &mut outputs);
    }

    fn take_outputs(
        &self,
        step: &Step,
        slot: &mut Slot,
        buffers: &mut [Buffer],
        samples: usize,
    ) -> [Output; MOST_OUTPUTS] {
        let mut outputs: [Output; MOST_OUTPUTS] = Default::default();
        for (output, &value) in outputs.iter_mut().zip(&step.outputs) {
            let spec = self.plan.spec(value);
            let (start, len) = match spec.role {
                Role::Sample => {
                    let len = spec.len() / self.bands;
                    (self.group_first * len, samples * len)
                }
                Role::Sum | Role::Shared => (0, spec.len()),
            };
            let dtype = spec.dtype;
            *output = match self.plan.place(value) {
                Place::Slot(b) => Output { buffer: std::mem::take(&mut slot.buffers[b]), start, len, dtype },
                Place::Worker(b) => Output { buffer: std::mem::take(&mut buffers[b]), start: 0, len, dtype },
                _ => unreachable!("samples' values are kept by slots and workers"),
            };
        }
        outputs
    }

    fn give_back(&self, step: &Step, slot: &mut Slot, buffers: &mut [Buffer], outputs: &mut [Output; MOST_OUTPUTS]) {
        for (output, &value) in outputs.iter_mut().zip(&step.outputs) {
            let buffer = std::mem::take(&mut output.buffer);
            match self.plan.place(value) {
                Place::Slot(b) => slot.buffers[b] = buffer,
                Place::Worker(b) => buffers[b] = buffer,
                _ => unreachable!("as above"),
            }
        }
    }

    fn memory<'b>(&'b self, slot: &'b Slot, buffers: &'b [Buffer], samples: usize) -> Memory<'b> {
        Memory {
            plan: self.plan,
            batch: self.batch,
            parameters: self.parameters,
            shared: self.shared,
            slot: &slot.buffers,
            worker: buffers,
            slot_first: slot.first,
            bands: self.bands,
            group_first: self.group_first,
            samples,
        }
    }
}

/// Cuts a sample's outputs into about as many pieces as there are threads, all alike; gives their number.
fn cut<'a>(outputs: &'a mut [Output], step: &Step, threads: usize, pieces: &mut [Piece<'a>; MOST_PIECES]) -> usize {
    let units = step.len.div_ceil(step.unit);
    let piece = units.div_ceil(threads.min(MOST_PIECES)) * step.unit;
    let count = step.len.div_ceil(piece);
    for (n, to) in pieces[..count].iter_mut().enumerate() {
        to.values = n * piece..((n + 1) * piece).min(step.len);
    }
    for (n, output) in outputs.iter_mut().enumerate().take(MOST_PARTS) {
        let range = output.start..output.start + output.len;
        match step.dtypes[n] {
            DType::F32 => {
                let chunks = output.buffer.f32_mut()[range].chunks_mut(piece);
                pieces.iter_mut().zip(chunks).for_each(|(to, part)| to.parts[n] = Part::F32(part));
            }
            DType::Bf16 => unreachable!("such outputs are not cut"),
            DType::U8 => {
                let chunks = output.buffer.u8_mut()[range].chunks_mut(piece);
                pieces.iter_mut().zip(chunks).for_each(|(to, part)| to.parts[n] = Part::U8(part));
            }
        }
    }
    count
}
