//! Batches: complete, in the order that seed and epoch say, in buffers that stay.

use ocellus::data::{Batch, Dataset, Loader, LoaderOptions, OpenOptions, Sampler};

use super::{folder, grey};

/// `count` images of 2 x 1 pixels, image i of value i, classes 0 1 2 0 1 2 ….
fn numbered(count: u8) -> Dataset {
    let pixels = (0..count).flat_map(|i| [i, i]).collect();
    let labels = (0..count).map(|i| u32::from(i) % 3).collect();
    Dataset::from_pixels(pixels, [2, 1, 1], labels, ["a", "b", "c"].map(String::from).to_vec()).unwrap()
}

fn epoch(loader: &mut Loader, epoch: u64) -> Vec<Batch> {
    loader.start_epoch(epoch);
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        batches.push(batch.clone());
    }
    assert!(loader.next_batch().unwrap().is_none());
    batches
}

fn indices(batches: &[Batch]) -> Vec<u32> {
    batches.iter().flat_map(|batch| batch.indices.clone()).collect()
}

#[test]
fn an_epoch_has_every_sample_once_with_its_label() {
    for (count, batch_size, shuffle) in
        [(10, 3, true), (10, 3, false), (9, 3, true), (2, 5, true), (1, 1, false), (10, usize::MAX, true)]
    {
        let options = LoaderOptions {
            batch_size,
            shuffle,
            seed: 1,
            class_weight: Some(vec![1.0, 0.5, 0.0]),
            ..Default::default()
        };
        let mut loader = Loader::new(numbered(count), options).unwrap();
        let batches = epoch(&mut loader, 4);
        assert_eq!(batches.len(), loader.batches_per_epoch());
        let mut seen = indices(&batches);
        assert_eq!(seen.is_sorted(), !shuffle || count < 3, "{seen:?}");
        seen.sort_unstable();
        assert_eq!(seen, (0..u32::from(count)).collect::<Vec<_>>());
        for batch in &batches {
            assert_eq!(
                (batch.pixels.len(), batch.targets.len(), batch.weights.len()),
                (2 * batch.len(), 3 * batch.len(), batch.len())
            );
            for (i, &index) in batch.indices.iter().enumerate() {
                let class = (index % 3) as usize;
                assert_eq!(batch.pixels[2 * i..2 * i + 2], [index as u8; 2]);
                assert_eq!(batch.labels[i] as usize, class);
                let expected: Vec<f32> = (0..3).map(|c| if c == class { 1.0 } else { 0.0 }).collect();
                assert_eq!(batch.targets[3 * i..3 * i + 3], expected);
                assert_eq!(batch.weights[i], [1.0, 0.5, 0.0][class]);
            }
        }
    }
}

#[test]
fn order_depends_on_seed_and_epoch_alone() {
    let loader = |seed| Loader::new(numbered(50), LoaderOptions { seed, ..Default::default() }).unwrap();
    let mut first = loader(1);
    let epochs = [0, 1, 2].map(|e| indices(&epoch(&mut first, e)));
    let mut again = loader(1);
    // Another order of epochs, one broken off.
    again.start_epoch(1);
    again.next_batch().unwrap();
    assert_eq!([2, 0, 1].map(|e| indices(&epoch(&mut again, e))), [2, 0, 1].map(|e: usize| epochs[e].clone()));
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    assert_ne!(indices(&epoch(&mut loader(2), 0)), epochs[0]);
    // Batch size does not change the order.
    let mut large = Loader::new(numbered(50), LoaderOptions { seed: 1, batch_size: 7, ..Default::default() }).unwrap();
    assert_eq!(indices(&epoch(&mut large, 2)), epochs[2]);
}

#[test]
fn buffers_stay_where_they_are() {
    let mut loader = Loader::new(numbered(10), LoaderOptions { batch_size: 4, ..Default::default() }).unwrap();
    let mut places = Vec::new();
    for epoch in 0..3 {
        loader.start_epoch(epoch);
        while let Some(b) = loader.next_batch().unwrap() {
            places.push((
                b.pixels.as_ptr(),
                b.labels.as_ptr(),
                b.targets.as_ptr(),
                b.weights.as_ptr(),
                b.indices.as_ptr(),
            ));
        }
    }
    places.dedup();
    assert_eq!(places.len(), 1);
}

