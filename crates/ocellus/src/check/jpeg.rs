//! Whether a JPEG's coded data adds up: every code exists, every block is there, nothing is left over.
//!
//! Decoders make an image of anything: what is missing becomes grey, what is damaged becomes noise. Here the data is read
//! by the letter of the standard (ITU-T T.81) without making pixels, which finds nearly every damage within coded data,
//! since after it the blocks no longer add up to the image, or a block holds more than light and dark can. A single wrong
//! bit often leaves only its own block wrong, and is then noticed only where that block becomes impossible.

/// What is wrong with a file's coded data; none where nothing is, or where the coding is of a kind that is not read here
/// (arithmetic, lossless).
pub(super) fn flaw(bytes: &[u8]) -> Option<String> {
    match Reader::new(bytes).read() {
        Ok(()) | Err(Stop::NotJudged) => None,
        Err(Stop::Flaw(flaw)) => Some(format!("the image's data does not add up: {flaw}")),
    }
}

/// Why reading ended early.
enum Stop {
    Flaw(String),
    /// It is of a kind, or a size, that is not read.
    NotJudged,
}

fn flawed<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Flaw(what.into()))
}

/// Blocks that are read at most, over all passes: a small file can ask for any number of passes.
const MOST_BLOCKS: u64 = 1 << 26;

/// A Huffman table: for each length the first code, its place, and the count.
#[derive(Clone)]
struct Codes {
    /// For the next 8 bits, the symbol and its length where the code is that short.
    short: [(u8, u8); 256],
    first: [i32; 17],
    last: [i32; 17],
    place: [i32; 17],
    symbols: Vec<u8>,
}

struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
    table: usize,
    /// Blocks along a row and a column, as whole units have them.
    columns: usize,
    rows: usize,
    /// Which coefficients of each block are not zero, for the passes of a progressive image.
    coded: Vec<u64>,
    seen: bool,
}

