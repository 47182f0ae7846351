//! Random directed acyclic graphs: whatever they look like, every way to run them gives the same.

mod harness;

use harness::{Net, activate, batch_norm, check_narrow, check_shared, check_ways, cross_entropy};
use ocellus_engine::ops::*;
use ocellus_engine::{GraphError, Value};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What a node does, and which earlier values (counted backwards) it reads.
type Choice = (u8, usize, usize);

fn grow(choices: &[Choice], net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let mut values = vec![x];
    for &(op, a, b) in choices {
        let pick = |back: usize| values[values.len() - 1 - back % values.len()];
        let (a, b) = (pick(a), pick(b));
        let value = match op % 8 {
            0 => net.conv(a, 4, 3, 1)?,
            1 => activate(net, a, Activation::Relu)?,
            2 => batch_norm(net, a)?,
            3 if net.graph.shape(a) == net.graph.shape(b) => net.graph.add(Add, &[a, b])?,
            4 if net.graph.shape(a)[..2] == net.graph.shape(b)[..2] => net.graph.add(Concat, &[a, b])?,
            5 if net.graph.shape(a)[0] >= 2 && net.graph.shape(a)[1] >= 2 => {
                net.graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[a])?
            }
            6 => net.graph.add(Dropout { rate: 0.2, key: values.len() as u64, unit: DropoutUnit::Value }, &[a])?,
            _ => activate(net, a, Activation::Silu)?,
        };
        values.push(value);
    }
    Ok(values[values.len() - 1])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn every_way_to_run_a_random_graph_gives_the_same(
        choices in proptest::collection::vec((any::<u8>(), 0usize..4, 0usize..4), 1..12),
    ) {
        // A dozen layers with batch normalisation amplify rounding; a wrong buffer or stage is off by far more.
        check_ways(&|net: &mut Net, x: Value| grow(&choices, net, x), cross_entropy, 1e-3);
        check_shared(&|net: &mut Net, x: Value| grow(&choices, net, x));
        let rounding = (choices.len() <= 4).then_some(0.05);
        check_narrow(&|net: &mut Net, x: Value| grow(&choices, net, x), cross_entropy, rounding);
    }
}
