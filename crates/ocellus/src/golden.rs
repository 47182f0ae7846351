//! For tests: the files in `reference/golden`, which hold what other frameworks compute.

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// One golden file.
pub(crate) struct Golden {
    tensors: HashMap<String, Vec<f32>>,
    metadata: HashMap<String, String>,
}

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let path = format!("{}/../../reference/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(Path::new(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |view: safetensors::tensor::TensorView<'_>| {
            assert_eq!(view.dtype(), Dtype::F32);
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        Golden {
            tensors: tensors.tensors().into_iter().map(|(name, view)| (name, numbers(view))).collect(),
            metadata: header.metadata().clone().unwrap_or_default(),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Vec<f32> {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}")).clone()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(Vec::as_slice)
    }

    /// A piece of the metadata.
    pub(crate) fn metadata<T: DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    /// The settings of a case.
    pub(crate) fn case<T: DeserializeOwned>(&self, name: &str) -> T {
        let cases: HashMap<String, Value> = self.metadata("cases");
        serde_json::from_value(cases[name].clone()).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The settings of a case that does not name its class.
    pub(crate) fn case_of<T: DeserializeOwned>(&self, class: &str, name: &str) -> T {
        let mut cases: HashMap<String, Value> = self.metadata("cases");
        let mut case = cases.remove(name).unwrap();
        case["class"] = class.into();
        serde_json::from_value(case).unwrap()
    }
}
