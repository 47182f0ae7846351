//! Pages of a column: found by their headers, unpacked and cut into values when asked for.

use std::io::Read;
use std::sync::Arc;

use super::snappy;
use super::thrift::{self, Thrift};
use crate::data::open::trusted;
use crate::data::positioned::Positioned;

/// Numbers of the types that values have.
const INT32: i64 = 1;
const INT64: i64 = 2;
pub(super) const BYTES: i64 = 6;

/// Numbers of encodings.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE_DICTIONARY: i64 = 8;

/// Bytes of an unpacked page at most, and of one that shrinks by more than photographs do.
const MAX_PAGE: u64 = 1 << 29;
const MAX_DENSE_PAGE: u64 = 1 << 26;
const MOST_EXPANSION: u64 = 20;
/// What finding a page counts for, beside its bytes.
const PAGE_COST: u64 = 1 << 12;
/// Bytes of a page's header at most; statistics make them long.
const MAX_HEADER: u64 = 1 << 20;

/// Bytes of the smallest image file.
const LEAST_IMAGE: u64 = 32;

/// A column's share of a row group.
pub(super) struct Chunk {
    start: u64,
    values: u64,
    codec: i64,
    optional: u32,
}

impl Chunk {
    pub(super) fn new(meta: &Thrift, optional: u32) -> Result<Self, String> {
        let number = |field| meta.get(field).number().and_then(|number| u64::try_from(number).ok());
        let (values, data) = number(5).zip(number(9)).ok_or("has a column that does not say where it is")?;
        let start = number(11).filter(|&dictionary| dictionary > 0 && dictionary < data).unwrap_or(data);
        let codec = meta.get(4).number().unwrap_or(-1);
        if !matches!(codec, 0..=2) {
            let name = ["", "", "", "LZO", "Brotli", "LZ4", "Zstandard", "LZ4"].get(codec as usize).unwrap_or(&"?");
            return Err(format!(
                "is packed with {name}; expected none, snappy or gzip: write it again with one of these"
            ));
        }
        Ok(Self { start, values, codec, optional })
    }
}

/// A page of values.
pub(super) struct Page {
    offset: u64,
    header: Header,
    codec: i64,
    optional: u32,
    dictionary: Option<Arc<Dictionary>>,
}

/// Where the values that a page's numbers mean are.
struct Dictionary {
    offset: u64,
    header: Header,
    codec: i64,
}

#[derive(Clone)]
struct Header {
    /// 0 values, 2 a dictionary, 3 values in the second version.
    kind: i64,
    packed: u64,
    unpacked: u64,
    values: u64,
    encoding: i64,
    /// Bytes of levels that are not packed, in the second version.
    levels: u64,
    is_packed: bool,
}

impl Header {
    /// The header at `offset`, and its length.
    fn read(file: &Positioned, offset: u64) -> Result<(Self, u64), String> {
        let left = file.length.saturating_sub(offset);
        let mut window = 256;
        loop {
            let mut bytes = vec![0; window.min(left) as usize];
            file.read_exact_at(&mut bytes, offset).map_err(|error| error.to_string())?;
            if let Some((header, length)) = thrift::parse(&bytes) {
                return Ok((Self::of(&header).ok_or("has a page with a damaged header")?, length as u64));
            }
            if window >= left || window >= MAX_HEADER {
                return Err("has a page with a damaged header".into());
            }
            window *= 16;
        }
    }

    fn of(header: &Thrift) -> Option<Self> {
        let kind = header.get(1).number()?;
        let positive = |value: &Thrift| value.number().and_then(|number| u64::try_from(number).ok());
        let (unpacked, packed) = (positive(header.get(2))?, positive(header.get(3))?);
        let (body, encoding) = match kind {
            0 => (header.get(5), 2),
            2 => (header.get(7), 2),
            3 => (header.get(8), 4),
            _ => (header.get(0), 0),
        };
        let levels = if kind == 3 { positive(body.get(5))?.checked_add(positive(body.get(6))?)? } else { 0 };
        Some(Self {
            kind,
            packed,
            unpacked,
            values: positive(body.get(1)).unwrap_or(0),
            encoding: body.get(encoding).number().unwrap_or(-1),
            levels,
            is_packed: body.get(7).number() != Some(0) || kind != 3,
        })
    }
}

