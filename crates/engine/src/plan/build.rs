//! From graph to plan: what is needed, in which stage, in which memory.

use super::recompute::Known;
use super::{Place, Plan, PlanOptions, Stage, Step};
use super::{late, narrow, recompute};
use crate::graph::Source;
use crate::memory::{Lifetime, lay_out};
use crate::op::MOST_PARTS;
use crate::runner::MOST_SLOTS;
use crate::{DType, Graph, GraphError, Node, Precision, Role, Spec, Target, Value};

/// What one thread of a common server computes and moves in a nanosecond, to guess which steps are long.
const FLOPS_PER_NANO: usize = 100;
const BYTES_PER_NANO: usize = 20;
/// Bytes that all slots' sums may take together, unless two slots need more.
const SUM_BYTES: usize = 512 << 20;
/// A lifetime that ends with the run.
pub(super) const FOREVER: usize = usize::MAX;

impl Plan {
    /// Makes the graph ready for batches of this size. `fetched` are the values that can be read after a run.
    ///
    /// # Errors
    /// Where the batch is empty, or a value cannot be fetched.
    pub fn new(graph: &Graph, fetched: &[Value], options: PlanOptions) -> Result<Plan, GraphError> {
        if options.batch == 0 {
            return Err(GraphError::Plan("a batch needs at least one sample, received 0".to_owned()));
        }
        let mut builder = Builder::new(graph, fetched, options.clone(), &[]);
        builder.find_uses()?;
        let (recomputed, least_stage);
        if options.recompute {
            (recomputed, least_stage) = recompute::recomputed(&builder.known());
            builder = Builder::new(&recomputed, fetched, options.clone(), &least_stage);
            builder.find_uses()?;
        }
        let (narrowed, least_stage);
        if options.narrow && options.precision == Precision::Bf16 {
            (narrowed, least_stage) = narrow::narrowed(&builder.known(), builder.least_stage);
            builder = Builder::new(&narrowed, fetched, options, &least_stage);
            builder.find_uses()?;
        }
        let late = late::late(&builder.known(), &builder.options);
        if let Some((together, least_stage)) = &late {
            builder = Builder::new(builder.graph, fetched, builder.options, least_stage);
            builder.together = *together;
            builder.find_uses()?;
        }
        Ok(builder.place_all())
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    options: PlanOptions,
    /// For each node the stage that it must not run before; 0 where there is none.
    least_stage: &'a [usize],
    /// The values that must outlast the run.
    kept: Vec<Value>,
    needed: Vec<bool>,
    /// For each value the one whose memory it is: itself, unless it is a view or was written over another.
    root: Vec<usize>,
    /// For each node and each value, the stage it belongs to.
    node_stage: Vec<usize>,
    value_stage: Vec<usize>,
    /// For each root the last stage and, within its own stage, the last node that reads it.
    last_stage: Vec<usize>,
    last_node: Vec<usize>,
    places: Vec<Option<Place>>,
    reduced: Vec<Option<usize>>,
    stages: Vec<Stage>,
    slots: usize,
    /// Samples that go through the last stage together, where its weights are more than a cache holds; else 1.
    together: usize,
    slot_bytes: Vec<usize>,
    worker_bytes: Vec<usize>,
    shared_len: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, fetched: &[Value], options: PlanOptions, least_stage: &'a [usize]) -> Self {
        let values = graph.values.len();
        let mut kept = fetched.to_vec();
        kept.extend(options.guard);
        kept.extend(graph.moving_averages.iter().map(|m| m.value));
        let mut root: Vec<usize> = (0..values).collect();
        for node in graph.nodes.iter().filter(|node| node.op.is_view()) {
            root[node.outputs[0].index()] = root[node.inputs[0].index()];
        }
        let places = graph.values.iter().map(|value| match value.source {
            Source::Input(n) => Some(Place::Input(n)),
            Source::Parameter(id) => Some(Place::Parameter(id)),
            Source::Node(_) => None,
        });
        Builder {
            graph,
            least_stage,
            kept,
            needed: vec![false; graph.nodes.len()],
            root,
            node_stage: vec![0; graph.nodes.len()],
            value_stage: vec![0; values],
            last_stage: vec![0; values],
            last_node: vec![0; values],
            places: places.collect(),
            reduced: vec![None; values],
            stages: Vec::new(),
            slots: 1,
            together: 1,
            slot_bytes: Vec::new(),
            worker_bytes: Vec::new(),
            shared_len: Vec::new(),
            options,
        }
    }

