//! Files of pretrained weights.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::weights(bytes));
