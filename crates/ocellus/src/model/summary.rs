//! The model as a table.

use super::Model;
use crate::layers::shape_text;
use ocellus_engine::ParameterKind;

impl Model {
    /// A table of the layers, their outputs' shapes and their numbers of parameters, as Keras prints it, with the multiply-adds for
    /// an image.
    pub fn summary(&self) -> String {
        let joined = self.network.nodes.iter().enumerate().any(|(at, node)| node.inputs != [at]);
        let mut rows =
            vec![["Layer (type)", "Output Shape", "Param #", "Multiply-adds", "Connected to"].map(String::from)];
        let layers = self.network.architecture.layers.iter().zip(&self.network.nodes).zip(self.costs());
        for ((config, node), costs) in layers {
            let count: usize = node.parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum();
            rows.push([
                format!("{} ({})", config.name, config.layer.class()),
                shape_text(&node.output_shape),
                thousands(count),
                thousands(costs.multiply_adds as usize),
                config.inputs.join(", "),
            ]);
        }
        let columns = if joined { 5 } else { 4 };
        let widths: Vec<usize> =
            (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let rule = |left: &str, cross: &str, right: &str, line: &str| {
            let cells: Vec<String> = widths.iter().map(|width| line.repeat(width + 2)).collect();
            format!("{left}{}{right}\n", cells.join(cross))
        };
        let mut text = rule("┌", "┬", "┐", "─");
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                let gap = " ".repeat(width - cell.chars().count());
                if column == 2 || column == 3 { format!(" {gap}{cell} ") } else { format!(" {cell}{gap} ") }
            });
            text += &format!("│{}│\n", cells.collect::<Vec<_>>().join("│"));
            if number == 0 {
                text += &rule("├", "┼", "┤", "─");
            }
        }
        text += &rule("└", "┴", "┘", "─");
        let trained = self.layer_parameters.iter().flatten().map(|&id| self.parameters.get(id));
        let trained: usize =
            trained.filter(|parameter| parameter.kind == ParameterKind::Weight).map(|p| p.values().len()).sum();
        let total = self.parameter_count();
        for (name, count) in [("Total", total), ("Trainable", trained), ("Non-trainable", total - trained)] {
            text += &format!(" {name} params: {} ({})\n", thousands(count), size(4 * count));
        }
        let work = self.multiply_adds() as usize;
        let operations = thousands(2 * work);
        text += &format!(" Multiply-adds: {} for an image ({operations} operations)\n", thousands(work));
        let values: u64 = self.costs().iter().map(|layer| layer.values()).sum();
        text += &format!(" Activations: {} for an image, all outputs together\n", size(4 * values as usize));
        text
    }
}

/// `1,234,567`
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<String> = (!head.is_empty()).then(|| head.to_owned()).into_iter().chain(groups).collect();
    groups.join(",")
}

/// Bytes, as Keras writes them.
fn size(bytes: usize) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KB", "MB"] {
        if number < 1024.0 {
            return format!("{number:.2} {unit}");
        }
        number /= 1024.0;
    }
    format!("{number:.2} GB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::*;
    use crate::model::Sequential;

    #[test]
    fn looks_like_keras() {
        let model = Sequential::new([28, 28, 1])
            .add(Conv2d::new(32, 3).activation(Activation::Relu))
            .add(BatchNormalization::new())
            .add(MaxPooling2d::new(2))
            .add(Flatten::new())
            .add(Dense::new(10).activation(Activation::Softmax))
            .build()
            .unwrap();
        let expected = "\
┌──────────────────────────────────────────┬──────────────┬─────────┬───────────────┐
│ Layer (type)                             │ Output Shape │ Param # │ Multiply-adds │
├──────────────────────────────────────────┼──────────────┼─────────┼───────────────┤
│ conv2d (Conv2d)                          │ 26x26x32     │     320 │       194,688 │
│ batch_normalization (BatchNormalization) │ 26x26x32     │     128 │             0 │
│ max_pooling2d (MaxPooling2d)             │ 13x13x32     │       0 │             0 │
│ flatten (Flatten)                        │ 5408         │       0 │             0 │
│ dense (Dense)                            │ 10           │  54,090 │        54,080 │
└──────────────────────────────────────────┴──────────────┴─────────┴───────────────┘
 Total params: 54,538 (213.04 KB)
 Trainable params: 54,474 (212.79 KB)
 Non-trainable params: 64 (256.00 B)
 Multiply-adds: 248,768 for an image (497,536 operations)
 Activations: 211.29 KB for an image, all outputs together
";
        assert_eq!(model.summary(), expected);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
