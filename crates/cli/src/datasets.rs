//! `ocellus datasets`: the data sets that have a name.

use anyhow::Result;
use ocellus::data::{Known, known};
use serde::Serialize;

use crate::arguments::List;
use crate::output::{print, print_json, shape, table, thousands};

pub(crate) fn run(arguments: List) -> Result<()> {
    let known = known();
    if arguments.json {
        return print_json(&known.iter().map(Entry::of).collect::<Vec<_>>());
    }
    let header = ["name", "images", "shape", "classes", "licence", "where"];
    let rows: Vec<Vec<String>> = known.iter().map(row).collect();
    let table = table(&header, &rows, &[1, 3]);
    let default = Known::default_name();
    print(format_args!("{table}\nWithout DATA, `ocellus train` takes {default}.\n"))
}

fn row(known: &Known) -> Vec<String> {
    let [train, test] = known.sizes;
    let place = match &known.folder {
        _ if known.in_binary => "in this program".into(),
        Some(folder) => folder.display().to_string(),
        None => format!("not here; {}", known.source),
    };
    vec![
        known.name.into(),
        format!("{} + {}", thousands(train as u64), thousands(test as u64)),
        shape(&known.image_shape),
        known.classes.to_string(),
        known.licence.into(),
        place,
    ]
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    licence: &'a str,
    training_images: usize,
    test_images: usize,
    image_shape: [usize; 3],
    classes: usize,
    source: &'a str,
    available: bool,
    folder: Option<&'a std::path::Path>,
}

impl<'a> Entry<'a> {
    fn of(known: &'a Known) -> Self {
        Self {
            name: known.name,
            description: known.description,
            licence: known.licence,
            training_images: known.sizes[0],
            test_images: known.sizes[1],
            image_shape: known.image_shape,
            classes: known.classes,
            source: known.source,
            available: known.in_binary || known.folder.is_some(),
            folder: known.folder.as_deref(),
        }
    }
}