/// The header of a scan.
struct Scan {
    /// Component, DC table, AC table.
    components: Vec<(usize, usize, usize)>,
    from: usize,
    to: usize,
    /// Bits that earlier passes have left out; 0 in a first pass.
    high: u8,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    direct: [Option<Codes>; 4],
    alternating: [Option<Codes>; 4],
    /// The divisors of the coefficients, in the order of the file.
    divisors: [[u16; 64]; 4],
    components: Vec<Component>,
    progressive: bool,
    width: usize,
    height: usize,
    restart: usize,
    blocks: u64,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 2,
            direct: [const { None }; 4],
            alternating: [const { None }; 4],
            divisors: [[1; 64]; 4],
            components: Vec::new(),
            progressive: false,
            width: 0,
            height: 0,
            restart: 0,
            blocks: 0,
        }
    }

    fn read(mut self) -> Result<(), Stop> {
        loop {
            let marker = self.marker()?;
            match marker {
                0xd9 => break,
                0xd8 | 0x01 | 0xd0..=0xd7 => continue,
                _ => {}
            }
            let segment = self.segment()?;
            match marker {
                0xc0..=0xc2 => self.frame(segment, marker == 0xc2)?,
                0xc4 => self.tables(segment)?,
                0xc3 | 0xc5..=0xcf => return Err(Stop::NotJudged),
                0xdb => self.quantisation(segment),
                0xdd => self.restart = segment.first_chunk().map_or(0, |&two| usize::from(u16::from_be_bytes(two))),
                0xda => {
                    let scan = self.scan(segment)?;
                    self.coded(&scan)?;
                }
                _ => {}
            }
        }
        match self.components.iter().position(|component| !component.seen) {
            Some(_) => flawed("a colour channel is missing"),
            None if self.components.is_empty() => flawed("there is no image in it"),
            None => Ok(()),
        }
    }

    /// The next marker; bytes that belong to nothing are stepped over, as all decoders do.
    fn marker(&mut self) -> Result<u8, Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(skip) = rest.windows(2).position(|two| two[0] == 0xff && !matches!(two[1], 0 | 0xff)) else {
            return flawed("it ends without an end marker");
        };
        self.at += skip + 2;
        Ok(rest[skip + 1])
    }

    fn segment(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.first_chunk().map_or(0, |&two| usize::from(u16::from_be_bytes(two)));
        match rest.get(2..length) {
            Some(segment) => {
                self.at += length;
                Ok(segment)
            }
            None => flawed("a segment is longer than the file"),
        }
    }

    fn quantisation(&mut self, mut segment: &[u8]) {
        while let [kind, rest @ ..] = segment {
            let width = if kind >> 4 == 0 { 1 } else { 2 };
            let (Some(values), Some(table)) = (rest.get(..64 * width), self.divisors.get_mut(usize::from(kind & 15)))
            else {
                return;
            };
            for (divisor, value) in table.iter_mut().zip(values.chunks_exact(width)) {
                *divisor = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            segment = &rest[64 * width..];
        }
    }

    fn tables(&mut self, mut segment: &[u8]) -> Result<(), Stop> {
        while let [kind, rest @ ..] = segment {
            let Some((counts, rest)) = rest.split_first_chunk::<16>() else { return flawed("a code table is cut off") };
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(total) else { return flawed("a code table is cut off") };
            let tables = if kind >> 4 == 0 { &mut self.direct } else { &mut self.alternating };
            let Some(table) = tables.get_mut(usize::from(kind & 15)) else {
                return flawed("a code table has no such number");
            };
            *table = Some(Codes::new(counts, symbols)?);
            segment = rest;
        }
        Ok(())
    }

    fn frame(&mut self, segment: &[u8], progressive: bool) -> Result<(), Stop> {
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = segment else { return flawed("the frame is cut off") };
        (self.height, self.width) = (usize::from(h1) << 8 | usize::from(h0), usize::from(w1) << 8 | usize::from(w0));
        if precision != 8 || self.height == 0 || !(1..=4).contains(&count) || !self.components.is_empty() {
            return Err(Stop::NotJudged);
        }
        self.progressive = progressive;
        let parts: Vec<[u8; 3]> = rest.as_chunks::<3>().0.iter().copied().take(count.into()).collect();
        let factor = |sampling: u8| usize::from(sampling.clamp(1, 4));
        let across = parts.iter().map(|part| factor(part[1] >> 4)).max().unwrap_or(1);
        let down = parts.iter().map(|part| factor(part[1] & 15)).max().unwrap_or(1);
        let units = (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down));
        for [id, sampling, table] in parts {
            if !(1..=4).contains(&(sampling >> 4)) || !(1..=4).contains(&(sampling & 15)) {
                return flawed("a channel has an impossible size");
            }
            let (horizontal, vertical) = (factor(sampling >> 4), factor(sampling & 15));
            let (columns, rows) = (units.0 * horizontal, units.1 * vertical);
            let coded = if progressive { vec![0; columns * rows] } else { Vec::new() };
            let table = usize::from(table).min(3);
            self.components.push(Component { id, horizontal, vertical, table, columns, rows, coded, seen: false });
        }
        Ok(())
    }

    fn scan(&mut self, segment: &[u8]) -> Result<Scan, Stop> {
        let Some((&count, rest)) = segment.split_first() else { return flawed("a scan is cut off") };
        let count = usize::from(count);
        let Some((parts, &[from, to, bits])) = rest
            .split_at_checked(2 * count)
            .map(|(parts, rest)| (parts, rest.first_chunk::<3>().unwrap_or(&[0, 255, 0])))
        else {
            return flawed("a scan is cut off");
        };
        let mut components = Vec::new();
        for &[id, tables] in parts.as_chunks::<2>().0 {
            let Some(component) = self.components.iter().position(|component| component.id == id) else {
                return flawed("a scan is of a channel that is not there");
            };
            components.push((component, usize::from(tables >> 4).min(3), usize::from(tables & 15).min(3)));
        }
        let (from, to) = if self.progressive { (usize::from(from), usize::from(to)) } else { (0, 63) };
        let (high, low) = if self.progressive { (bits >> 4, bits & 15) } else { (0, 0) };
        if components.is_empty() || to > 63 || from > to || (from == 0) != (to == 0) && self.progressive || low > 13 {
            return flawed("a scan has impossible limits");
        }
        Ok(Scan { components, from, to, high })
    }

    /// Reads the coded data of a scan.
    fn coded(&mut self, scan: &Scan) -> Result<(), Stop> {
        let Self { components, direct, alternating, divisors, .. } = self;
        let mut bits = Bits { bytes: self.bytes, at: self.at, held: 0, count: 0 };
        let (units_across, units_down, single) = match scan.components[..] {
            [(only, ..)] => {
                let across = components.iter().map(|c| c.horizontal).max().unwrap_or(1);
                let down = components.iter().map(|c| c.vertical).max().unwrap_or(1);
                let component = &components[only];
                let width = (self.width * component.horizontal).div_ceil(across);
                let height = (self.height * component.vertical).div_ceil(down);
                (width.div_ceil(8), height.div_ceil(8), true)
            }
            _ => {
                let first = &components[scan.components[0].0];
                (first.columns / first.horizontal, first.rows / first.vertical, false)
            }
        };
        let mut predicted = [0i32; 4];
        let mut passed = Passed::default();
        let (mut since, mut expected) = (0, 0u8);
        for unit in 0..units_across * units_down {
            if self.restart > 0 && since == self.restart {
                bits.restart(expected)?;
                expected = (expected + 1) & 7;
                (since, passed, predicted) = (0, Passed::default(), [0; 4]);
            }
            since += 1;
            let (unit_row, unit_column) = (unit / units_across, unit % units_across);
            for (channel, &(component, dc, ac)) in scan.components.iter().enumerate() {
                let component = &mut components[component];
                let (wide, tall) = if single { (1, 1) } else { (component.horizontal, component.vertical) };
                for block in 0..wide * tall {
                    self.blocks += 1;
                    if self.blocks > MOST_BLOCKS {
                        return Err(Stop::NotJudged);
                    }
                    if self.progressive {
                        let (row, column) = (unit_row * tall + block / wide, unit_column * wide + block % wide);
                        let coded = &mut component.coded[row * component.columns + column];
                        pass(&mut bits, scan, direct[dc].as_ref(), alternating[ac].as_ref(), coded, &mut passed)?;
                    } else {
                        let (Some(dc), Some(ac)) = (&direct[dc], &alternating[ac]) else {
                            return flawed("a code table is missing");
                        };
                        let value = &mut predicted[channel.min(3)];
                        *value = value.wrapping_add(bits.difference(dc)?);
                        whole_block(&mut bits, ac, *value, &divisors[component.table])?;
                    }
                }
            }
        }
        for &(component, ..) in &scan.components {
            components[component].seen |= scan.from == 0;
        }
        if passed.run > 0 {
            return flawed("it goes on after the last block");
        }
        self.at = bits.end()?;
        Ok(())
    }
}

