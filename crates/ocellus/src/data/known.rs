//! Data sets that are known by name.

use std::path::PathBuf;

/// A data set that can be given by its name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Known {
    /// What to call it.
    pub name: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// The licence of the images.
    pub licence: &'static str,
    /// Number of training and of test images.
    pub sizes: [usize; 2],
    /// `[height, width, channels]`
    pub image_shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Where it comes from, or how to get it.
    pub source: &'static str,
    /// Whether the binary carries it.
    pub in_binary: bool,
    /// The folder it was found in, if it was.
    pub folder: Option<PathBuf>,
}

/// Folder of Debian's `dataset-*` packages.
const DEBIAN: &str = "/usr/share/datasets";

/// The variable that names a folder of data sets, each in a folder of its name.
const VARIABLE: &str = "OCELLUS_DATA";

/// All known data sets, with where they are on this machine. They are looked for in `$OCELLUS_DATA/NAME` and in
/// `/usr/share/datasets/NAME`, where Debian's packages put them.
#[must_use]
pub fn known() -> Vec<Known> {
    let folders: Vec<PathBuf> =
        std::env::var_os(VARIABLE).map(PathBuf::from).into_iter().chain([DEBIAN.into()]).collect();
    let table = [
        Known {
            name: Known::BUILTIN,
            description: "600 + 100 articles of clothing of each class, carried in the binary",
            licence: "MIT",
            sizes: [6_000, 1_000],
            image_shape: [28, 28, 1],
            classes: 10,
            source: "part of fashion-mnist",
            in_binary: true,
            folder: None,
        },
        Known {
            name: "fashion-mnist",
            description: "articles of clothing",
            licence: "MIT",
            sizes: [60_000, 10_000],
            image_shape: [28, 28, 1],
            classes: 10,
            source: "Debian's package dataset-fashion-mnist, or https://github.com/zalandoresearch/fashion-mnist",
            in_binary: false,
            folder: None,
        },
        Known {
            name: "mnist",
            description: "handwritten digits",
            licence: "CC BY-SA 3.0",
            sizes: [60_000, 10_000],
            image_shape: [28, 28, 1],
            classes: 10,
            source: "https://yann.lecun.com/exdb/mnist (four IDX files)",
            in_binary: false,
            folder: None,
        },
        Known {
            name: "cifar10",
            description: "small photographs of animals and vehicles",
            licence: "not stated",
            sizes: [50_000, 10_000],
            image_shape: [32, 32, 3],
            classes: 10,
            source: "https://www.cs.toronto.edu/~kriz/cifar.html (binary version)",
            in_binary: false,
            folder: None,
        },
        Known {
            name: "cifar100",
            description: "small photographs",
            licence: "not stated",
            sizes: [50_000, 10_000],
            image_shape: [32, 32, 3],
            classes: 100,
            source: "https://www.cs.toronto.edu/~kriz/cifar.html (binary version)",
            in_binary: false,
            folder: None,
        },
    ];
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|folder| folder.is_dir());
    table.into_iter().map(|known| Known { folder: find(known.name), ..known }).collect()
}

impl Known {
    /// The name of the data set that the binary carries.
    pub const BUILTIN: &str = "fashion-mnist-6k";

    /// The name that training without data uses: the whole of Fashion-MNIST where it is installed, or what the binary carries.
    #[must_use]
    pub fn default_name() -> &'static str {
        let full = Self::of_name("fashion-mnist").is_some_and(|known| known.folder.is_some());
        if full { "fashion-mnist" } else { Self::BUILTIN }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        known().into_iter().find(|known| known.name == name)
    }
}
