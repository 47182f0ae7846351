//! CIFAR files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::data("data_batch_1.bin", bytes, &[]));
