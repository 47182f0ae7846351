//! Batches made ahead of their use, for images that are decoded or changed whenever one is asked for.
//!
//! Of `w` workers, the first makes batches 0, w, 2w …, the second 1, w + 1 …; taking from them in turn gives the batches in
//! order, however fast each worker is. Each keeps one batch ready and makes the next meanwhile; buffers go back to be filled again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Batch, Making, Scratch};
use crate::data::{DataError, Dataset};

/// Workers at most; more would only fill memory.
const MAX_WORKERS: usize = 8;

/// Workers that make the batches of one epoch.
pub(super) struct Prefetch {
    workers: Vec<Worker>,
    taken: usize,
}

struct Worker {
    /// Gone only while the worker is being ended.
    ready: Option<Receiver<Result<Batch, DataError>>>,
    spent: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Begin to make batches of the samples of `order`.
    pub(super) fn start(
        dataset: &Dataset,
        order: &[u32],
        batch_size: usize,
        making: &Making,
    ) -> Result<Self, DataError> {
        let order: Arc<[u32]> = order.into();
        let making = Arc::new(making.clone());
        let batches = order.len().div_ceil(batch_size);
        let count = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS).min(batches);
        let mut workers = Vec::with_capacity(count);
        for first in 0..count {
            let (ready, batches_ready) = sync_channel(1);
            let (spent, batches_spent) = channel();
            let (dataset, order, making) = (dataset.clone(), order.clone(), making.clone());
            let work = move || {
                let mut scratch = Scratch::default();
                for indices in order.chunks(batch_size).skip(first).step_by(count) {
                    let mut batch =
                        batches_spent.try_recv().unwrap_or_else(|_| Batch::with_capacity(&dataset, batch_size));
                    let made = batch.fill(&dataset, indices, &making, &mut scratch).map(|()| batch);
                    if ready.send(made).is_err() {
                        break;
                    }
                }
            };
            let builder = thread::Builder::new().name(format!("ocellus-load-{first}"));
            let thread = builder
                .spawn(work)
                .map_err(|error| DataError::Argument(format!("cannot start a thread to load images: {error}")))?;
            workers.push(Worker { ready: Some(batches_ready), spent, thread: Some(thread) });
        }
        Ok(Self { workers, taken: 0 })
    }

    /// The next batch in order, in exchange for one that is no longer needed. Not to be asked beyond the end of the epoch.
    pub(super) fn exchange(&mut self, batch: &mut Batch) -> Result<(), DataError> {
        let ended = || DataError::Argument("a thread that loads images has ended".into());
        let index = self.taken.checked_rem(self.workers.len()).ok_or_else(ended)?;
        let worker = &self.workers[index];
        let made = worker.ready.as_ref().and_then(|ready| ready.recv().ok()).ok_or_else(ended)??;
        self.taken += 1;
        // A worker that is done takes nothing back.
        let _ = worker.spent.send(std::mem::replace(batch, made));
        Ok(())
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // Without receivers every worker ends at its next batch.
        for worker in &mut self.workers {
            worker.ready = None;
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            let _ = thread.join();
        }
    }
}
