//! IDX, the format of MNIST: a magic number, the sizes, then bytes; plain or gzipped.
//!
//! ```text
//! 0  0  8  d      8: unsigned bytes; d: number of dimensions
//! size 1 … d      4 bytes each, most significant first
//! data            the last dimension runs fastest
//! ```
//! Images are `[count, height, width]` or `[count, height, width, channels]`, labels `[count]`.

use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::Path;

use flate2::read::GzDecoder;

use super::DataError;
use super::open::{MOST_SAMPLES, trusted};

/// What an IDX file holds.
pub(super) struct Idx {
    pub(super) sizes: Vec<usize>,
    pub(super) data: Vec<u8>,
}

/// Read the file at `path`, which must have one of the numbers of `dimensions`.
pub(super) fn read(path: &Path, dimensions: &[usize]) -> Result<Idx, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    parse(path, BufReader::with_capacity(1 << 16, file), length, dimensions)
}

/// Read from memory; `path` is for messages.
pub(super) fn from_bytes(path: &Path, bytes: &[u8], dimensions: &[usize]) -> Result<Idx, DataError> {
    parse(path, Cursor::new(bytes), bytes.len() as u64, dimensions)
}

fn parse(path: &Path, mut input: impl Read + Seek, length: u64, dimensions: &[usize]) -> Result<Idx, DataError> {
    if length == 0 {
        return Err(DataError::format(path, "the file is empty; fetch or copy it again"));
    }
    let mut magic = [0; 2];
    let gzipped = input.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    input.rewind().map_err(DataError::io(path))?;
    if gzipped {
        body(path, GzDecoder::new(input), trusted(length), None, dimensions)
    } else {
        body(path, input, length, Some(length), dimensions)
    }
}

/// `most` bytes can come from `input`, or exactly `exact` where known.
fn body(
    path: &Path,
    mut input: impl Read,
    most: u64,
    exact: Option<u64>,
    dimensions: &[usize],
) -> Result<Idx, DataError> {
    let wanted = dimensions.iter().map(|d| format!("00 00 08 {d:02x}")).collect::<Vec<_>>().join(" or ");
    let mut magic = [0; 4];
    read_exact(path, &mut input, &mut magic, || format!("expected IDX data, which begins with {wanted}"))?;
    let [0, 0, kind, count] = magic else {
        let [a, b, c, d] = magic;
        let problem =
            format!("not an IDX file: expected it to begin with {wanted}, got {a:02x} {b:02x} {c:02x} {d:02x}");
        return Err(DataError::format(path, problem));
    };
    if kind != 8 {
        let name = match kind {
            0x09 => "signed bytes",
            0x0b => "16-bit integers",
            0x0c => "32-bit integers",
            0x0d => "32-bit floats",
            0x0e => "64-bit floats",
            _ => "values of an unknown type",
        };
        return Err(DataError::format(
            path,
            format!("holds {name} (type {kind:#04x}), expected unsigned bytes (type 0x08)"),
        ));
    }
    if !dimensions.contains(&usize::from(count)) {
        let expected = dimensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let hint = if count == 1 { "; is it a file of labels?" } else { "" };
        return Err(DataError::format(path, format!("has {count} dimensions, expected {expected}{hint}")));
    }
    let mut sizes = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let mut size = [0; 4];
        read_exact(path, &mut input, &mut size, || "the file ends within its sizes".into())?;
        sizes.push(u32::from_be_bytes(size) as usize);
    }
    let stated = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let header = 4 + 4 * sizes.len() as u64;
    let shape = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
    let stated = match stated {
        Some(0) => return Err(DataError::format(path, format!("states sizes {shape}: it holds nothing"))),
        Some(stated) if stated <= most.saturating_sub(header) && usize::try_from(stated).is_ok() => stated,
        _ => {
            let held = exact.map_or_else(
                || "a packed file of its length is trusted with".into(),
                |e| format!("the {} bytes that follow", e - header.min(e)),
            );
            return Err(DataError::format(
                path,
                format!("states sizes {shape}, more than {held}; it is truncated or damaged"),
            ));
        }
    };
    // A label takes four times the memory of its byte.
    if sizes[0] > MOST_SAMPLES {
        return Err(DataError::format(path, format!("states sizes {shape}, more than {MOST_SAMPLES} samples")));
    }
    if let Some(exact) = exact
        && stated != exact - header
    {
        let problem =
            format!("states sizes {shape}, that is {stated} bytes, but {} follow; it is damaged", exact - header);
        return Err(DataError::format(path, problem));
    }
    let mut data = Vec::new();
    data.try_reserve_exact(stated as usize)
        .map_err(|_| DataError::format(path, format!("needs {stated} bytes of memory, which are not to be had")))?;
    let got = (&mut input).take(stated).read_to_end(&mut data).map_err(broken(path))?;
    if (got as u64) < stated {
        return Err(DataError::format(path, format!("ends after {got} of {stated} bytes; fetch or copy it again")));
    }
    // Reading on to the end has the checksum of gzip compared.
    if input.read(&mut [0]).map_err(broken(path))? != 0 {
        return Err(DataError::format(
            path,
            format!("goes on after the {stated} bytes that its sizes {shape} state; it is damaged"),
        ));
    }
    Ok(Idx { sizes, data })
}

fn read_exact(
    path: &Path,
    input: &mut impl Read,
    bytes: &mut [u8],
    expected: impl FnOnce() -> String,
) -> Result<(), DataError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => DataError::format(path, format!("the file is too short; {}", expected())),
        _ => broken(path)(error),
    })
}

/// An error while reading: of the disk, or of damaged gzip data.
fn broken(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + '_ {
    move |error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            DataError::format(path, format!("the gzip data is damaged or truncated ({error}); fetch or copy it again"))
        }
        _ => DataError::Io { path: path.to_owned(), source: error },
    }
}
