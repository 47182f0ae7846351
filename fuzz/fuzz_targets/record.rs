//! Records of training samples.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::record(bytes));
