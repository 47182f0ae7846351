//! Every image format and colour kind, and what becomes of it.

use image::{DynamicImage, ImageFormat, Luma, LumaA, Rgb, Rgba};
use ocellus::data::{Filter, Limits, Preprocessing, Resize};

use super::{encode, raw_png, zlib};

/// A 4 x 4 image of one pixel value.
macro_rules! flat {
    ($pixel:expr) => {
        DynamicImage::from(image::ImageBuffer::from_pixel(4, 4, $pixel))
    };
}

fn prepare(preprocessing: &Preprocessing, bytes: &[u8]) -> Vec<u8> {
    let mut pixels = vec![0; preprocessing.image_len()];
    preprocessing.prepare_bytes(bytes, &Limits::default(), &mut pixels).unwrap();
    pixels
}

fn to(size: [usize; 2], channels: usize) -> Preprocessing {
    Preprocessing { image_size: size, channels, ..Preprocessing::default() }
}

#[test]
fn every_kind_of_pixel_becomes_grey_and_rgb() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let palette = |transparency: &[u8]| {
        // Two colours, two bits a pixel; rows of one filter byte and one byte of four pixels: 0 1 0 1.
        let rows = zlib(&[[0u8, 0b00_01_00_01]; 4].concat());
        let mut chunks: Vec<(&[u8; 4], &[u8])> = vec![(b"PLTE", &[200, 100, 50, 200, 100, 50])];
        if !transparency.is_empty() {
            chunks.push((b"tRNS", transparency));
        }
        chunks.push((b"IDAT", &rows));
        raw_png(4, 4, 2, 3, &chunks)
    };
    let bits = raw_png(4, 4, 1, 0, &[(b"IDAT", &zlib(&[[0u8, 0xff]; 4].concat()))]);
    // Luma of (200, 100, 50) is 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
    let orange = [200, 100, 50];
    for (name, bytes, rgb, grey, tolerance) in [
        ("grey", encode(&flat!(Luma([77u8])), Png), [77; 3], 77, 0),
        ("1-bit grey", bits, [255; 3], 255, 0),
        ("16-bit grey", encode(&flat!(Luma([0x8000u16])), Png), [128; 3], 128, 0),
        ("grey, half transparent on white", encode(&flat!(LumaA([55u8, 128])), Png), [155; 3], 155, 0),
        ("rgb", encode(&flat!(Rgb(orange)), Png), orange, 124, 0),
        ("16-bit rgb", encode(&flat!(Rgb([200 * 257u16, 100 * 257, 50 * 257])), Png), orange, 124, 0),
        ("opaque", encode(&flat!(Rgba([200u8, 100, 50, 255])), Png), orange, 124, 0),
        ("transparent on white", encode(&flat!(Rgba([200u8, 100, 50, 0])), Png), [255; 3], 255, 0),
        ("16-bit transparent", encode(&flat!(Rgba([0u16, 0, 0, 0])), Png), [255; 3], 255, 0),
        ("palette", palette(&[]), orange, 124, 0),
        ("palette, transparent", palette(&[0, 0]), [255; 3], 255, 0),
        ("jpeg", encode(&flat!(Rgb(orange)), Jpeg), orange, 124, 2),
        ("grey jpeg", encode(&flat!(Luma([77u8])), Jpeg), [77; 3], 77, 1),
        ("webp", encode(&flat!(Rgb(orange)), WebP), orange, 124, 0),
        ("webp with alpha", encode(&flat!(Rgba([200u8, 100, 50, 0])), WebP), [255; 3], 255, 0),
        ("gif", encode(&flat!(Rgba([200u8, 100, 50, 255])), Gif), orange, 124, 2),
        ("bmp", encode(&flat!(Rgb(orange)), Bmp), orange, 124, 0),
        ("tiff", encode(&flat!(Rgb(orange)), Tiff), orange, 124, 0),
        ("16-bit grey tiff", encode(&flat!(Luma([0x8000u16])), Tiff), [128; 3], 128, 0),
        ("float tiff", encode(&flat!(Rgb([0.5f32, 0.5, 0.5])), Tiff), [128; 3], 128, 0),
    ] {
        let near = |got: u8, expected: u8| got.abs_diff(expected) <= tolerance;
        for size in [[4, 4], [3, 5]] {
            let got = prepare(&to(size, 3), &bytes);
            assert!(got.chunks(3).all(|p| p.iter().zip(rgb).all(|(&g, e)| near(g, e))), "{name} as RGB: {got:?}");
            let got = prepare(&to(size, 1), &bytes);
            assert!(got.iter().all(|&g| near(g, grey)), "{name} as grey: {got:?}");
        }
    }
}