/// The rest of a block that is coded in one pass, whose first coefficient is known.
fn whole_block(bits: &mut Bits<'_>, codes: &Codes, first: i32, divisors: &[u16; 64]) -> Result<(), Stop> {
    let square = |value: i32, at: usize| (i64::from(value) * i64::from(divisors[at])).pow(2);
    let mut energy = square(first, 0);
    let mut alike = Alike::default();
    let mut at = 1;
    while at < 64 {
        let symbol = bits.symbol(codes)?;
        let (zeros, size) = (usize::from(symbol >> 4), symbol & 15);
        match (zeros, size) {
            (15, 0) => at += 16,
            (_, 0) => break,
            _ => {
                at += zeros;
                let value = bits.signed(size)?;
                if at > 63 {
                    return flawed("a block has more than 64 coefficients");
                }
                energy = energy.saturating_add(square(value, at));
                alike.add(value);
                at += 1;
            }
        }
    }
    // The transform keeps lengths: 64 values of at most 128 have one of at most 1024. Rounding adds to it, encoders that sharpen
    // edges a little more.
    const MOST: i64 = 1_400;
    match () {
        () if alike.all(63) => flawed("zeros or ones stand where an image should be"),
        () if at > 64 => flawed("a block has more than 64 coefficients"),
        () if energy > MOST * MOST && energy > most_energy(divisors) => {
            flawed("a block is brighter than white or darker than black")
        }
        () => Ok(()),
    }
}

/// Whether coefficients are all alike, as no picture's are: stretches of zero bytes decode to such blocks.
#[derive(Default)]
struct Alike {
    value: i32,
    count: usize,
}

impl Alike {
    #[inline]
    fn add(&mut self, value: i32) {
        if value != self.value {
            (self.value, self.count) = (value, 0);
        }
        self.count += 1;
    }

    fn all(&self, wanted: usize) -> bool {
        self.count == wanted
    }
}

