//! The worker pool: the caller is worker 0, the others spin briefly for the next job and then sleep.
//!
//! Each worker begins with its share of the items, the same in every job of as many, so that what an item owns stays in that worker's
//! cache; then it takes what others have left. So which worker takes which item is left to chance; results must not depend on
//! it. That is why every item owns the memory it writes.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker spins before it parks. A parked thread takes about 50 µs to wake, a spinning one under 1 µs.
const SPIN: Duration = Duration::from_micros(50);

/// A fixed set of threads that run one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The job as the workers see it: which worker they are, which task they took.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    posted: Line<Announcement>,
    workers: Vec<Line<Worker>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What the caller tells the others, in one cache line: to fetch it from another core takes a good part of what a job costs besides its work.
struct Announcement {
    /// Raised by one for each job; workers wait for it to change.
    generation: AtomicU32,
    stop: AtomicBool,
    /// Written by the caller while no worker reads it: before the generation changes, after all have answered the one before.
    job: UnsafeCell<Option<Posted>>,
}

/// What a worker tells the others.
struct Worker {
    /// The last generation it has answered.
    answered: AtomicU32,
    /// In the upper half a generation, in the lower how many tasks of its share have been taken in that; in any other, none has.
    next_task: AtomicU64,
}

/// In a cache line of its own, and the one beside it, which some processors fetch together.
#[repr(align(128))]
struct Line<T>(T);

#[derive(Clone, Copy)]
struct Posted {
    job: *const Job<'static>,
    tasks: usize,
    backwards: bool,
}

// SAFETY: the pointer is to a `Sync` closure that outlives the job (see `Pool::run_in_order`), and the cell is written by one thread while no
// other reads it.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// A pool of `threads` workers in all, the caller included; at least one.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            posted: Line(Announcement {
                generation: AtomicU32::new(0),
                stop: AtomicBool::new(false),
                job: UnsafeCell::new(None),
            }),
            workers: (0..threads.max(1))
                .map(|_| Line(Worker { answered: AtomicU32::new(0), next_task: AtomicU64::new(0) }))
                .collect(),
            panic: Mutex::new(None),
        });
        let threads = (1..threads.max(1))
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                // Where the system refuses another thread, the pool is smaller; results do not depend on it.
                std::thread::Builder::new().name(format!("ocellus-{worker}")).spawn(move || work(&shared, worker)).ok()
            })
            .collect();
        Pool { shared, threads }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Gives every item to exactly one worker, with that worker's own state.
    ///
    /// # Panics
    /// Where there are fewer states than workers, or with the panic of `f`.
    pub fn for_each<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        f: impl Fn(&mut S, usize, &mut T) + Sync,
    ) {
        self.for_each_in_order(states, items, false, f);
    }

    /// As [`for_each`](Self::for_each); every worker goes through its share from the end where that is to be `backwards`.
    ///
    /// # Panics
    /// As [`for_each`](Self::for_each).
    pub fn for_each_in_order<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        items: &mut [T],
        backwards: bool,
        f: impl Fn(&mut S, usize, &mut T) + Sync,
    ) {
        assert!(states.len() >= self.threads(), "one state for each worker");
        let (states, items_ptr) = (Disjoint(states.as_mut_ptr()), Disjoint(items.as_mut_ptr()));
        self.run_in_order(items.len(), backwards, &|worker, index| {
            // SAFETY: a worker runs one task at a time and no other worker has its number; every index below
            // `items.len()` is handed out once; both slices stay borrowed until `run` returns.
            let (state, item) = unsafe { (states.get(worker), items_ptr.get(index)) };
            f(state, index, item);
        });
    }

    /// Runs `job(worker, task)` for every task below `tasks`, and returns when all are done.
    pub(crate) fn run(&mut self, tasks: usize, job: &Job<'_>) {
        self.run_in_order(tasks, false, job);
    }

    fn run_in_order(&mut self, tasks: usize, backwards: bool, job: &Job<'_>) {
        let _flush = FlushDenormals::new();
        if self.threads.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| job(0, if backwards { tasks - 1 - task } else { task }));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. All workers are waited for below, and none reads the cell again before the
        // next job stands there.
        let job: *const Job<'static> = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
        let posted = Posted { job, tasks, backwards };
        // SAFETY: every worker has answered the last generation, and reads this only after the next one.
        unsafe { *shared.posted.0.job.get() = Some(posted) };
        let generation = shared.posted.0.generation.fetch_add(1, Ordering::Release).wrapping_add(1);
        self.threads.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        shared.take_tasks(posted, generation, 0);
        let mut spins = 0u32;
        for worker in &shared.workers[1..=self.threads.len()] {
            while worker.0.answered.load(Ordering::Acquire) != generation {
                spins += 1;
                // On a machine with fewer free cores than workers, the one waited for may need this core.
                if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.posted.0.stop.store(true, Ordering::Relaxed);
        self.shared.posted.0.generation.fetch_add(1, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A worker catches its panics, so joining cannot fail in a way worth reporting.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Shared {
    fn take_tasks(&self, posted: Posted, generation: u32, worker: usize) {
        // SAFETY: `Pool::run_in_order` keeps the closure alive until every worker has reported back.
        let job = unsafe { &*posted.job };
        let workers = self.workers.len();
        for share in (worker..workers).chain(0..worker) {
            let (start, end) = (share * posted.tasks / workers, (share + 1) * posted.tasks / workers);
            // The caller begins with its own share, so that one of one task is left to it.
            if share == 0 && worker != 0 && end - start <= 1 {
                continue;
            }
            while let Some(taken) = self.workers[share].0.take(generation, end - start) {
                let task = if posted.backwards { end - 1 - taken } else { start + taken };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(worker, task))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
        }
    }
}

impl Worker {
    /// Takes the next task of its share, which has so many in this generation.
    fn take(&self, generation: u32, share: usize) -> Option<usize> {
        let tagged = u64::from(generation) << 32;
        let mut next = self.next_task.load(Ordering::Relaxed);
        loop {
            // Asked first, since to look costs others nothing.
            let taken = if next & !0xffff_ffff == tagged { next & 0xffff_ffff } else { 0 };
            if taken >= share as u64 {
                return None;
            }
            match self.next_task.compare_exchange_weak(next, tagged | (taken + 1), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(taken as usize),
                Err(now) => next = now,
            }
        }
    }
}

fn work(shared: &Shared, worker: usize) {
    let _flush = FlushDenormals::new();
    let Announcement { generation, stop, job } = &shared.posted.0;
    let mut seen = 0;
    loop {
        let mut since = None;
        let mut spins = 0u32;
        while generation.load(Ordering::Acquire) == seen {
            std::hint::spin_loop();
            spins += 1;
            if spins.is_multiple_of(64) && since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                std::thread::park();
            }
        }
        seen = generation.load(Ordering::Acquire);
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: it was written before this generation began, and the caller writes it again only when this worker has answered.
        if let Some(posted) = unsafe { *job.get() } {
            shared.take_tasks(posted, seen, worker);
        }
        shared.workers[worker].0.answered.store(seen, Ordering::Release);
    }
}

/// A pointer into a slice whose elements are handed to one worker each.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<T>(pub(crate) *mut T);

// SAFETY: `get` is unsafe and asks that no two workers take the same element.
unsafe impl<T: Send> Sync for Disjoint<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<T> {}

impl<T> Disjoint<T> {
    /// # Safety
    /// `index` must lie in the slice, which must outlive `'a`, and no one else may hold that element.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that each element is taken once")]
    pub(crate) unsafe fn get<'a>(&self, index: usize) -> &'a mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.add(index) }
    }

    /// # Safety
    /// As for [`get`](Self::get), for every element of the range.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that ranges do not overlap")]
    pub(crate) unsafe fn range<'a>(&self, start: usize, end: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), end - start) }
    }

    /// The elements from `start` on.
    ///
    /// # Safety
    /// `start` must lie in the slice, or be its end.
    pub(crate) unsafe fn after(&self, start: usize) -> Self {
        // SAFETY: the caller's promise.
        Disjoint(unsafe { self.0.add(start) })
    }
}

