//! Every layer through one harness: shapes, parameters, configuration, a step of training, a file, and its errors.

use super::*;
use crate::losses::Loss;
use crate::model::{FitOptions, Input, Model, Tensor};
use crate::optimizers::Sgd;
use crate::random::{Purpose, Random};

/// Images in `0..1` and labels of 3 classes.
fn samples(shape: &[usize]) -> (Vec<f32>, Vec<u32>) {
    let mut random = Random::new(1, Purpose::Test, 0, 0);
    let length = shape.iter().product::<usize>();
    ((0..12 * length).map(|_| random.uniform()).collect(), (0..12).map(|n| n % 3).collect())
}

/// Builds a model of the layer with a classifier behind it.
fn model(shape: &[usize], call: impl Fn(&Tensor) -> Tensor) -> Model {
    let input = Input::new(shape);
    let x = Flatten::new().call(call(&input));
    Model::new(&input, &Dense::new(3).activation(Activation::Softmax).named("classes").call(&x)).unwrap()
}

fn check_call(what: &str, shape: &[usize], call: impl Fn(&Tensor) -> Tensor, output: &[usize], parameters: usize) {
    let mut trained = model(shape, &call);
    let features = output.iter().product::<usize>();
    assert_eq!(trained.parameter_count(), parameters + 3 * features + 3, "{what}: parameters");
    let kernel = trained.weights().find(|(name, _, _)| *name == "classes/kernel").unwrap();
    assert_eq!(kernel.1, [features, 3], "{what}: output");

    let (images, labels) = samples(shape);
    trained.compile(Sgd::new().learning_rate(0.05), Loss::categorical_cross_entropy(), ()).unwrap();
    let history = trained.fit((&images, &labels), FitOptions::new().epochs(8).batch_size(12).threads(1)).unwrap();
    let losses = history.get("loss").unwrap();
    assert!(losses[7] < losses[0] && losses.iter().all(|loss| loss.is_finite()), "{what}: {losses:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    trained.save(&path).unwrap();
    let mut loaded = Model::load(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(loaded.predict(&images).unwrap(), trained.predict(&images).unwrap(), "{what}: predictions of the file");
    assert_eq!(loaded.architecture(), trained.architecture(), "{what}: configuration");
}

fn check(layer: impl Layer + Into<AnyLayer> + Clone, shape: &[usize], output: &[usize], parameters: usize) {
    let any: AnyLayer = layer.clone().into();
    assert_eq!(any.output_shape(&[shape]).unwrap(), output, "{any:?}");
    let json = serde_json::to_string(&any).unwrap();
    assert_eq!(serde_json::from_str::<AnyLayer>(&json).unwrap(), any, "{json}");
    check_call(&json, shape, |x| layer.clone().call(x), output, parameters);
}

const IMAGE: [usize; 3] = [7, 6, 4];

#[test]
fn convolutions() {
    check(Conv2d::new(5, 3), &IMAGE, &[5, 4, 5], 3 * 3 * 4 * 5 + 5);
    check(Conv2d::new(5, (1, 3)).use_bias(false).activation(Activation::Tanh), &IMAGE, &[7, 4, 5], 3 * 4 * 5);
    check(Conv2d::new(4, 3).strides(2).padding(Padding::Same), &IMAGE, &[4, 3, 4], 3 * 3 * 4 * 4 + 4);
    check(Conv2d::new(6, 2).dilation_rate((3, 2)).groups(2), &IMAGE, &[4, 4, 6], 2 * 2 * 2 * 6 + 6);
    let penalised = Conv2d::new(2, 3).kernel_regularizer(Regularizer::l1_l2(1e-3, 1e-3));
    check(penalised.kernel_initializer(Initializer::HeNormal), &IMAGE, &[5, 4, 2], 3 * 3 * 4 * 2 + 2);
    check(DepthwiseConv2d::new(3), &IMAGE, &[5, 4, 4], 3 * 3 * 4 + 4);
    let depthwise = DepthwiseConv2d::new((3, 2)).depth_multiplier(2).strides(2).padding(Padding::Same);
    check(depthwise.activation(Activation::Relu), &IMAGE, &[4, 3, 8], 3 * 2 * 4 * 2 + 8);
}

#[test]
fn poolings() {
    check(MaxPooling2d::new(2), &IMAGE, &[3, 3, 4], 0);
    check(MaxPooling2d::new(3).strides(1).padding(Padding::Same), &IMAGE, &[7, 6, 4], 0);
    check(AveragePooling2d::new((2, 3)), &IMAGE, &[3, 2, 4], 0);
    check(AveragePooling2d::new(3).strides(2).padding(Padding::Same), &IMAGE, &[4, 3, 4], 0);
    check(GlobalAveragePooling2d::new(), &IMAGE, &[4], 0);
    check(GlobalMaxPooling2d::new(), &IMAGE, &[4], 0);
    check(GlobalAveragePooling2d::new().keepdims(true), &IMAGE, &[1, 1, 4], 0);
    check(AdaptiveAveragePooling2d::new((3, 8)), &IMAGE, &[3, 8, 4], 0);
    check(AdaptiveAveragePooling2d::new((7, 6)), &IMAGE, &IMAGE, 0);
}

#[test]
fn dense_and_shapes() {
    check(Dense::new(5), &[9], &[5], 9 * 5 + 5);
    check(Dense::new(5).use_bias(false).activation(Activation::Elu), &IMAGE, &[7, 6, 5], 20);
    check(Flatten::new(), &IMAGE, &[168], 0);
    check(Reshape::new([14, -1]), &IMAGE, &[14, 12], 0);
    check(Reshape::new([4, 42]), &IMAGE, &[4, 42], 0);
    check(ZeroPadding2d::new((2, 1)), &IMAGE, &[11, 8, 4], 0);
    check(ZeroPadding2d::sides([[0, 1], [2, 3]]), &IMAGE, &[8, 11, 4], 0);
}

#[test]
fn normalisations() {
    check(BatchNormalization::new(), &IMAGE, &IMAGE, 16);
    check(BatchNormalization::new().scale(false).momentum(0.5), &IMAGE, &IMAGE, 12);
    check(BatchNormalization::new().center(false).epsilon(0.1), &IMAGE, &IMAGE, 12);
    check(BatchNormalization::new().center(false).scale(false), &[9], &[9], 18);
    check(Normalization::new([0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.0]), &IMAGE, &IMAGE, 0);
    check(Rescaling::new(2.0).offset(-1.0), &IMAGE, &IMAGE, 0);
    check(Dropout::new(0.25), &IMAGE, &IMAGE, 0);
    check(LayerNormalization::new(), &IMAGE, &IMAGE, 8);
    check(LayerNormalization::new().epsilon(1e-6), &[9], &[9], 18);
    check(LayerScale::new().initial(0.5), &IMAGE, &IMAGE, 4);
    check(StochasticDepth::new(0.25), &IMAGE, &IMAGE, 0);
}

#[test]
fn tokens() {
    check(SelfAttention::new(2), &[5, 12], &[5, 4], 0);
    check(ClassToken::new(), &[5, 4], &[6, 4], 4);
    check(FirstToken::new(), &[5, 4], &[4], 0);
    check(PositionEmbedding::new(), &[5, 4], &[5, 4], 20);
    assert_eq!(SelfAttention::new(2).multiply_adds(&[&[5, 12]], &[5, 4]), 2 * 5 * 5 * 4);
    assert_eq!(PositionEmbedding::new().multiply_adds(&[&[5, 4]], &[5, 4]), 0);
}

#[test]
fn activations() {
    for activation in Activation::ALL {
        check(activation, &[2, 2, 3], &[2, 2, 3], 0);
    }
}

#[test]
fn layers_of_several_inputs() {
    let two = |x: &Tensor| (Conv2d::new(3, 1).call(x), Conv2d::new(3, 1).activation(Activation::Relu).call(x));
    let add = |x: &Tensor| {
        let (a, b) = two(x);
        Add::new().call([&a, &b, &a])
    };
    check_call("add", &IMAGE, add, &[7, 6, 3], 30);
    let concatenate = |x: &Tensor| {
        let (a, b) = two(x);
        Concatenate::new().call([&a, x, &b])
    };
    check_call("concatenate", &IMAGE, concatenate, &[7, 6, 10], 30);
    let excite = |x: &Tensor| {
        let squeezed = GlobalAveragePooling2d::new().keepdims(true).call(x);
        let factors = Conv2d::new(4, 1).activation(Activation::Sigmoid).call(squeezed);
        Multiply::new().call([x, &factors])
    };
    check_call("multiply", &IMAGE, excite, &IMAGE, 20);
}

#[test]
fn errors_say_what_was_expected_and_received() {
    fn check(layer: impl Into<AnyLayer>, shape: &[usize], problem: &str) {
        let layer: AnyLayer = layer.into();
        let found = layer.output_shape(&[shape]).expect_err(problem);
        assert!(found.contains(problem), "{found:?} instead of {problem:?}");
    }
    check(Conv2d::new(4, 9), &IMAGE, "the kernel covers 9x9, more than its input of 7x6");
    check(Conv2d::new(4, 4).dilation_rate(2), &IMAGE, "covers 7x7 with its dilation, more than its input of 7x6");
    check(Conv2d::new(4, 3).groups(3), &IMAGE, "received 3 groups for 7x6x4 with 4 channels and 4 filters");
    check(Conv2d::new(4, 3).groups(0), &IMAGE, "received 0 groups");
    check(Conv2d::new(0, 3), &IMAGE, "at least one filter");
    check(Conv2d::new(4, 0), &IMAGE, "expected kernel of at least 1, received 0x0");
    check(Conv2d::new(4, 3).strides(0), &IMAGE, "expected strides of at least 1, received 0x0");
    check(Conv2d::new(4, 3), &[168], "expected an image (height, width, channels), received 168");
    check(DepthwiseConv2d::new(3).depth_multiplier(0), &IMAGE, "depth_multiplier of at least 1");
    check(MaxPooling2d::new(8), &IMAGE, "the pool covers 8x8");
    check(AveragePooling2d::new(1000).padding(Padding::Same), &IMAGE, "the pool covers 1000x1000");
    check(GlobalMaxPooling2d::new(), &[4], "expected an image (height, width, channels), received 4");
    check(ZeroPadding2d::new(1), &[4], "expected an image (height, width, channels), received 4");
    check(ZeroPadding2d::new(usize::MAX), &IMAGE, "expected a padding of at most 65536");
    check(Dense::new(0), &[4], "at least one unit");
    check(Dense::new(4), &[], "received a scalar");
    check(Dropout::new(1.0), &[4], "expected a rate of at least 0 and below 1, received 1");
    check(Dropout::new(f32::NAN), &[4], "received NaN");
    check(BatchNormalization::new().momentum(2.0), &[4], "expected a momentum of 0 to 1, received 2");
    check(BatchNormalization::new().epsilon(-1.0), &[4], "expected an epsilon of at least 0");
    check(Normalization::new([0.0], [1.0]), &IMAGE, "each of the 4 channels of 7x6x4, received 1 and 1");
    check(Rescaling::new(f32::INFINITY), &[4], "expected finite numbers");
    check(LayerNormalization::new().epsilon(0.0), &[4], "expected an epsilon above 0, received 0");
    check(LayerScale::new().initial(f32::NAN), &[4], "expected a finite number, received NaN");
    check(StochasticDepth::new(1.0), &[4], "expected a rate of at least 0 and below 1, received 1");
    check(
        SelfAttention::new(2),
        &[5, 8],
        "3 times num_heads divides, for queries, keys and values; received 2 heads for 5x8",
    );
    check(SelfAttention::new(0), &[5, 12], "received 0 heads");
    check(SelfAttention::new(1), &[1 << 14, 12], "at most 8192 tokens, received 16384; use larger patches");
    check(SelfAttention::new(1), &IMAGE, "expected (tokens, channels), received 7x6x4");
    check(ClassToken::new(), &[4], "expected (tokens, channels), received 4");
    check(FirstToken::new(), &IMAGE, "expected (tokens, channels), received 7x6x4");
    check(AdaptiveAveragePooling2d::new(0), &IMAGE, "expected an output_size of 1 to 65536, received 0x0");
    check(AdaptiveAveragePooling2d::new(2), &[4], "expected an image (height, width, channels), received 4");
    for target_shape in [vec![13, -1], vec![167], vec![-1, -1], vec![-2, 84], vec![0, -1], vec![isize::MAX, 8]] {
        check(Reshape::new(target_shape), &IMAGE, "a target_shape of as many values as its input");
    }
    let (image, factors): (&[usize], &[usize]) = (&[7, 6, 4], &[3]);
    let error = Multiply::new().output_shape(&[image, factors]).unwrap_err();
    assert!(error.contains("a factor for each channel as its second input, received 7x6x4 and 3"), "{error}");
    let (wide, narrow): (&[usize], &[usize]) = (&[7, 6, 4], &[7, 5, 4]);
    let error = Concatenate::new().output_shape(&[wide, narrow]).unwrap_err();
    assert!(error.contains("received 7x6x4 and 7x5x4"), "{error}");
}