    fn find_uses(&mut self) -> Result<(), GraphError> {
        self.find_needed();
        self.assign_stages()?;
        if self.options.share_memory {
            self.overwrite();
        }
        self.find_last_uses()
    }

    fn place_all(mut self) -> Plan {
        self.place_slot_values();
        self.place_worker_values();
        self.place_shared_values();
        self.finish()
    }

    fn known(&self) -> Known<'_> {
        Known {
            graph: self.graph,
            needed: &self.needed,
            kept: &self.kept,
            node_stage: &self.node_stage,
            value_stage: &self.value_stage,
            last_stage: &self.last_stage,
        }
    }

    fn spec(&self, value: Value) -> &'a Spec {
        self.graph.spec(value)
    }

    /// Nodes that lead to nothing are left out.
    fn find_needed(&mut self) {
        let mut wanted = vec![false; self.graph.values.len()];
        for value in self.kept.iter().copied().chain(self.graph.updates.iter().map(|u| u.gradient)) {
            wanted[value.index()] = true;
        }
        for (i, node) in self.graph.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|v| wanted[v.index()]) {
                self.needed[i] = true;
                node.inputs.iter().for_each(|v| wanted[v.index()] = true);
            }
        }
    }

    fn assign_stages(&mut self) -> Result<(), GraphError> {
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if !self.needed[i] {
                continue;
            }
            let once = node.outputs.iter().all(|&v| self.spec(v).role == Role::Shared);
            let mut stage = usize::from(!once).max(self.least_stage.get(i).copied().unwrap_or(0));
            for &input in &node.inputs {
                let from_node = matches!(self.graph.values[input.index()].source, Source::Node(_));
                let available = self.value_stage[input.index()];
                stage = stage.max(match self.spec(input).role {
                    Role::Sample if once => {
                        let problem = "is computed once for the batch but reads single samples".to_owned();
                        return Err(GraphError::Shape { place: node.place.clone(), op: node.op.name(), problem });
                    }
                    Role::Sample => available,
                    Role::Sum | Role::Shared if once => available,
                    Role::Sum => available + 1,
                    Role::Shared if from_node => available + 1,
                    Role::Shared => 0,
                });
            }
            self.node_stage[i] = stage;
            node.outputs.iter().for_each(|v| self.value_stage[v.index()] = stage);
            if self.stages.len() <= stage {
                self.stages.resize_with(stage + 1, Stage::default);
            }
            if !node.op.is_view() {
                let stage = &mut self.stages[stage];
                if once { stage.once.push(i) } else { stage.steps.push(i) }
            }
        }
        if self.stages.is_empty() {
            self.stages.push(Stage::default());
        }
        Ok(())
    }

    /// Gives outputs the memory of inputs that may be written over: nothing may see them afterwards, under whatever name.
    fn overwrite(&mut self) {
        // What runs last is of the last stage, whatever its number: a later stage may hold nodes that were added earlier.
        let mut last_read = vec![(0, 0); self.root.len()];
        for (i, node) in self.graph.nodes.iter().enumerate().filter(|&(i, _)| self.needed[i]) {
            for &root in node.inputs.iter().map(|v| &self.root[v.index()]) {
                last_read[root] = last_read[root].max((self.node_stage[i], i));
            }
        }
        let mut kept = vec![false; self.root.len()];
        self.kept.iter().for_each(|v| kept[self.root[v.index()]] = true);
        for (i, node) in self.graph.nodes.iter().enumerate().filter(|&(i, _)| self.needed[i]) {
            let Some(input) = node.op.overwrites().map(|n| node.inputs[n]) else { continue };
            let (from, to) = (self.root[input.index()], self.root[node.outputs[0].index()]);
            let made = matches!(self.graph.values[from].source, Source::Node(_));
            let once = node.inputs.iter().filter(|v| self.root[v.index()] == from).count() == 1;
            let alike = self.spec(input) == self.spec(node.outputs[0]);
            if made && once && alike && !kept[from] && last_read[from] <= (self.node_stage[i], i) {
                self.root.iter_mut().filter(|root| **root == to).for_each(|root| *root = from);
                (last_read[from], kept[from]) = (last_read[from].max(last_read[to]), kept[to]);
            }
        }
    }

    fn find_last_uses(&mut self) -> Result<(), GraphError> {
        for (i, node) in self.graph.nodes.iter().enumerate().filter(|&(i, _)| self.needed[i]) {
            for value in node.inputs.iter().chain(&node.outputs) {
                let root = self.root[value.index()];
                self.last_stage[root] = self.last_stage[root].max(self.node_stage[i]);
                if self.node_stage[i] == self.value_stage[root] {
                    self.last_node[root] = self.last_node[root].max(i);
                }
            }
        }
        for value in &self.kept {
            let root = self.root[value.index()];
            if !matches!(self.graph.values[root].source, Source::Node(_)) {
                return Err(GraphError::Plan(
                    "an input or a parameter cannot be fetched: nothing computes it".to_owned(),
                ));
            }
            self.last_stage[root] = FOREVER;
        }
        for update in &self.graph.updates {
            self.last_stage[update.gradient.index()] = FOREVER;
        }
        Ok(())
    }

    /// Values that need memory of their own, in running order, with the node that makes them.
    fn made(&self) -> impl Iterator<Item = (usize, Value)> + '_ {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes
            .filter(|&(i, node)| self.needed[i] && !node.op.is_view())
            .flat_map(|(i, node)| node.outputs.iter().map(move |&v| (i, v)))
            .filter(|&(_, v)| self.root[v.index()] == v.index())
    }

    fn bytes(&self, value: Value) -> usize {
        let spec = self.spec(value);
        spec.len() * spec.dtype.bytes()
    }

    /// Sums, and samples' values that a later stage or the caller reads, are kept by each slot.
    fn place_slot_values(&mut self) {
        let sums: usize =
            self.made().filter(|&(_, v)| self.spec(v).role == Role::Sum).map(|(_, v)| self.bytes(v)).sum();
        let default = if sums > 0 { (self.options.batch / 8).clamp(1, 16) } else { self.separate_slots() };
        // A power of two, so that two, four, … threads have the same number of slots each.
        let affordable = (SUM_BYTES / sums.max(1)).max(2);
        let affordable = 1 << affordable.ilog2();
        self.slots = self.options.slots.unwrap_or(default.min(affordable)).clamp(1, self.options.batch);
        let slot_samples = self.options.batch.div_ceil(self.slots);

        let mut values: Vec<(Lifetime, Value)> = Vec::new();
        for (_, value) in self.made() {
            let (stage, last) = (self.value_stage[value.index()], self.last_stage[value.index()]);
            let bytes = match self.spec(value).role {
                Role::Sample if last > stage => self.bytes(value) * slot_samples,
                Role::Sum => self.bytes(value),
                _ => continue,
            };
            values.push((Lifetime { bytes, first: stage, last }, value));
        }
        values.sort_by_key(|(lifetime, _)| lifetime.first);
        let lifetimes: Vec<Lifetime> = values.iter().map(|v| v.0).collect();
        let layout = lay_out(&lifetimes, self.options.share_memory);
        for ((_, value), &buffer) in values.iter().zip(&layout.buffer) {
            self.places[value.index()] = Some(Place::Slot(buffer));
        }
        self.slot_bytes = layout.bytes;
    }

    /// Slots where nothing is summed over samples, so that their number cannot be seen in the results: enough that all
    /// threads have as much to do; and one for each sample where a group would hold no more.
    fn separate_slots(&self) -> usize {
        let touched = |node: &Node| node.inputs.iter().chain(&node.outputs).map(|&v| self.sample_bytes(v)).sum();
        let largest: usize = self.graph.nodes.iter().map(touched).max().unwrap_or(0);
        let together = (self.options.group_bytes / largest.max(1)).clamp(1, 8).max(self.together);
        let (batch, threads) = (self.options.batch, self.options.threads.max(1));
        let slots = batch.div_ceil(together.min(batch.div_ceil(threads)));
        slots.next_multiple_of(threads).min(MOST_SLOTS)
    }

    /// Everything else that belongs to samples lives within one stage, in the memory of the worker.
    fn place_worker_values(&mut self) {
        let slot_samples = self.options.batch.div_ceil(self.slots);
        for stage in 1..self.stages.len() {
            let mut values: Vec<(Lifetime, Value)> = Vec::new();
            for (node, value) in self.made() {
                let mine = self.value_stage[value.index()] == stage && self.spec(value).role == Role::Sample;
                if mine && self.places[value.index()].is_none() {
                    let last = self.last_node[value.index()];
                    values.push((Lifetime { bytes: self.bytes(value), first: node, last }, value));
                }
            }
            let lifetimes: Vec<Lifetime> = values.iter().map(|v| v.0).collect();
            let layout = lay_out(&lifetimes, self.options.share_memory);
            let per_sample: usize = layout.bytes.iter().sum();
            let touched = self.touched(stage);
            let bands = self.bands(stage, per_sample + touched);
            let bands_of_slot = slot_samples * bands;
            // Where nothing but kept values pass from step to step, the next step had better find those in the cache.
            let passed = if per_sample > 0 { per_sample } else { touched };
            let together = if stage + 1 == self.stages.len() { self.together } else { 1 };
            let fitting = (self.options.group_bytes * bands / passed.max(1)).max(together * bands);
            let most = self.options.group.unwrap_or(fitting).clamp(1, bands_of_slot);
            // Groups of equal size rather than full ones and a small rest.
            let group = bands_of_slot.div_ceil(bands_of_slot.div_ceil(most));
            (self.stages[stage].bands, self.stages[stage].group) = (bands, group);
            for ((_, value), &buffer) in values.iter().zip(&layout.buffer) {
                self.places[value.index()] = Some(Place::Worker(buffer));
            }
            for (buffer, bytes) in layout.bytes.iter().enumerate() {
                if self.worker_bytes.len() <= buffer {
                    self.worker_bytes.push(0);
                }
                self.worker_bytes[buffer] = self.worker_bytes[buffer].max((bytes / bands).next_multiple_of(4) * group);
            }
        }
    }

    /// Values of single samples that the stage's steps read and write.
    fn samples_of(&self, stage: usize) -> impl Iterator<Item = Value> + '_ {
        let nodes = self.stages[stage].steps.iter().map(|&node| &self.graph.nodes[node]);
        let values = nodes.flat_map(|node| node.inputs.iter().chain(&node.outputs).copied());
        values.filter(|&v| self.spec(v).role == Role::Sample)
    }

    /// Bytes of a sample's values that slots keep and the stage touches.
    fn touched(&self, stage: usize) -> usize {
        let mut kept: Vec<Value> =
            self.samples_of(stage).filter(|v| self.places[self.root[v.index()]].is_some()).collect();
        kept.sort_unstable();
        kept.dedup();
        kept.iter().map(|&v| self.bytes(v)).sum()
    }

    /// The parts that samples are cut into so that they fit the cache, where all of the stage's steps allow it.
    fn bands(&self, stage: usize, per_sample: usize) -> usize {
        let Some(first) = self.samples_of(stage).next() else { return 1 };
        let &[height, width, _] = &self.spec(first).shape[..] else { return 1 };
        let alike = |v: Value| matches!(self.spec(v).shape[..], [h, w, _] if [h, w] == [height, width]);
        let pixelwise = self.stages[stage].steps.iter().all(|&node| {
            let node = &self.graph.nodes[node];
            node.op.is_pixelwise(&node.inputs.iter().map(|&v| self.spec(v)).collect::<Vec<_>>())
        });
        if !pixelwise || !self.samples_of(stage).all(alike) {
            return 1;
        }
        let fits = |bands: usize| height.is_multiple_of(bands) && per_sample / bands <= self.options.group_bytes;
        (1..=height).find(|&bands| fits(bands)).unwrap_or(height)
    }

    /// Values computed once, and gathered sums where something reads them.
    fn place_shared_values(&mut self) {
        let made: Vec<Value> = self.made().map(|(_, v)| v).collect();
        let mut read = vec![false; self.graph.values.len()];
        for (_, node) in self.graph.nodes.iter().enumerate().filter(|&(i, _)| self.needed[i]) {
            node.inputs.iter().for_each(|v| read[self.root[v.index()]] = true);
        }
        self.kept.iter().for_each(|v| read[self.root[v.index()]] = true);
        for value in made {
            let len = self.spec(value).len();
            match self.spec(value).role {
                Role::Shared => self.places[value.index()] = Some(Place::Shared(self.new_shared(len))),
                Role::Sum if read[value.index()] => {
                    let buffer = self.new_shared(len);
                    self.reduced[value.index()] = Some(buffer);
                    self.stages[self.value_stage[value.index()]].sums.push((value, buffer));
                }
                _ => {}
            }
        }
    }

    fn new_shared(&mut self, len: usize) -> usize {
        self.shared_len.push(len);
        self.shared_len.len() - 1
    }

    fn finish(mut self) -> Plan {
        for value in 0..self.places.len() {
            self.places[value] = self.places[self.root[value]];
            self.reduced[value] = self.reduced[self.root[value]];
        }
        // Stages hold numbers of nodes up to here, numbers of steps from here on.
        let mut steps = Vec::new();
        let mut scratch_len = 0;
        let mut stages = std::mem::take(&mut self.stages);
        let mut packs: Vec<(usize, usize)> = Vec::new();
        for stage in &mut stages {
            let (group, bands) = (stage.group, stage.bands);
            let sum = |&node: &usize| self.graph.nodes[node].outputs.iter().any(|&v| self.spec(v).role == Role::Sum);
            // Bands are made for one worker.
            stage.separate = bands == 1 && !stage.steps.iter().any(sum);
            for number in stage.steps.iter_mut().chain(&mut stage.once) {
                let step = self.make_step(*number, bands, &mut packs, steps.len());
                scratch_len = scratch_len.max(step.run.scratch_len(group)).max(step.run.scratch_len(1));
                *number = steps.len();
                steps.push(step);
            }
        }
        let (updates, averages) = (&self.graph.updates, &self.graph.moving_averages);
        let (mut parameter_packs, mut update_packs) = (Vec::new(), vec![Vec::new(); updates.len()]);
        for (stage, step) in packs {
            let (_, input, _) = steps[step].packing();
            match self.places[steps[step].inputs[input].index()] {
                Some(Place::Parameter(id)) if averages.iter().all(|average| average.parameter != id) => {
                    parameter_packs.push(step);
                    let of_update = updates.iter().zip(&mut update_packs).filter(|(update, _)| update.parameter == id);
                    of_update.for_each(|(_, packs)| packs.push(step));
                }
                _ => stages[stage].packs.push(step),
            }
        }
        Plan {
            batch: self.options.batch,
            level: self.options.level,
            slots: self.slots,
            steps,
            stages,
            inputs: self.input_specs(),
            slot_bytes: self.slot_bytes,
            worker_bytes: self.worker_bytes,
            shared_len: self.shared_len,
            scratch_len,
            share_above: self.options.share_above,
            guard: self.options.guard,
            updates: self.graph.updates.clone(),
            packs: parameter_packs,
            update_packs,
            moving_averages: self.graph.moving_averages.clone(),
            clip: self.graph.clip,
            specs: self.graph.values.iter().map(|v| v.spec.clone()).collect(),
            places: self.places,
            reduced: self.reduced,
        }
    }

    fn make_step(&mut self, node: usize, bands: usize, packs: &mut Vec<(usize, usize)>, number: usize) -> Step {
        let node = &self.graph.nodes[node];
        let inputs: Vec<&Spec> = node.inputs.iter().map(|&v| self.spec(v)).collect();
        let outputs: Vec<&Spec> = node.outputs.iter().map(|&v| self.spec(v)).collect();
        let band = |specs: &[&Spec]| specs.iter().map(|spec| banded(spec, bands)).collect::<Vec<Spec>>();
        let (input_bands, output_bands) = (band(&inputs), band(&outputs));
        let target = Target { level: self.options.level, precision: self.options.precision };
        let run =
            node.op.prepare(&input_bands.iter().collect::<Vec<_>>(), &output_bands.iter().collect::<Vec<_>>(), target);
        let packed = run.packing().map(|(input, packing)| {
            packs.push((self.value_stage[node.inputs[input].index()], number));
            (input, self.new_shared(packing.packed_len()))
        });
        let len = outputs.first().map_or(0, |spec| spec.len());
        let alike = |spec: &&Spec| spec.role == Role::Sample && spec.len() == len;
        let can_be_cut =
            outputs.len() <= MOST_PARTS && outputs.iter().all(|spec| alike(spec) && spec.dtype != DType::Bf16);
        let flops = node.op.flops(&inputs, &outputs);
        let bytes: usize = node.inputs.iter().chain(&node.outputs).map(|&v| self.sample_bytes(v)).sum();
        let weights: usize = packed.map_or(0, |(_, buffer)| 4 * self.shared_len[buffer]);
        let unit = if can_be_cut { run.unit() } else { 0 };
        let nanos = 1 + (flops as usize / FLOPS_PER_NANO + (bytes + weights) / BYTES_PER_NANO) as u64;
        Step {
            len,
            dtypes: std::array::from_fn(|n| outputs.get(n).map_or(DType::F32, |spec| spec.dtype)),
            unit,
            nanos,
            shared: unit > 0 && len > unit && nanos > self.options.share_above,
            run,
            name: node.op.name(),
            place: node.place.clone(),
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            packed,
            flops,
            bytes: bytes as u64,
        }
    }

    fn sample_bytes(&self, value: Value) -> usize {
        if self.spec(value).role == Role::Sample { self.bytes(value) } else { 0 }
    }

    fn input_specs(&self) -> Vec<Spec> {
        let inputs = self.graph.values.iter().filter(|v| matches!(v.source, Source::Input(_)));
        inputs.map(|v| v.spec.clone()).collect()
    }
}

/// What a band of an image's rows looks like.
fn banded(spec: &Spec, bands: usize) -> Spec {
    let mut spec = spec.clone();
    if bands > 1 && spec.role == Role::Sample {
        spec.shape[0] /= bands;
    }
    spec
}
