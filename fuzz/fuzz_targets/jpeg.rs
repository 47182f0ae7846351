//! Checked images: the coded data of JPEG files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::checked(bytes));