/// Find the pages of a column's chunk; `rows` come before them. The number of rows is the result. `cost` is what all pages that were
/// found so far unpack to, each with its dictionary: many may be the same bytes of the file.
pub(super) fn index(
    file: &Positioned,
    chunk: &Chunk,
    rows: u64,
    pages: &mut Vec<(u64, Page)>,
    cost: &mut u64,
) -> Result<u64, String> {
    let (mut at, mut found) = (chunk.start, 0);
    let mut dictionary: Option<Arc<Dictionary>> = None;
    // What is stated must be possible before memory is set aside: no image has fewer bytes.
    if chunk.values.saturating_add(rows) > file.length / LEAST_IMAGE {
        return Err(format!("states more rows than its {} bytes can hold images", file.length));
    }
    while found < chunk.values {
        let (header, length) = Header::read(file, at)?;
        let offset = at + length;
        let end = offset.checked_add(header.packed).filter(|&end| end <= file.length);
        at = end.ok_or("has a page that goes beyond the file's end; it is truncated")?;
        if header.unpacked > MAX_PAGE.min(MAX_DENSE_PAGE.max(header.packed.saturating_mul(MOST_EXPANSION))) {
            return Err(format!("has a page that states {} unpacked bytes", header.unpacked));
        }
        let of_dictionary = dictionary.as_ref().map_or(0, |of| of.header.packed.max(of.header.unpacked));
        *cost = cost.saturating_add(length + header.packed.max(header.unpacked) + of_dictionary + PAGE_COST);
        if *cost > trusted(file.length) {
            return Err(format!("has pages that unpack to more than is trusted of its {} bytes", file.length));
        }
        let codec = chunk.codec;
        match header.kind {
            2 => {
                // No more of them than there are values.
                let header = Header { values: header.values.min(chunk.values), ..header };
                dictionary = Some(Arc::new(Dictionary { offset, header, codec }));
            }
            0 | 3 => {
                let count = header.values;
                if count > chunk.values - found {
                    return Err("has a page with more values than its column".into());
                }
                let dictionary = dictionary.clone();
                pages.push((rows + found, Page { offset, header, codec, optional: chunk.optional, dictionary }));
                found += count;
            }
            _ => {}
        }
    }
    Ok(found)
}

fn unpack(file: &Positioned, offset: u64, header: &Header, codec: i64) -> Result<Vec<u8>, String> {
    let damaged = || "has a page that is damaged".to_owned();
    let mut packed = vec![0; header.packed as usize];
    file.read_exact_at(&mut packed, offset).map_err(|error| error.to_string())?;
    if codec == 0 || !header.is_packed {
        return Ok(packed);
    }
    // Levels of the second version stand unpacked before the values.
    let levels = usize::try_from(header.levels).ok().filter(|&levels| levels <= packed.len()).ok_or_else(damaged)?;
    let length = (header.unpacked as usize).checked_sub(levels).ok_or_else(damaged)?;
    let values = if codec == 1 {
        snappy::unpack(&packed[levels..], length).ok_or_else(damaged)?
    } else {
        let mut values = Vec::new();
        let gzip = flate2::read::MultiGzDecoder::new(&packed[levels..]);
        gzip.take(length as u64 + 1).read_to_end(&mut values).map_err(|_| damaged())?;
        if values.len() == length { values } else { return Err(damaged()) }
    };
    if levels == 0 {
        return Ok(values);
    }
    packed.truncate(levels);
    packed.extend_from_slice(&values);
    Ok(packed)
}

/// The values of a page.
pub(super) struct Values {
    bytes: Vec<u8>,
    /// Of each row its value, where it has one: a place in `bytes`, or a number.
    rows: Vec<Option<(u32, u32)>>,
    kind: Encoded,
    dictionary: Option<Plain>,
}

#[derive(Clone, Copy, PartialEq)]
enum Encoded {
    Plain,
    Indices,
}

/// Values one after another.
struct Plain {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
}

impl Page {
    /// Unpack the page.
    pub(super) fn read(&self, file: &Positioned) -> Result<Values, String> {
        let damaged = || "has a page that is damaged".to_owned();
        let bytes = unpack(file, self.offset, &self.header, self.codec)?;
        let count = self.header.values as usize;
        let mut at = 0;
        let mut present: Option<Vec<u32>> = None;
        if self.header.kind == 3 {
            let levels = bytes.get(..self.header.levels as usize).ok_or_else(damaged)?;
            if self.optional > 0 {
                present = Some(hybrid(levels, width_of(self.optional), count).ok_or_else(damaged)?);
            }
            at = levels.len();
        } else if self.optional > 0 {
            let length =
                bytes.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
            let levels = bytes.get(4..).and_then(|rest| rest.get(..length)).ok_or_else(damaged)?;
            present = Some(hybrid(levels, width_of(self.optional), count).ok_or_else(damaged)?);
            at = 4 + length;
        }
        let is_present = |row: usize| present.as_ref().is_none_or(|levels| levels[row] == self.optional);
        let held = (0..count).filter(|&row| is_present(row)).count();
        let (kind, values, dictionary) = match self.header.encoding {
            PLAIN => (Encoded::Plain, None, None),
            PLAIN_DICTIONARY | RLE_DICTIONARY => {
                let dictionary = self.dictionary.as_ref().ok_or("has a page without its dictionary")?;
                let plain = unpack(file, dictionary.offset, &dictionary.header, dictionary.codec)?;
                let (&width, indices) = bytes.get(at..).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
                let indices = hybrid(indices, u32::from(width), held).ok_or_else(damaged)?;
                (Encoded::Indices, Some(indices), Some((plain, dictionary.header.values as usize)))
            }
            encoding => return Err(format!("has values in encoding {encoding}; expected plain or dictionary")),
        };
        let mut rows = Vec::with_capacity(count);
        let mut next = values.into_iter().flatten();
        for row in 0..count {
            // Plain values get their places when their kind is known.
            rows.push(is_present(row).then(|| (next.next().unwrap_or(0), 0)));
        }
        let dictionary =
            dictionary.map(|(bytes, count)| Plain { places: vec![(0, 0); count.min(bytes.len() / 4)], bytes });
        let mut values = Values { bytes, rows, kind, dictionary };
        values.place(at).ok_or_else(damaged)?;
        Ok(values)
    }
}

