//! Tar archives.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::data("x.tar", bytes, &[]));
