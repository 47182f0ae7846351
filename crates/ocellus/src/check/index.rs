//! All pairs of images whose hashes differ in few bits, without comparing all with all.
//!
//! Multi-index hashing (Norouzi, Punjani, Fleet: *Fast search in Hamming space with multi-index hashing*, CVPR 2012): a hash is
//! cut into eight chunks of 16 bits. Hashes that differ in at most 15 bits agree in one of them up to a bit, and most that
//! differ in twice as many do. One chunk after the other is indexed, so that a single table is in memory.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::perceptual::{Hashes, WINDOWS};

/// Two images, the lesser index first.
pub(super) type Pair = (u32, u32);

/// Bits in which the hash of a copy may differ from that of one of the original's windows.
pub(super) const RADIUS: u32 = 28;

const CHUNK_BITS: usize = 16;
const CHUNKS: usize = 128 / CHUNK_BITS;
const BUCKETS: usize = 1 << CHUNK_BITS;

/// Partners that an image gets from one bucket at most: of a thousand like images each is joined to some, and all hang
/// together. Of very many images fewer, so that pairs do not take more memory than hashes.
const MOST_PARTNERS: usize = 32;
const LEAST_PARTNERS: usize = 4;
const MOST_PAIRS: usize = 1 << 23;

/// Buckets that a thread takes at once.
const STRETCH: usize = 64;

/// Pairs that may be copies, in order; `hashes` has nothing for an image that cannot be told apart from others.
///
/// The second result is the number of images for which the search was cut short, since too many hashes are alike.
pub(super) fn similar_pairs(hashes: &[Option<Hashes>], threads: usize) -> (Vec<Pair>, usize) {
    let mut pairs = Vec::new();
    let mut cut_short = vec![false; hashes.len()];
    for chunk in 0..CHUNKS {
        let table = Table::new(hashes, chunk);
        let found = Mutex::new((Vec::new(), Vec::new()));
        let next = AtomicUsize::new(0);
        let worker = || {
            let (mut mine, mut cut, mut near) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                let start = next.fetch_add(STRETCH, Ordering::Relaxed);
                if start >= BUCKETS {
                    break;
                }
                for bucket in start..start + STRETCH {
                    table.join(bucket, &mut near, &mut mine, &mut cut);
                }
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.0.append(&mut mine);
            found.1.append(&mut cut);
        };
        thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                scope.spawn(worker);
            }
            worker();
        });
        let (mut found, cut) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        cut.into_iter().for_each(|query| cut_short[query as usize] = true);
        pairs.append(&mut found);
        pairs.sort_unstable();
        pairs.dedup();
    }
    (pairs, cut_short.iter().filter(|&&cut| cut).count())
}

/// Hashes and windows sorted by one of their chunks. Buckets are gone through in order, each with all windows that fall into
/// it, so that what is compared stays in the nearest cache.
struct Table<'a> {
    hashes: &'a [Option<Hashes>],
    /// Hashes of whole images, and where each bucket begins.
    entries: Vec<Entry>,
    starts: Vec<u32>,
    /// Windows as `image * WINDOWS + window`, and where each bucket begins.
    windows: Vec<u64>,
    window_starts: Vec<u64>,
    /// Entries that one window is compared with at most: several times what even buckets would have.
    budget: usize,
    most_partners: usize,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    hash: [u64; 2],
    image: u32,
}

impl<'a> Table<'a> {
    fn new(hashes: &'a [Option<Hashes>], chunk: usize) -> Self {
        let mut starts = vec![0u32; BUCKETS + 1];
        let mut window_starts = vec![0u64; BUCKETS + 1];
        for windows in hashes.iter().flatten() {
            starts[bucket(windows[0], chunk) + 1] += 1;
            for &window in windows {
                window_starts[bucket(window, chunk) + 1] += 1;
            }
        }
        for at in 0..BUCKETS {
            starts[at + 1] += starts[at];
            window_starts[at + 1] += window_starts[at];
        }
        let mut entries = vec![Entry::default(); starts[BUCKETS] as usize];
        let mut sorted = vec![0; window_starts[BUCKETS] as usize];
        let (mut ends, mut window_ends) = (starts.clone(), window_starts.clone());
        for (image, windows) in (0u32..).zip(hashes) {
            let Some(windows) = windows else { continue };
            let end = &mut ends[bucket(windows[0], chunk)];
            entries[*end as usize] = Entry { hash: halves(windows[0]), image };
            *end += 1;
            for (&window, number) in windows.iter().zip(u64::from(image) * WINDOWS as u64..) {
                let end = &mut window_ends[bucket(window, chunk)];
                sorted[*end as usize] = number;
                *end += 1;
            }
        }
        let even = (CHUNK_BITS + 1) * entries.len() / BUCKETS;
        let most_partners = (MOST_PAIRS / hashes.len().max(1)).clamp(LEAST_PARTNERS, MOST_PARTNERS);
        Self { hashes, entries, starts, windows: sorted, window_starts, budget: 16 * even + 1024, most_partners }
    }

