//! What transforms do to small images, and that it depends on seed, epoch and sample alone.

use super::*;

/// 0, 1, 2 … for each pixel, channels ten apart.
fn image([height, width, channels]: [usize; 3]) -> Vec<u8> {
    (0..height * width).flat_map(|at| (0..channels).map(move |channel| (at + 10 * channel) as u8)).collect()
}

fn changed(shape: [usize; 3], change: impl Fn(&mut Canvas<'_>)) -> Vec<u8> {
    let mut pixels = image(shape);
    let mut spare = vec![0; pixels.len()];
    change(&mut Canvas { pixels: &mut pixels, spare: &mut spare, shape });
    pixels
}

fn at(epoch: u64, sample: u64) -> Occasion {
    Occasion { seed: 3, epoch, sample }
}

fn augmented(augment: &Augment, shape: [usize; 3], occasion: Occasion) -> Vec<u8> {
    let mut pixels = image(shape);
    augment.apply(&mut pixels, shape, &mut Vec::new(), occasion);
    pixels
}

#[test]
fn images_are_mirrored_and_moved() {
    assert_eq!(changed([2, 3, 1], |canvas| canvas.mirror()), [2, 1, 0, 5, 4, 3]);
    assert_eq!(changed([1, 2, 2], |canvas| canvas.mirror()), [1, 11, 0, 10]);
    assert_eq!(changed([3, 2, 1], |canvas| canvas.upend()), [4, 5, 2, 3, 0, 1]);
    for (edge, down, right, expected) in [
        (Edge::Zero, 1, 0, [0, 0, 0, 0, 1, 2]),
        (Edge::Zero, 0, -2, [2, 0, 0, 5, 0, 0]),
        (Edge::Reflect, 0, 2, [2, 1, 0, 5, 4, 3]),
        (Edge::Reflect, -1, 0, [3, 4, 5, 0, 1, 2]),
        (Edge::Repeat, 0, 1, [0, 0, 1, 3, 3, 4]),
        (Edge::Repeat, 5, -7, [2, 2, 2, 2, 2, 2]),
        (Edge::Zero, 5, 0, [0; 6]),
        (Edge::Reflect, 0, 4, [0, 1, 2, 3, 4, 5]),
    ] {
        assert_eq!(changed([2, 3, 1], |canvas| canvas.shift(down, right, edge)), expected, "{edge:?} {down} {right}");
    }
}

#[test]
fn alternating_flips_show_both_sides_in_two_epochs() {
    let augment = Augment::new().then(AlternatingFlip {});
    let (plain, shape) = (image([1, 3, 1]), [1, 3, 1]);
    let mut first = 0;
    for sample in 0..200 {
        let flipped: Vec<bool> = (0..4).map(|epoch| augmented(&augment, shape, at(epoch, sample)) != plain).collect();
        assert_eq!((flipped[0], flipped[1]), (flipped[2], !flipped[0]));
        assert_eq!(flipped[1], flipped[3]);
        first += usize::from(flipped[0]);
    }
    assert!((70..130).contains(&first), "{first}");
}

#[test]
fn translations_are_even() {
    let augment = Augment::new().then(Translate::new(1));
    let mut seen = std::collections::BTreeMap::new();
    for sample in 0..900 {
        *seen.entry(augmented(&augment, [3, 3, 1], at(0, sample))).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 9);
    assert!(seen.values().all(|count| (60..145).contains(count)), "{seen:?}");
}

/// Of a 3x3 image whose i-th value is 37i² + 11i + 5; what PIL gives, and for the hue Python's colorsys.
#[test]
fn colours_change_as_in_pil() {
    type Change = fn(&mut Canvas<'_>);
    let start: Vec<u8> = (0..27u32).map(|i| (37 * i * i + 11 * i + 5) as u8).collect();
    let cases: [(&str, Change, [u8; 27]); 8] = [
        (
            "brightness",
            |canvas| canvas.brightness(1.5),
            [
                7, 79, 255, 172, 193, 255, 184, 154, 235, 43, 255, 255, 133, 1, 255, 70, 255, 199, 238, 4, 255, 253,
                255, 178, 115, 163, 255,
            ],
        ),
        (
            "contrast",
            |canvas| canvas.contrast(0.4),
            [
                72, 91, 140, 116, 121, 157, 119, 111, 133, 81, 162, 170, 105, 70, 167, 89, 142, 123, 133, 71, 141, 137,
                164, 117, 101, 113, 156,
            ],
        ),
        (
            "saturation",
            |canvas| canvas.saturation(1.7),
            [
                0, 53, 255, 101, 124, 255, 128, 94, 186, 0, 255, 255, 112, 0, 255, 0, 213, 131, 222, 0, 252, 145, 255,
                60, 52, 106, 255,
            ],
        ),
        (
            "sharpness",
            |canvas| canvas.sharpness(1.9),
            [
                5, 53, 175, 115, 129, 217, 123, 103, 157, 29, 231, 251, 88, 0, 255, 47, 181, 133, 159, 3, 177, 169,
                235, 119, 77, 109, 215,
            ],
        ),
        (
            "posterize",
            |canvas| canvas.posterize(3),
            [
                0, 32, 160, 96, 128, 192, 96, 96, 128, 0, 224, 224, 64, 0, 224, 32, 160, 128, 128, 0, 160, 160, 224,
                96, 64, 96, 192,
            ],
        ),
        (
            "solarize",
            |canvas| canvas.solarize(100.0),
            [
                5, 53, 80, 140, 126, 38, 132, 152, 98, 29, 24, 4, 89, 1, 12, 47, 74, 122, 96, 3, 78, 86, 20, 136, 77,
                146, 40,
            ],
        ),
        (
            "autocontrast",
            |canvas| canvas.autocontrast(),
            [
                0, 56, 108, 171, 139, 189, 183, 111, 73, 37, 250, 254, 130, 0, 239, 65, 196, 27, 239, 2, 112, 255, 255,
                0, 111, 117, 185,
            ],
        ),
        (
            "hue",
            |canvas| canvas.hue(0.3),
            [
                175, 5, 87, 217, 115, 149, 157, 112, 103, 227, 29, 251, 243, 41, 1, 106, 47, 181, 177, 124, 3, 119,
                192, 235, 215, 77, 137,
            ],
        ),
    ];
    for (name, change, expected) in cases {
        let (mut pixels, mut spare) = (start.clone(), vec![0; 27]);
        change(&mut Canvas { pixels: &mut pixels, spare: &mut spare, shape: [3, 3, 3] });
        let near = |(a, b): (&u8, u8)| a.abs_diff(b) <= 1;
        assert!(pixels.iter().zip(expected).all(near), "{name}: {pixels:?} {expected:?}");
    }
    let mut pixels: Vec<u8> = (0..1024u32).map(|i| ((7 * i * i + 3 * i) % 200) as u8).collect();
    Canvas { pixels: &mut pixels, spare: &mut vec![0; 1024], shape: [32, 32, 1] }.equalize();
    assert_eq!(pixels[..8], [0, 14, 65, 120, 222, 255, 113, 255]);
    assert_eq!(pixels.iter().map(|&value| u32::from(value)).sum::<u32>(), 160_219);
}

#[test]
fn images_are_turned_and_cut_out() {
    for (degrees, expected) in [
        (0.0, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (90.0, [2, 5, 8, 1, 4, 7, 0, 3, 6]),
        (180.0, [8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (-90.0, [6, 3, 0, 7, 4, 1, 8, 5, 2]),
    ] {
        assert_eq!(changed([3, 3, 1], |canvas| canvas.rotate(degrees, Edge::Zero)), expected, "{degrees}");
    }
    assert_eq!(changed([3, 3, 1], |canvas| canvas.cut_out(0.0, 0.0, 3.0, 3.0)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    // The upper right quarter of a 4x4 image: pixels lie at 1/4 and 3/4 between the old ones.
    let found = changed([4, 4, 1], |canvas| canvas.cut_out(0.0, 2.0, 2.0, 2.0));
    assert_eq!(found, [2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8], "{found:?}");
}

/// Every transform, on images with and without colours: nothing goes wrong, something changes, and the key is all that counts.
#[test]
fn all_transforms_change_images_alike_each_time() {
    let all = r#"[{"class":"AlternatingFlip"},{"class":"RandomFlip"},{"class":"Translate","pixels":2},
        {"class":"Rotate","degrees":30,"edge":"reflect"},{"class":"RandomResizedCrop"},{"class":"RandomErasing","noise":true},
        {"class":"Cutout","pixels":3},{"class":"ColorJitter","brightness":0.4,"contrast":0.4},{"class":"RandAugment"},
        {"class":"TrivialAugment"},{"class":"AugMix"}]"#;
    let all: Augment = serde_json::from_str(all).unwrap();
    assert_eq!(all.transforms().len(), AnyTransform::NAMES.len());
    for shape in [[9, 8, 3], [9, 8, 1], [5, 5, 2]] {
        for transform in all.transforms() {
            let augment = Augment::new().then(transform.clone());
            assert_eq!(augment.problem(shape), None);
            let run = || (0..40).map(|n| augmented(&augment, shape, at(n % 4, n / 4))).collect::<Vec<_>>();
            let first = run();
            assert_eq!(run(), first, "{transform:?}");
            let distinct: std::collections::BTreeSet<_> = first.into_iter().collect();
            assert!(distinct.len() > 1, "{transform:?} on {shape:?}");
        }
    }
    // The smallest images there are.
    for n in 0..100 {
        augmented(&all, [1, 1, 1], at(0, n));
    }
}

#[test]
fn mixed_batches_have_mixed_targets() {
    let run = |mixing: Mixing| {
        let mut pixels: Vec<u8> = (0..5).flat_map(|n| [40 * n; 64]).collect();
        let mut targets = vec![0.0; 25];
        (0..5).for_each(|n| targets[6 * n] = 1.0);
        let (mut labels, mut weights) = (vec![0, 1, 2, 3, 4], vec![1.0, 1.0, 1.0, 1.0, 0.5]);
        let indices = [7, 3, 9, 1, 0];
        let batch = Mixed {
            pixels: &mut pixels,
            shape: [8, 8, 1],
            targets: &mut targets,
            labels: &mut labels,
            weights: &mut weights,
            indices: &indices,
        };
        mixing.apply(batch, 1, 2);
        (pixels, targets, labels, weights)
    };
    for mixing in [Mixing { mixup: 0.8, ..Mixing::default() }, Mixing { cutmix: 1.0, ..Mixing::default() }] {
        let (pixels, targets, labels, weights) = run(mixing);
        assert_eq!((&pixels[128..192], &targets[10..15]), (&[80; 64][..], &[0.0, 0.0, 1.0, 0.0, 0.0][..]));
        for (n, other) in [(0, 4), (1, 3), (3, 1), (4, 0)] {
            let target = &targets[5 * n..5 * n + 5];
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{target:?}");
            let expected = 40.0 * (n as f32 * target[n] + other as f32 * target[other]);
            let mean = pixels[64 * n..64 * n + 64].iter().map(|&value| f32::from(value)).sum::<f32>() / 64.0;
            assert!((mean - expected).abs() < 0.51, "{mixing:?} {n}: {mean} {expected}");
            assert_eq!(labels[n] as usize, if target[n] >= 0.5 { n } else { other });
        }
        assert!((weights[0] - (targets[0] + 0.5 * targets[4])).abs() < 1e-6);
        assert_eq!(run(mixing).0, pixels);
    }
    assert!(Mixing::default().is_none());
    assert!(Mixing { mixup: -1.0, ..Mixing::default() }.problem().unwrap().contains("mixup"));
    assert!(Mixing { probability: Some(2.0), ..Mixing::default() }.problem().unwrap().contains("probability"));
}

#[test]
fn the_occasion_is_the_key() {
    let augment = Augment::new().then(RandomFlip::new()).then(Translate::new(3).edge(Edge::Reflect));
    let shape = [8, 9, 3];
    assert_eq!(augmented(&augment, shape, at(1, 2)), augmented(&augment, shape, at(1, 2)));
    let distinct: std::collections::BTreeSet<Vec<u8>> =
        (0..20).map(|n| augmented(&augment, shape, at(n % 5, n / 5))).collect();
    assert!(distinct.len() > 12, "{}", distinct.len());
}

#[test]
fn configurations_come_back_and_senseless_ones_are_named() {
    let augment = Augment::new().then(AlternatingFlip {}).then(RandomFlip::new()).then(Translate::new(2));
    let json = serde_json::to_string(&augment).unwrap();
    assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), augment, "{json}");
    assert!(serde_json::from_str::<Augment>(r#"[{"class":"Translate","pixels":2,"colour":1}]"#).is_err());
    for (json, problem) in [
        (r#"[{"class":"RandomFlip","probability":1.5}]"#, "augmentation RandomFlip: probability: expected"),
        (r#"[{"class":"ColorJitter","hue":0.1}]"#, "saturation and hue: expected images of 3 channels, received 1"),
        (r#"[{"class":"RandAugment","magnitude":31}]"#, "RandAugment: magnitude: expected"),
        (r#"[{"class":"Rotate","degrees":-1}]"#, "Rotate: degrees: expected"),
        (r#"[{"class":"RandomErasing","scale":[0.5,0.2]}]"#, "RandomErasing: scale: expected"),
        (r#"[{"class":"RandomResizedCrop","ratio":[0,1]}]"#, "RandomResizedCrop: ratio: expected"),
        (r#"[{"class":"AugMix","width":0}]"#, "AugMix: width: expected"),
        (r#"[{"class":"Translate","pixels":8}]"#, "augmentation Translate: pixels: expected fewer than the image's 8"),
    ] {
        let augment: Augment = serde_json::from_str(json).unwrap();
        let found = augment.problem([8, 9, 1]).unwrap();
        assert!(found.contains(problem), "{found}");
    }
}
