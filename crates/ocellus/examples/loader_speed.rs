//! How fast images of class folders become batches: decoded anew, and from the cache.
//!
//! ```sh
//! cargo run --release -p ocellus --example loader_speed -- FOLDER [SIDE [EPOCHS]]
//! ```
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::Instant;

use ocellus::data::{CacheOptions, Dataset, Loader, LoaderOptions, OpenOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: loader_speed FOLDER [SIDE [EPOCHS]]")?;
    let side = arguments.next().map_or(Ok(224), |side| side.parse())?;
    let epochs = arguments.next().map_or(Ok(3), |epochs| epochs.parse())?;
    let cache = std::env::temp_dir().join(format!("ocellus-loader-speed-{}", std::process::id()));
    let mut options = OpenOptions { image_size: Some([side, side]), channels: Some(3), ..OpenOptions::default() };
    // Nothing stays in memory, as with data that does not fit it.
    options.limits.memory = 0;
    for (name, cached) in [("decoded", false), ("cached", true)] {
        if cached {
            options.cache = Some(CacheOptions { worth: std::time::Duration::ZERO, ..CacheOptions::new(&cache) });
        }
        let began = Instant::now();
        let data = Dataset::open(&folder, &options)?;
        println!("{name}: opened in {:.2} s, {:.0} images/s", began.elapsed().as_secs_f64(), rate(data.len(), began));
        let mut loader = Loader::new(data.clone(), LoaderOptions { batch_size: 64, ..LoaderOptions::default() })?;
        for epoch in 0..epochs {
            let began = Instant::now();
            loader.start_epoch(epoch);
            while loader.next_batch()?.is_some() {}
            println!("{name}: epoch {epoch}, {:.0} images/s", rate(data.len(), began));
        }
    }
    std::fs::remove_dir_all(cache)?;
    Ok(())
}

fn rate(images: usize, began: Instant) -> f64 {
    images as f64 / began.elapsed().as_secs_f64()
}
