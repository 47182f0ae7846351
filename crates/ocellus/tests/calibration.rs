//! Prediction in 8 bits: nearly as good as in single precision, kept in the model's file, forgotten when the weights change.

use ocellus::data::{self, Dataset, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::model::{FitOptions, Model, ModelError, Precision, Sequential};
use ocellus::optimizers::Adam;

fn images() -> (Dataset, Dataset) {
    (data::builtin(Split::Train).unwrap().take(1500), data::builtin(Split::Test).unwrap())
}

fn trained(train: &Dataset) -> Model {
    let mut model = Sequential::new([28, 28, 1])
        .add(Conv2d::new(8, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Conv2d::new(12, 3).padding(Padding::Same).use_bias(false))
        .add(BatchNormalization::new())
        .add(Activation::Relu)
        .add(MaxPooling2d::new(2))
        .add(Flatten::new())
        .add(Dense::new(10).activation(Activation::Softmax))
        .build()
        .unwrap();
    model.compile(Adam::new().learning_rate(3e-3), Loss::categorical_cross_entropy(), ()).unwrap();
    model.fit(train, FitOptions::new().epochs(2)).unwrap();
    model
}

fn argument(result: Result<impl Sized, ModelError>, problem: &str) {
    match result {
        Err(ModelError::Argument(text)) => assert!(text.contains(problem), "{text:?} instead of {problem:?}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("expected an error: {problem}"),
    }
}

#[test]
fn eight_bits_are_nearly_as_good_and_come_back_from_the_file() {
    let (train, test) = images();
    let mut model = trained(&train);
    argument(model.set_precision(Precision::Int8), "calibrate");
    let calibration = model.calibrate(&train.take(300)).unwrap().clone();
    assert_eq!(calibration.images, 300);
    let names: Vec<&str> = calibration.ranges.keys().map(String::as_str).collect();
    assert_eq!(names, ["conv2d", "conv2d_1", "dense"]);
    assert_eq!(calibration.ranges["conv2d"], [0.0, 1.0], "pixels as the layers see them");
    assert_eq!(calibration.ranges["dense"][0], 0.0, "nothing is negative behind a ReLU");

    let single = model.predict(&test).unwrap();
    model.set_precision(Precision::Int8).unwrap();
    let bytes = model.predict(&test).unwrap();
    assert_ne!(single, bytes);
    let same = single.classes().iter().zip(bytes.classes()).filter(|(a, b)| *a == b).count();
    assert!(same * 100 >= 98 * test.len(), "the same class for {same} of {}", test.len());
    let accuracy = model.evaluate(&test).unwrap().accuracy;
    model.set_threads(Some(1));
    assert_eq!(model.predict(&test).unwrap(), bytes, "another number of threads");
    // Numbers as the layers see them give what pixels give, but for the first layer's rounding.
    let numbers: Vec<f32> = pixels(&test).iter().map(|&p| f32::from(p) / 255.0).collect();
    let from_numbers = model.predict(&numbers).unwrap();
    let error = |(a, b): (&f32, &f32)| (a - b).abs();
    assert!(from_numbers.values().iter().zip(bytes.values()).map(error).fold(0.0, f32::max) < 0.02);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    assert_eq!(model.precision(), Precision::Int8);
    let mut loaded = Model::load(&path).unwrap();
    assert_eq!((loaded.precision(), loaded.calibration()), (Precision::F32, Some(&calibration)));
    assert_eq!(loaded.predict(&test).unwrap(), single);
    loaded.set_precision(Precision::Int8).unwrap();
    assert_eq!(loaded.predict(&test).unwrap(), bytes);
    assert_eq!(loaded.evaluate(&test).unwrap().accuracy, accuracy);
}

fn pixels(images: &Dataset) -> Vec<u8> {
    let mut pixels = vec![0; images.len() * images.image_len()];
    for (index, pixels) in pixels.chunks_exact_mut(images.image_len()).enumerate() {
        images.copy_image(index, pixels).unwrap();
    }
    pixels
}

#[test]
fn what_changes_the_weights_makes_a_model_forget() {
    let (train, _) = images();
    let mut model = trained(&train);
    let calibrated = |model: &mut Model| {
        model.calibrate(&train.take(20)).unwrap();
        model.set_precision(Precision::Int8).unwrap();
    };
    let forgotten = |model: &Model| {
        assert_eq!((model.precision(), model.calibration()), (Precision::F32, None));
    };
    calibrated(&mut model);
    model.fit(&train.take(20), FitOptions::new()).unwrap();
    forgotten(&model);
    calibrated(&mut model);
    model.restore(&model.snapshot());
    forgotten(&model);
    calibrated(&mut model);
    model.set_weight("dense/bias", &[0.5; 10]).unwrap();
    forgotten(&model);
    calibrated(&mut model);
    model.initialize(3);
    forgotten(&model);
}

#[test]
fn images_that_do_not_suit_are_refused() {
    let (train, _) = images();
    let mut model = trained(&train);
    argument(model.calibrate(&[0u8; 30]), "no whole number of images of 28x28x1");
    argument(model.calibrate(&[0u8; 0]), "no images");
    argument(model.calibrate(&vec![f32::NAN; 784]), "conv2d: on these images its input is no finite number");
    let of = |shape: [usize; 3], names: &[&str]| {
        let pixels = vec![0; names.len() * shape.iter().product::<usize>()];
        let names = names.iter().map(|name| name.to_string()).collect();
        Dataset::from_pixels(pixels, shape, vec![0; 2], names).unwrap()
    };
    argument(model.calibrate(&of([8, 8, 1], &["a", "b"])), "the model takes images of 28x28x1");
    argument(model.calibrate(&of([28, 28, 1], &["a", "b"])), "a class \"a\" that the model does not know");
    assert!(model.calibration().is_none());
}
