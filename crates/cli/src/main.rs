//! The `ocellus` binary.
fn main() {}
