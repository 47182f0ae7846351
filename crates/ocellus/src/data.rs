//! Labelled images: where they come from, how they are prepared, and how training gets them in batches.
//!
//! [`Dataset::open`] is the one way in. It recognises what lies at a path (class folders, manifests, IDX, CIFAR binary) or behind a
//! name (`fashion-mnist`), checks it, and gives indexed samples of one shape: `u8` pixels in the order height, width,
//! channels, a label, and a name to find the image again. [`Loader`] cuts a data set into shuffled batches.
//!
//! ```
//! use ocellus::data::{self, Loader, LoaderOptions, Split};
//! let train = data::builtin(Split::Train)?;
//! assert_eq!((train.len(), train.image_shape()), (6000, [28, 28, 1]));
//!
//! let mut loader = Loader::new(train, LoaderOptions { batch_size: 32, ..Default::default() })?;
//! loader.start_epoch(0);
//! while let Some(batch) = loader.next_batch()? {
//!     assert_eq!(batch.pixels.len(), batch.len() * 28 * 28);
//! }
//! # Ok::<(), ocellus::data::DataError>(())
//! ```
//!
//! Files are taken to be from strangers: every error names the file, what was expected and what came, and no file makes
//! a reader panic or take more memory than its limits allow.

pub mod augment;
mod builtin;
mod cache;
mod catalog;
mod cifar;
mod dataset;
pub(crate) mod decode;
mod divide;
mod error;
pub(crate) mod fingerprint;
mod folder;
mod idx;
mod images;
mod known;
mod loader;
mod manifest;
mod members;
mod mnist;
mod npz;
mod open;
mod parquet;
mod positioned;
mod preprocessing;
mod source;
mod splits;
mod store;
mod tar;
mod unlabelled;
mod zip;

pub use augment::Augment;
pub use builtin::builtin;
pub use cache::CacheOptions;
pub use catalog::{Catalog, Content};
pub use dataset::{Dataset, Skipped, Split};
pub use error::{DataError, ImageProblem};
pub(crate) use folder::is_stray;
pub use known::{Known, known};
pub use loader::{Batch, Loader, LoaderOptions, Sampler};
pub use open::{Limits, OpenOptions, Progress, splits_of};
pub use preprocessing::{Filter, Preprocessing, Resize};
pub use source::Source;
pub use splits::Splits;
