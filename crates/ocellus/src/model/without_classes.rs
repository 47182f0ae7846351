//! The model without its classifier: what the last layer with weights sees of an image.

use super::{Model, ModelError};

impl Model {
    /// A model that gives what this one's last layer with weights takes: its view of an image, before it decides on a class.
    /// It has this one's weights, preprocessing and threads. None where that layer sees the image itself.
    ///
    /// # Errors
    /// The layers up to there make no model.
    pub fn without_classes(&self) -> Result<Option<Self>, ModelError> {
        let architecture = self.architecture();
        let mut nodes = self.layer_parameters.iter();
        let Some(last) = nodes.rposition(|parameters| !parameters.is_empty()) else { return Ok(None) };
        let Some(input) = architecture.layers[last].inputs.first() else { return Ok(None) };
        let Some(at) = architecture.layers.iter().position(|layer| layer.name == *input) else { return Ok(None) };
        let mut shorter = architecture.clone();
        shorter.layers.truncate(at + 1);
        let mut model = Self::from_architecture(shorter, 0)?;
        model.set_preprocessing(self.preprocessing().clone());
        model.set_level(self.level()?);
        let kept: Vec<String> = model.weights().map(|(name, ..)| name.to_owned()).collect();
        for (name, _, values) in self.weights() {
            if kept.iter().any(|known| known == name) {
                model.set_weight(name, values)?;
            }
        }
        Ok(Some(model))
    }
}
