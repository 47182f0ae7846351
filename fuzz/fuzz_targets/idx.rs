//! IDX files of images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::data(
    "train-images-idx3-ubyte",
    bytes,
    &[("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02\0\x01")]
));