/// The square of the length that a block can have after rounding by these divisors.
fn most_energy(divisors: &[u16; 64]) -> i64 {
    let rounding = divisors.iter().map(|&divisor| f64::from(divisor).powi(2)).sum::<f64>().sqrt();
    (1_200.0 + rounding).powi(2) as i64
}

/// What blocks of a pass leave to those after them.
#[derive(Default)]
struct Passed {
    /// Blocks to come that have no coefficients of their own.
    run: u32,
    /// Blocks in a row whose coefficients are all alike.
    monotonous: u32,
}

/// One pass over a block of a progressive image.
fn pass(
    bits: &mut Bits<'_>,
    scan: &Scan,
    direct: Option<&Codes>,
    alternating: Option<&Codes>,
    coded: &mut u64,
    Passed { run, monotonous }: &mut Passed,
) -> Result<(), Stop> {
    let missing = || Stop::Flaw("a code table is missing".into());
    if scan.from == 0 {
        if scan.high == 0 {
            bits.difference(direct.ok_or_else(missing)?)?;
        } else {
            bits.take(1)?;
        }
        return Ok(());
    }
    // A refinement has a bit for every coefficient that is coded already.
    let refine = |bits: &mut Bits<'_>, coded: u64, at: usize| {
        let known = scan.high > 0 && coded >> at & 1 == 1;
        if known { bits.take(1).map(|_| true) } else { Ok(false) }
    };
    let mut at = scan.from;
    let mut alike = Alike::default();
    if *run == 0 {
        let codes = alternating.ok_or_else(missing)?;
        while at <= scan.to {
            let symbol = bits.symbol(codes)?;
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if size == 0 && zeros < 15 {
                *run = (1 << zeros) + bits.take(zeros)?;
                break;
            }
            if scan.high > 0 && size > 1 {
                return flawed("a code has no meaning in a refining pass");
            }
            alike.add(bits.signed(size)?);
            let mut left = zeros;
            loop {
                if at > scan.to {
                    return flawed("a block has more coefficients than its pass");
                }
                if !refine(bits, *coded, at)? {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                }
                at += 1;
            }
            if size > 0 {
                *coded |= 1 << at;
            }
            at += 1;
        }
        if alike.all(scan.to + 1 - scan.from) && alike.count >= 5 && scan.high == 0 {
            *monotonous += 1;
            if *monotonous >= 4 {
                return flawed("zeros or ones stand where an image should be");
            }
        } else {
            *monotonous = 0;
        }
        if *run == 0 {
            return Ok(());
        }
    }
    while at <= scan.to {
        refine(bits, *coded, at)?;
        at += 1;
    }
    *run -= 1;
    Ok(())
}

impl Codes {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Stop> {
        let mut codes =
            Self { short: [(0, 0); 256], first: [0; 17], last: [-1; 17], place: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut place) = (0i32, 0i32);
        for (length, &count) in (1..).zip(counts) {
            let count = i32::from(count);
            if code + count > 1 << length {
                return flawed("a code table has more codes than there can be");
            }
            (codes.first[length], codes.place[length], codes.last[length]) = (code, place, code + count - 1);
            if length <= 8 {
                for number in 0..count {
                    let start = ((code + number) << (8 - length)) as usize;
                    let symbol = symbols[(place + number) as usize];
                    codes.short[start..start + (1 << (8 - length))].fill((symbol, length as u8));
                }
            }
            code = (code + count) << 1;
            place += count;
        }
        Ok(codes)
    }
}

/// Bits of coded data, up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u8,
}