    /// Adds the pairs of images of which one has a window in this bucket that is close to the whole other one; those of
    /// which not all were seen are `cut`. `near` is room to work in.
    fn join(&self, bucket: usize, near: &mut Vec<Entry>, pairs: &mut Vec<Pair>, cut: &mut Vec<u32>) {
        let windows = &self.windows[self.window_starts[bucket] as usize..self.window_starts[bucket + 1] as usize];
        if windows.is_empty() {
            return;
        }
        near.clear();
        let mut whole = true;
        for probe in std::iter::once(bucket).chain((0..CHUNK_BITS).map(|bit| bucket ^ 1 << bit)) {
            let entries = &self.entries[self.starts[probe] as usize..self.starts[probe + 1] as usize];
            let room = self.budget - near.len();
            whole &= entries.len() <= room;
            near.extend_from_slice(&entries[..entries.len().min(room)]);
        }
        // The windows of an image follow each other, and mostly find the same.
        let (mut last, mut first) = (u32::MAX, pairs.len());
        for &number in windows {
            let (query, window) = ((number / WINDOWS as u64) as u32, (number % WINDOWS as u64) as usize);
            let Some(hash) = self.hashes[query as usize].as_ref().map(|windows| halves(windows[window])) else {
                continue;
            };
            if query != last {
                (last, first) = (query, pairs.len());
            }
            for entry in near.iter() {
                if is_close(entry.hash, hash) && entry.image != query {
                    let pair = (entry.image.min(query), entry.image.max(query));
                    if pairs[first..].contains(&pair) {
                        continue;
                    }
                    if pairs.len() - first == self.most_partners {
                        cut.push(query);
                        break;
                    }
                    pairs.push(pair);
                }
            }
            if !whole {
                cut.push(query);
            }
        }
    }
}

/// Whether two hashes differ in few bits. Bits are counted in parallel within words, both halves together, for processors whose
/// instruction for it may not be used.
fn is_close(a: [u64; 2], b: [u64; 2]) -> bool {
    const PAIRS: u64 = 0x5555_5555_5555_5555;
    const FOURS: u64 = 0x3333_3333_3333_3333;
    const BYTES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let fours = |x: u64| {
        let twos = x - (x >> 1 & PAIRS);
        (twos & FOURS) + (twos >> 2 & FOURS)
    };
    let sums = fours(a[0] ^ b[0]) + fours(a[1] ^ b[1]);
    let bytes = (sums & BYTES) + (sums >> 4 & BYTES);
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32 <= RADIUS
}

fn bucket(hash: u128, chunk: usize) -> usize {
    (hash >> (chunk * CHUNK_BITS)) as usize & (BUCKETS - 1)
}

fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    fn random_hash(random: &mut Random) -> u128 {
        u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
    }

    #[test]
    fn all_pairs_within_fifteen_bits_are_found_and_none_beyond_the_radius() {
        let mut random = Random::new(1, Purpose::Test, 0, 0);
        let mut hashes: Vec<Option<Hashes>> =
            (0..2000).map(|_| Some(std::array::from_fn(|_| random_hash(&mut random)))).collect();
        let mut planted = Vec::new();
        for (copy, original) in (1000..2000).zip(0..1000u32).step_by(10) {
            let mut hash = hashes[original as usize].unwrap()[copy % WINDOWS];
            for _ in 0..15 {
                hash ^= 1 << random.below(128);
            }
            hashes[copy].as_mut().unwrap()[0] = hash;
            planted.push((original, copy as u32));
        }
        hashes[5] = None;
        let (found, cut_short) = similar_pairs(&hashes, 2);
        assert_eq!((found.as_slice(), cut_short), (planted.as_slice(), 0));
    }

    #[test]
    fn a_crowd_of_like_images_takes_bounded_work() {
        let hashes = vec![Some([7; WINDOWS]); 3_000];
        let (found, cut_short) = similar_pairs(&hashes, 1);
        assert!(found.len() <= 3_000 * MOST_PARTNERS && cut_short == 3_000, "{} {cut_short}", found.len());
    }

    /// A measurement for docs/checking.md: `cargo test --release -p ocellus --lib a_million -- --ignored --nocapture`.
    #[test]
    #[ignore = "takes minutes where it is not optimised"]
    fn copies_among_a_million_are_found() {
        const IMAGES: usize = 1_000_000;
        let mut random = Random::new(1, Purpose::Test, 0, 0);
        let flipped = |hash: u128, flips: u32, random: &mut Random| {
            (0..flips).fold(hash, |hash, _| hash ^ 1 << random.below(128))
        };
        let mut hashes: Vec<Option<Hashes>> = (0..IMAGES)
            .map(|_| {
                let whole = random_hash(&mut random);
                Some(std::array::from_fn(|at| if at == 0 { whole } else { flipped(whole, 12, &mut random) }))
            })
            .collect();
        let planted: Vec<Pair> =
            (0..IMAGES as u32 / 100).map(|original| (original, IMAGES as u32 - 1 - original)).collect();
        for &(original, copy) in &planted {
            let hash = hashes[original as usize].unwrap()[copy as usize % WINDOWS];
            hashes[copy as usize].as_mut().unwrap()[0] = flipped(hash, 20, &mut random);
        }
        let began = std::time::Instant::now();
        let (found, _) = similar_pairs(&hashes, 2);
        let hits = planted.iter().filter(|pair| found.binary_search(pair).is_ok()).count();
        eprintln!("{hits} of {} found, {} pairs, {:.1} s", planted.len(), found.len(), began.elapsed().as_secs_f64());
        assert!(hits * 100 >= planted.len() * 99, "{hits} of {}", planted.len());
    }
}