#[test]
fn images_decoded_on_demand_give_the_same_batches() {
    let paths: Vec<String> = (0..23).map(|i| format!("{}/{i:02}.png", ["a", "b", "c"][i % 3])).collect();
    let root = folder(paths.iter().enumerate().map(|(i, path)| (path.as_str(), grey(i as u8))));
    let loader = |memory| {
        let mut options = OpenOptions::default();
        options.limits.memory = memory;
        let data = Dataset::open(root.path(), &options).unwrap();
        Loader::new(data, LoaderOptions { batch_size: 4, ..Default::default() }).unwrap()
    };
    let (mut cached, mut decoded) = (loader(1 << 20), loader(0));
    for e in 0..2 {
        assert_eq!(epoch(&mut cached, e), epoch(&mut decoded, e));
    }
    // An epoch broken off ends its threads, and the next is complete.
    decoded.start_epoch(5);
    decoded.next_batch().unwrap();
    assert_eq!(indices(&epoch(&mut decoded, 6)), indices(&epoch(&mut cached, 6)));
    // A file that vanishes is an error with its name, not a shorter epoch.
    std::fs::remove_file(root.path().join("b/01.png")).unwrap();
    decoded.start_epoch(7);
    let error = loop {
        match decoded.next_batch() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the epoch ended without an error"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("b/01.png"), "{error}");
}

#[test]
fn senseless_options_are_refused() {
    let with = |batch_size, class_weight| {
        Loader::new(numbered(4), LoaderOptions { batch_size, class_weight, ..Default::default() })
    };
    for (batch_size, class_weight, expected) in [
        (0, None, "batch size: expected at least 1, got 0"),
        (1, Some(vec![1.0]), "class weights: expected 3, one per class, got 1"),
        (1, Some(vec![1.0, -1.0, 1.0]), "class weights: expected finite numbers from 0, got -1"),
        (1, Some(vec![1.0, f32::NAN, 1.0]), "got NaN"),
    ] {
        let error = with(batch_size, class_weight).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn samplers_show_classes_or_samples_as_often_as_asked() {
    // 12 samples of class 0, 3 of class 1, none of class 2.
    let labels: Vec<u32> = (0..15).map(|index| u32::from(index >= 12)).collect();
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let data = Dataset::from_pixels((0..15).collect(), [1, 1, 1], labels, names).unwrap();
    let shown = |sampler: Sampler, shuffle, epochs: u64| {
        let options = LoaderOptions { batch_size: 4, seed: 3, shuffle, sampler, ..Default::default() };
        let mut loader = Loader::new(data.clone(), options).unwrap();
        let of_epoch = |epoch| epoch_indices(&mut loader, epoch);
        (0..epochs).map(of_epoch).collect::<Vec<_>>()
    };
    let counts = |epochs: &[Vec<u32>]| {
        let mut counts = [0usize; 15];
        epochs.iter().flatten().for_each(|&index| counts[index as usize] += 1);
        counts
    };
    let balanced = shown(Sampler::Balanced, true, 8);
    assert_eq!(balanced, shown(Sampler::Balanced, true, 8));
    for epoch in &balanced {
        let second = epoch.iter().filter(|&&index| index >= 12).count();
        assert!(epoch.len() == 15 && (7..=8).contains(&second), "{epoch:?}");
    }
    // 60 places for each class: 5 for each of the twelve, 20 for each of the three.
    let each = counts(&balanced);
    assert!(each[..12].iter().all(|count| (4..=6).contains(count)), "{each:?}");
    assert!(each[12..].iter().all(|count| (18..=22).contains(count)), "{each:?}");
    assert!(shown(Sampler::Balanced, false, 1)[0].is_sorted());

    let mut weights = vec![0.0; 15];
    (weights[3], weights[14]) = (1.0, 3.0);
    let each = counts(&shown(Sampler::Weighted(weights.into()), true, 40));
    assert_eq!(each[3] + each[14], 600);
    assert!((120..180).contains(&each[3]), "{each:?}");
    for wrong in [vec![1.0; 14], vec![0.0; 15], vec![f32::NAN; 15], vec![-1.0; 15]] {
        let options = LoaderOptions { sampler: Sampler::Weighted(wrong.into()), ..Default::default() };
        assert!(Loader::new(data.clone(), options).is_err());
    }
}

/// The samples of an epoch, in order.
fn epoch_indices(loader: &mut Loader, number: u64) -> Vec<u32> {
    epoch(loader, number).iter().flat_map(|batch| batch.indices.clone()).collect()
}
