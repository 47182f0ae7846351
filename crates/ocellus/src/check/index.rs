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

/// Partners of one image that one table gives at most: of a thousand like images each is joined to some, and all hang together.
const MOST_PARTNERS: usize = 32;

/// Queries that a thread takes at once.
const STRETCH: usize = 256;

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
            let (mut mine, mut cut) = (Vec::new(), Vec::new());
            loop {
                let start = next.fetch_add(STRETCH, Ordering::Relaxed);
                if start >= hashes.len() {
                    break;
                }
                for (query, windows) in hashes.iter().enumerate().skip(start).take(STRETCH) {
                    if let Some(windows) = windows
                        && !table.partners(query as u32, windows, &mut mine)
                    {
                        cut.push(query);
                    }
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
        cut.into_iter().for_each(|query| cut_short[query] = true);
        pairs.append(&mut found);
        pairs.sort_unstable();
        pairs.dedup();
    }
    (pairs, cut_short.iter().filter(|&&cut| cut).count())
}

/// Hashes sorted by one of their chunks; they lie beside each other, so that a bucket is read in one go.
struct Table {
    chunk: usize,
    /// Where each bucket begins.
    starts: Vec<u32>,
    entries: Vec<Entry>,
    /// Entries that one query may look at: several times what even buckets would have.
    budget: usize,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    hash: [u64; 2],
    image: u32,
}

impl Table {
    fn new(hashes: &[Option<Hashes>], chunk: usize) -> Self {
        let mut starts = vec![0u32; BUCKETS + 1];
        for windows in hashes.iter().flatten() {
            starts[bucket(windows[0], chunk) + 1] += 1;
        }
        for at in 0..BUCKETS {
            starts[at + 1] += starts[at];
        }
        let mut entries = vec![Entry::default(); starts[BUCKETS] as usize];
        let mut ends = starts.clone();
        for (image, windows) in (0u32..).zip(hashes) {
            let Some(windows) = windows else { continue };
            let end = &mut ends[bucket(windows[0], chunk)];
            entries[*end as usize] = Entry { hash: halves(windows[0]), image };
            *end += 1;
        }
        let even = WINDOWS * (CHUNK_BITS + 1) * entries.len() / BUCKETS;
        Self { chunk, starts, entries, budget: 16 * even + 8192 }
    }

    /// Adds the pairs of an image with those whose whole hash is close to one of its windows'; false where not all were seen.
    fn partners(&self, query: u32, windows: &Hashes, pairs: &mut Vec<Pair>) -> bool {
        let (mut budget, most) = (self.budget, pairs.len() + MOST_PARTNERS);
        for &window in windows {
            let (own, hash) = (bucket(window, self.chunk), halves(window));
            for probe in std::iter::once(own).chain((0..CHUNK_BITS).map(|bit| own ^ 1 << bit)) {
                let entries = &self.entries[self.starts[probe] as usize..self.starts[probe + 1] as usize];
                let Some(left) = budget.checked_sub(entries.len()) else { return false };
                budget = left;
                for entry in entries {
                    let [low, high] = [entry.hash[0] ^ hash[0], entry.hash[1] ^ hash[1]];
                    if low.count_ones() + high.count_ones() <= RADIUS && entry.image != query {
                        let pair = (entry.image.min(query), entry.image.max(query));
                        if !pairs[most - MOST_PARTNERS..].contains(&pair) {
                            pairs.push(pair);
                        }
                        if pairs.len() == most {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }
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
}