#[test]
fn the_background_is_the_recorded_one() {
    let half = encode(&flat!(Rgba([200u8, 100, 50, 128])), ImageFormat::Png);
    let on_blue = Preprocessing { background: [0, 0, 255], ..to([4, 4], 3) };
    assert_eq!(prepare(&on_blue, &half)[..3], [100, 50, 152]);
    let grey = encode(&flat!(LumaA([0u8, 0])), ImageFormat::Png);
    assert_eq!(prepare(&on_blue, &grey)[..3], [0, 0, 255]);
    assert_eq!(prepare(&Preprocessing { background: [0, 0, 255], ..to([4, 4], 1) }, &grey)[0], 29);
}

#[test]
fn an_animation_is_its_first_frame() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for value in [10u8, 200] {
        let frame = image::RgbaImage::from_pixel(4, 4, Rgba([value, value, value, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    assert_eq!(prepare(&to([4, 4], 1), &bytes), [10; 16]);
}

#[test]
fn exif_orientation_is_applied() {
    // Left to right, top to bottom: dark, light / mid, black, in blocks of 16 pixels, 48 wide: the right third is white.
    let values = [[60u8, 200, 255], [120, 0, 255]];
    let upright = |x: u32, y: u32| Luma([values[(y / 16) as usize][(x / 16) as usize]]);
    let image = image::GrayImage::from_fn(48, 32, upright);
    let jpeg = encode(&image.into(), ImageFormat::Jpeg);
    // What a viewer shows for each orientation, one value per block.
    let expected: [&[&[u8]]; 8] = [
        &[&[60, 200, 255], &[120, 0, 255]],
        &[&[255, 200, 60], &[255, 0, 120]],
        &[&[255, 0, 120], &[255, 200, 60]],
        &[&[120, 0, 255], &[60, 200, 255]],
        &[&[60, 120], &[200, 0], &[255, 255]],
        &[&[120, 60], &[0, 200], &[255, 255]],
        &[&[255, 255], &[0, 200], &[120, 60]],
        &[&[255, 255], &[200, 0], &[60, 120]],
    ];
    for (orientation, blocks) in (1u8..).zip(expected) {
        // APP1 with a TIFF header and one entry: tag 0x0112, type short, count 1, value.
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend((exif.len() as u16 + 2).to_be_bytes());
        bytes.extend(&exif);
        bytes.extend(&jpeg[2..]);

        let [height, width] = [blocks.len() * 16, blocks[0].len() * 16];
        let got = prepare(&to([height, width], 1), &bytes);
        for (row, values) in blocks.iter().enumerate() {
            for (column, &value) in values.iter().enumerate() {
                let pixel = got[(row * 16 + 8) * width + column * 16 + 8];
                assert!(
                    pixel.abs_diff(value) <= 3,
                    "orientation {orientation}, block {row} {column}: {pixel}, not {value}"
                );
            }
        }
    }
}

/// Resizing along one axis by a widened kernel, in f64: the definition.
fn resample(line: &[f64], length: usize, kernel: &dyn Fn(f64) -> f64, support: f64) -> Vec<f64> {
    let scale = line.len() as f64 / length as f64;
    let widen = scale.max(1.0);
    (0..length)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let weighted = line.iter().enumerate().map(|(j, &value)| {
                let distance = (j as f64 + 0.5 - center) / widen;
                let weight = if distance.abs() < support { kernel(distance) } else { 0.0 };
                (weight, weight * value)
            });
            let (weights, sum) = weighted.fold((0.0, 0.0), |(a, b), (w, v)| (a + w, b + v));
            sum / weights
        })
        .collect()
}

#[test]
fn resizing_is_the_defined_convolution() {
    // Values from 64 to 190: passes are rounded to bytes, so what overshoots in between would be lost.
    let [height, width] = [23usize, 37];
    let image: Vec<u8> = (0..height * width).map(|i| 64 + ((i * i * 7 + i * 13) % 127) as u8).collect();
    let triangle = |x: f64| 1.0 - x.abs();
    let catmull_rom = |x: f64| {
        let x = x.abs();
        if x < 1.0 { 1.5 * x.powi(3) - 2.5 * x * x + 1.0 } else { -0.5 * x.powi(3) + 2.5 * x * x - 4.0 * x + 2.0 }
    };
    type Kernel<'a> = &'a dyn Fn(f64) -> f64;
    let cases: [(Filter, Kernel, f64); 2] =
        [(Filter::Bilinear, &triangle, 1.0), (Filter::CatmullRom, &catmull_rom, 2.0)];
    for (filter, kernel, support) in cases {
        for size @ [to_height, to_width] in [[23, 10], [9, 37], [8, 8], [50, 60], [1, 1]] {
            let rows: Vec<Vec<f64>> = image
                .chunks(width)
                .map(|row| resample(&row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), to_width, kernel, support))
                .collect();
            let columns: Vec<Vec<f64>> = (0..to_width)
                .map(|x| resample(&rows.iter().map(|row| row[x]).collect::<Vec<_>>(), to_height, kernel, support))
                .collect();
            let preprocessing = Preprocessing { filter, ..to(size, 1) };
            let mut got = vec![0; preprocessing.image_len()];
            preprocessing.prepare_pixels(&image, [height, width, 1], &mut got).unwrap();
            for (i, &pixel) in got.iter().enumerate() {
                let expected = columns[i % to_width][i / to_width].clamp(0.0, 255.0);
                assert!(
                    (f64::from(pixel) - expected).abs() <= 2.0,
                    "{filter:?} to {size:?}, {i}: {pixel}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn overshoot_is_cut_off_between_the_passes_as_pillow_does() {
    let image: Vec<u8> = (0..12 * 12).map(|i| ((i * i * 7 + i * 13) % 127 / 64 * 255) as u8).collect();
    // PIL.Image.fromarray(image).resize((6, 5), BICUBIC); down before across differs by up to 8.
    let pillow = [
        [45, 146, 183, 181, 34, 186],
        [56, 157, 92, 107, 88, 89],
        [99, 69, 135, 111, 169, 40],
        [189, 25, 160, 204, 131, 85],
        [173, 47, 80, 155, 80, 182],
    ];
    let preprocessing = Preprocessing { filter: Filter::CatmullRom, ..to([5, 6], 1) };
    let mut got = vec![0u8; 30];
    preprocessing.prepare_pixels(&image, [12, 12, 1], &mut got).unwrap();
    assert!(got.iter().zip(pillow.as_flattened()).all(|(a, &b)| a.abs_diff(b) <= 1), "{got:?}");
}

#[test]
fn a_very_tall_image_needs_little_memory() {
    let preprocessing = to([2, 16384], 1);
    let mut got = vec![0u8; 2 * 16384];
    // Across first would take 64 GB.
    preprocessing.prepare_pixels(&vec![7; 4_000_000], [4_000_000, 1, 1], &mut got).unwrap();
    assert!(got.iter().all(|&pixel| pixel == 7));
}

#[test]
fn center_crop_keeps_the_middle_and_stretch_the_whole() {
    // Three squares side by side.
    let image: Vec<u8> = (0..8 * 24).map(|i| [10, 100, 200][i % 24 / 8]).collect();
    let run = |resize| {
        let preprocessing = Preprocessing { resize, ..to([6, 6], 1) };
        let mut pixels = vec![0; 36];
        preprocessing.prepare_pixels(&image, [8, 24, 1], &mut pixels).unwrap();
        pixels
    };
    let cropped = run(Resize::CenterCrop);
    assert!(cropped.chunks(6).all(|row| row[1..5] == [100; 4] && row[0] >= 70 && row[5] <= 130), "{cropped:?}");
    let stretched = run(Resize::Stretch);
    assert!(stretched[0] < 30 && stretched[5] > 180, "{stretched:?}");
}

#[test]
fn preprocessing_keeps_through_json_and_defaults_fill_old_records() {
    let custom = Preprocessing {
        resize: Resize::CenterCrop,
        filter: Filter::CatmullRom,
        background: [1, 2, 3],
        scale: 1.0 / 128.0,
        offset: -0.992_187_5,
        ..to([224, 200], 3)
    };
    let json = serde_json::to_string(&custom).unwrap();
    assert_eq!(serde_json::from_str::<Preprocessing>(&json).unwrap(), custom);
    let short: Preprocessing = serde_json::from_str(r#"{"image_size": [28, 28], "channels": 1}"#).unwrap();
    assert_eq!(short, Preprocessing::default());
    for bad in [to([0, 5], 1), to([5, 100_000], 1), to([5, 5], 2), to([5, 5], 0)] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    let mut values = [0.0; 2];
    custom.scale_pixels(&[0, 127], &mut values);
    assert_eq!(values, [-0.992_187_5, 0.0]);
}
