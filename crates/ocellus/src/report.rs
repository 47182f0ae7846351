//! What people read of a result: tables for the terminal and pictures in SVG, as pure functions that return text.

mod class_table;
mod confusion_matrix_svg;
mod confusion_table;
mod image_png;
mod learning_curves_svg;
mod range_test_svg;
mod svg;
mod text;

pub use class_table::class_table;
pub use confusion_matrix_svg::confusion_matrix_svg;
pub use confusion_table::{confusion_table, most_confused};
pub use image_png::image_png;
pub use learning_curves_svg::learning_curves_svg;
pub use range_test_svg::range_test_svg;
pub use text::{percent, printable};