impl Bits<'_> {
    /// Has at least 16 bits held, as far as there are such.
    #[inline]
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match self.bytes.get(self.at) {
                Some(0xff) if self.bytes.get(self.at + 1) == Some(&0) => {
                    self.at += 2;
                    0xff
                }
                Some(&byte) if byte != 0xff => {
                    self.at += 1;
                    byte
                }
                _ => return,
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    #[inline]
    fn take(&mut self, count: u8) -> Result<u32, Stop> {
        if self.count < count {
            self.fill();
            if self.count < count {
                return flawed("it ends before the last block");
            }
        }
        self.count -= count;
        Ok((self.held >> self.count) as u32 & ((1u32 << count) - 1))
    }

    #[inline]
    fn symbol(&mut self, codes: &Codes) -> Result<u8, Stop> {
        if self.count < 16 {
            self.fill();
        }
        if self.count >= 8 {
            let (symbol, length) = codes.short[(self.held >> (self.count - 8)) as usize & 255];
            if length > 0 {
                self.count -= length;
                return Ok(symbol);
            }
        }
        let mut code = 0i32;
        for length in 1..=16 {
            code = code << 1 | self.take(1)? as i32;
            if code <= codes.last[length] {
                let place = codes.place[length] + code - codes.first[length];
                return codes
                    .symbols
                    .get(place as usize)
                    .copied()
                    .ok_or_else(|| Stop::Flaw("a code is unknown".into()));
            }
        }
        flawed("a code is unknown")
    }

    /// A difference of first coefficients.
    fn difference(&mut self, codes: &Codes) -> Result<i32, Stop> {
        let size = self.symbol(codes)?;
        if size > 11 {
            return flawed("two blocks differ by more than they can");
        }
        self.signed(size)
    }

    /// A number of so many bits, whose first says whether it is positive.
    #[inline]
    fn signed(&mut self, size: u8) -> Result<i32, Stop> {
        let value = self.take(size)? as i32;
        let negative = size > 0 && value < 1 << (size - 1);
        Ok(if negative { value - (1 << size) + 1 } else { value })
    }

    /// Steps over the restart marker that must come now.
    fn restart(&mut self, expected: u8) -> Result<(), Stop> {
        self.at = self.end()?;
        while self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xff]) {
            self.at += 1;
        }
        if self.bytes.get(self.at..self.at + 2) != Some(&[0xff, 0xd0 + expected]) {
            return flawed("a restart marker is missing");
        }
        self.at += 2;
        Ok(())
    }

    /// Where the coded data ends: within the byte that was read last.
    fn end(&mut self) -> Result<usize, Stop> {
        self.fill();
        // A byte of padding beyond the last is borne: some encoders flush one too many.
        if self.count >= 16 {
            return flawed("it goes on after the last block");
        }
        (self.held, self.count) = (0, 0);
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    /// JPEG files of a picture with noise: baseline as `image` writes it.
    fn jpeg(side: u32, quality: u8) -> Vec<u8> {
        let mut random = Random::new(3, Purpose::Test, side.into(), quality.into());
        let image = image::RgbImage::from_fn(side, side, |x, y| {
            let noise = random.below(40) as u8;
            image::Rgb([(x * 200 / side) as u8 + noise, (y * 200 / side) as u8 + noise, 90 + noise])
        });
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&image).unwrap();
        bytes
    }

    #[test]
    fn good_files_are_good() {
        for side in [1, 7, 8, 17, 64, 100] {
            for quality in [10, 75, 100] {
                assert_eq!(flaw(&jpeg(side, quality)), None, "{side} {quality}");
            }
        }
    }

    #[test]
    fn cut_and_overwritten_data_is_noticed() {
        let bytes = jpeg(100, 80);
        let start = bytes.windows(2).position(|two| two == [0xff, 0xda]).unwrap() + 14;
        let end = bytes.len() - 2;
        for share in 1..10 {
            let at = start + (end - start) * share / 10;
            let mut shortened = bytes[..at].to_vec();
            shortened.extend([0xff, 0xd9]);
            assert!(flaw(&shortened).is_some(), "cut at {share}");
            let mut zeroed = bytes.clone();
            zeroed[at.min(end - 80)..][..64].fill(0);
            assert!(flaw(&zeroed).is_some(), "zeros at {share}");
        }
    }

    #[test]
    fn most_single_wrong_bits_are_noticed_and_none_is_fatal() {
        let bytes = jpeg(64, 75);
        let start = bytes.windows(2).position(|two| two == [0xff, 0xda]).unwrap() + 14;
        let mut random = Random::new(4, Purpose::Test, 0, 0);
        let mut noticed = 0;
        for _ in 0..400 {
            let mut bytes = bytes.clone();
            let at = start + random.below((bytes.len() - start - 2) as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            noticed += usize::from(flaw(&bytes).is_some());
        }
        assert!(noticed > 60, "{noticed} of 400");
        for _ in 0..500 {
            let mut bytes = bytes.clone();
            for _ in 0..3 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next_u64() as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            let _ = flaw(&bytes);
        }
    }
}