impl Values {
    /// Find values of variable length; those of numbers are found by their position.
    fn place(&mut self, start: usize) -> Option<()> {
        fn next(bytes: &[u8], at: &mut usize) -> Option<(u32, u32)> {
            let length = u32::from_le_bytes(*bytes.get(*at..)?.first_chunk::<4>()?);
            let place = (u32::try_from(*at + 4).ok()?, length);
            *at = (*at + 4).checked_add(length as usize).filter(|&end| end <= bytes.len())?;
            Some(place)
        }
        self.bytes.drain(..start.min(self.bytes.len()));
        if let Some(dictionary) = &mut self.dictionary {
            let mut at = 0;
            for place in &mut dictionary.places {
                // Numbers do not parse as bytes with lengths; they have places of their own.
                let Some(found) = next(&dictionary.bytes, &mut at) else { break };
                *place = found;
            }
            return Some(());
        }
        let mut at = 0;
        for row in self.rows.iter_mut().flatten() {
            let Some(found) = next(&self.bytes, &mut at) else { break };
            *row = found;
        }
        Some(())
    }

    /// How much memory they take.
    pub(super) fn size(&self) -> usize {
        let dictionary = self.dictionary.as_ref().map_or(0, |plain| plain.bytes.len() + size_of_val(&plain.places[..]));
        self.bytes.len() + size_of_val(&self.rows[..]) + dictionary
    }

    /// The bytes of a row.
    pub(super) fn bytes(&self, row: usize) -> Option<&[u8]> {
        let (at, length) = (*self.rows.get(row)?)?;
        let (bytes, (at, length)) = match (&self.kind, &self.dictionary) {
            (Encoded::Indices, Some(dictionary)) => (&dictionary.bytes, *dictionary.places.get(at as usize)?),
            _ => (&self.bytes, (at, length)),
        };
        bytes.get(at as usize..)?.get(..length as usize)
    }

    /// Tells `each` row as a text: numbers in digits. A value of the dictionary may be that of every row, so none is copied.
    pub(super) fn texts(&self, kind: i64, mut each: impl FnMut(Option<&str>)) -> Result<(), String> {
        let width = match kind {
            INT32 => 4,
            INT64 => 8,
            BYTES => {
                let text = |row| self.bytes(row).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim);
                (0..self.rows.len()).for_each(|row| each(text(row)));
                return Ok(());
            }
            _ => return Err("has labels that are neither whole numbers nor texts".into()),
        };
        let number = |bytes: &[u8], index: usize| {
            let bytes = bytes.get(index.checked_mul(width)?..)?.get(..width)?;
            let value = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            Some(if width == 4 { i64::from(value as u32 as i32) } else { value as i64 }.to_string())
        };
        let mut held = 0;
        let text = |row: &Option<(u32, u32)>| {
            let (index, _) = (*row)?;
            held += 1;
            match (&self.kind, &self.dictionary) {
                (Encoded::Indices, Some(dictionary)) => number(&dictionary.bytes, index as usize),
                _ => number(&self.bytes, held - 1),
            }
        };
        self.rows.iter().map(text).for_each(|text| each(text.as_deref()));
        Ok(())
    }
}

fn width_of(most: u32) -> u32 {
    u32::BITS - most.leading_zeros()
}

/// `count` numbers of `width` bits: runs of one number, and groups of eight packed ones.
fn hybrid(mut bytes: &[u8], width: u32, count: usize) -> Option<Vec<u32>> {
    if width > 32 {
        return None;
    }
    let mut values = Vec::with_capacity(count.min(1 << 20));
    while values.len() < count {
        let mut header = 0u64;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = bytes.split_first()?;
            bytes = rest;
            header |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let left = count - values.len();
        if header & 1 == 0 {
            let length = width.div_ceil(8) as usize;
            let (value, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            let value = value.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte)) as u32;
            let run = usize::try_from(header >> 1).ok()?.min(left);
            if run == 0 {
                return None;
            }
            values.extend(std::iter::repeat_n(value, run));
        } else {
            let groups = usize::try_from(header >> 1).ok()?;
            let length = groups.checked_mul(width as usize)?;
            // The last group may be cut short.
            let (packed, rest) = bytes.split_at(length.min(bytes.len()));
            bytes = rest;
            let available = if width == 0 { left } else { packed.len() * 8 / width as usize };
            let take = groups.checked_mul(8)?.min(left).min(available);
            if take == 0 {
                return None;
            }
            let mask = ((1u64 << width) - 1) as u32;
            for index in 0..take {
                let bit = index * width as usize;
                let word = packed[bit / 8..].iter().take(5).rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
                values.push((word >> (bit % 8)) as u32 & mask);
            }
        }
    }
    Some(values)
}
