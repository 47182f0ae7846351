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
        (r#"[{"class":"Translate","pixels":8}]"#, "augmentation Translate: pixels: expected fewer than the image's 8"),
    ] {
        let augment: Augment = serde_json::from_str(json).unwrap();
        let found = augment.problem([8, 9, 3]).unwrap();
        assert!(found.contains(problem), "{found}");
    }
}
