//! From the bytes of an image file to 8-bit pixels the right way up. The format is known by content, never by name.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::{ImageProblem, Limits};

/// 8-bit pixels, `[height, width, channels]`.
pub(crate) struct Pixels {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub(crate) channels: usize,
    pub(crate) data: Vec<u8>,
}

/// What the header of an image file says.
pub(super) struct Header {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) grey: bool,
}

/// Formats that are understood, with the names that files of them have.
const FORMATS: [(ImageFormat, &[&str]); 6] = [
    (ImageFormat::Png, &["png", "apng"]),
    (ImageFormat::Jpeg, &["jpg", "jpeg", "jpe", "jfif"]),
    (ImageFormat::WebP, &["webp"]),
    (ImageFormat::Gif, &["gif"]),
    (ImageFormat::Bmp, &["bmp", "dib"]),
    (ImageFormat::Tiff, &["tif", "tiff"]),
];

/// Whether a file of this name claims to be an image.
pub(super) fn has_image_extension(path: &std::path::Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|extension| {
        FORMATS.iter().any(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(extension)))
    })
}

/// Size and kind of an image, orientation taken into account, without decoding it.
pub(super) fn header(bytes: &[u8], limits: &Limits) -> Result<Header, ImageProblem> {
    guarded(|| {
        let mut decoder = decoder(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        let turned = decoder.orientation().is_ok_and(|orientation| (5..=8).contains(&orientation.to_exif()));
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let grey = !decoder.color_type().has_color();
        Ok(Header { height: height as usize, width: width as usize, grey })
    })
}

/// How an image file holds its image.
pub(crate) struct Details {
    pub(crate) format: ImageFormat,
    /// As it is stored, before anything is converted.
    pub(crate) colour: ExtendedColorType,
    /// EXIF's number, 1 for an image that lies as it is shown.
    pub(crate) orientation: u8,
}

/// What the header of an image file says, without decoding it.
pub(crate) fn details(bytes: &[u8], limits: &Limits) -> Result<Details, ImageProblem> {
    guarded(|| {
        let format = image::guess_format(bytes).map_err(problem);
        let mut decoder = decoder(bytes, limits)?;
        let colour = decoder.original_color_type();
        let orientation = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
        Ok(Details { format: format?, colour, orientation })
    })
}

/// The format that a file's name claims it has.
pub(crate) fn format_of_name(path: &std::path::Path) -> Option<ImageFormat> {
    let extension = path.extension()?.to_str()?;
    let named = |(_, names): &&(_, &[&str])| names.iter().any(|name| name.eq_ignore_ascii_case(extension));
    FORMATS.iter().find(named).map(|(format, _)| *format)
}

/// Decode the first frame, turn it as its EXIF orientation says, and reduce its samples to 8 bits.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, ImageProblem> {
    let decoded = guarded(|| {
        let mut decoder = decoder(bytes, limits)?;
        let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(problem)?;
        image.apply_orientation(orientation);
        let (height, width) = (image.height() as usize, image.width() as usize);
        let (channels, data) = match image.color() {
            image::ColorType::L8 | image::ColorType::L16 => (1, image.into_luma8().into_raw()),
            image::ColorType::La8 | image::ColorType::La16 => (2, image.into_luma_alpha8().into_raw()),
            color if color.has_alpha() => (4, image.into_rgba8().into_raw()),
            _ => (3, image.into_rgb8().into_raw()),
        };
        Ok(Pixels { height, width, channels, data })
    });
    match decoded {
        // The decoder fills what is missing with grey and is content, or takes offence at something else.
        Ok(_) | Err(ImageProblem::Damaged(_)) if bytes.starts_with(&[0xff, 0xd8]) && !jpeg_is_complete(bytes) => {
            Err(ImageProblem::Truncated)
        }
        decoded => decoded,
    }
}

/// A decoder that has read the header and found it within limits.
fn decoder<'a>(bytes: &'a [u8], limits: &Limits) -> Result<impl ImageDecoder + 'a, ImageProblem> {
    if bytes.is_empty() {
        return Err(ImageProblem::Empty);
    }
    let unrecognised = || ImageProblem::Unrecognised { found: describe(bytes) };
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| unrecognised())?;
    if !reader.format().is_some_and(|format| FORMATS.iter().any(|(known, _)| *known == format)) {
        return Err(unrecognised());
    }
    let mut allowed = image::Limits::no_limits();
    // Four 16-bit samples per pixel, and room for what a decoder needs beside.
    allowed.max_alloc = Some(limits.pixels.saturating_mul(8).saturating_add(1 << 26));
    reader.limits(allowed);
    let decoder = reader.into_decoder().map_err(problem)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(ImageProblem::TooLarge { width, height, limit: limits.pixels });
    }
    if width == 0 || height == 0 {
        return Err(ImageProblem::Damaged(format!("its size is {width} x {height}")));
    }
    Ok(decoder)
}

/// Decoders are other people's code fed with strangers' files: should one panic, the image counts as damaged.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ImageProblem>) -> Result<T, ImageProblem> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ImageProblem::Damaged("the decoder gave up on it".into())))
}

fn problem(error: ImageError) -> ImageProblem {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => ImageProblem::Truncated,
        ImageError::Limits(_) => ImageProblem::Damaged("it needs more memory than an image may take".into()),
        other => ImageProblem::Damaged(other.to_string()),
    }
}

/// Whether a JPEG file goes on to its end-of-image marker. Segments are stepped over, since a thumbnail in one has an end too.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else {
            return false;
        };
        at += skip + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // Not a marker but a data byte 0xff, a marker without a segment, or padding before a marker.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) => at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
}

/// What a file that is no image seems to be, with what to do about it where there is something.
fn describe(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(512)];
    let brand = start.get(4..12).unwrap_or_default();
    let text = std::str::from_utf8(start).map_or_else(|e| e.valid_up_to() + 4 > start.len(), |_| true);
    let lower = String::from_utf8_lossy(start).to_ascii_lowercase();
    let lower = lower.trim_start_matches('\u{feff}').trim_start();
    match () {
        () if bytes.iter().take(4096).all(|&byte| byte == 0) => "nothing but zero bytes; fetch or copy it again".into(),
        () if brand.starts_with(b"ftyphei") || brand == b"ftypmif1" || brand == b"ftypmsf1" => {
            "HEIC, which is not supported; convert it to JPEG".into()
        }
        () if brand.starts_with(b"ftypavi") => "AVIF, which is not supported; convert it to PNG or JPEG".into(),
        () if brand.starts_with(b"ftyp") => "a video".into(),
        () if start.starts_with(b"%PDF") => "a PDF document".into(),
        () if start.starts_with(b"PK\x03\x04") => "a zip archive; unpack it".into(),
        () if start.starts_with(&[0x1f, 0x8b]) => "gzip data; unpack it".into(),
        () if lower.starts_with("version https://git-lfs") => "a Git LFS pointer; run `git lfs pull`".into(),
        () if lower.starts_with("<!doctype html") || lower.starts_with("<html") => "a web page".into(),
        () if lower.starts_with("<svg") || (lower.starts_with("<?xml") && lower.contains("<svg")) => {
            "SVG, which is not supported; convert it to PNG".into()
        }
        () if text && !start.contains(&0) => "text".into(),
        () => match image::guess_format(start) {
            Ok(format) => format!("{format:?}, which is not supported; convert it to PNG"),
            Err(_) => "unknown data".into(),
        },
    }
}