/// While it lives, this thread's arithmetic treats denormal numbers as zero: some processors are 50 times slower on
/// them, and every worker must round alike.
struct FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    before: u32,
}

impl FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    fn new() -> Self {
        let mut before = 0u32;
        // SAFETY: reads and writes the thread's SSE control word; flush-to-zero (bit 15) and denormals-are-zero
        // (bit 6) are modes that every x86-64 processor has, and `drop` restores the word.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut before, options(nostack));
            let flush = before | 1 << 15 | 1 << 6;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &flush, options(nostack));
        }
        FlushDenormals { before }
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn new() -> Self {
        FlushDenormals {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FlushDenormals {
    fn drop(&mut self) {
        // SAFETY: restores the control word that `new` read.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &self.before, options(nostack)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_item_is_done_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8] {
            let mut pool = Pool::new(threads);
            let mut counts = vec![0usize; pool.threads()];
            for items in [0, 1, 2, 7, 100] {
                let mut values = vec![1usize; items];
                for backwards in [false, true] {
                    pool.for_each_in_order(&mut counts, &mut values, backwards, |count, index, value| {
                        *value += index;
                        *count += 1;
                    });
                }
                assert_eq!(values, (0..items).map(|index| 1 + 2 * index).collect::<Vec<_>>());
            }
            assert_eq!(counts.iter().sum::<usize>(), 220);
        }
    }

    #[test]
    fn many_jobs_follow_each_other() {
        let mut pool = Pool::new(3);
        let (mut states, mut values) = ([(); 3], [0usize; 8]);
        for job in 0..6_000 {
            pool.for_each(&mut states, &mut values[..job % 9], |(), _, value| *value += 1);
        }
        let expected: [usize; 8] = std::array::from_fn(|n| (0..6_000).filter(|job| job % 9 > n).count());
        assert_eq!(values, expected);
    }

    #[test]
    fn a_worker_begins_with_its_share() {
        // All wait for each other with their first items, so that none can take two.
        for backwards in [false, true] {
            let mut pool = Pool::new(3);
            let (mut shares, mut items) = (vec![usize::MAX; 3], [0; 9]);
            let met = AtomicUsize::new(0);
            pool.for_each_in_order(&mut shares, &mut items, backwards, |first, index, _| {
                if *first == usize::MAX {
                    *first = index;
                    met.fetch_add(1, Ordering::Relaxed);
                    while met.load(Ordering::Relaxed) < 3 {
                        std::thread::yield_now();
                    }
                }
            });
            assert_eq!(shares, if backwards { [2, 5, 8] } else { [0, 3, 6] });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|_, task| assert!(task != 5, "task five"))));
        assert!(caught.is_err());
        pool.run(4, &|_, _| {});
    }

    #[test]
    fn sleeping_workers_wake() {
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            let done = AtomicUsize::new(0);
            pool.run(2, &|_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 2);
        }
    }
}
