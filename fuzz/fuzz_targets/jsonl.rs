//! Manifests of lines of JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocellus_fuzz::data("m.jsonl", bytes, &[]));
