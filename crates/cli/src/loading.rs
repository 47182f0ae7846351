//! How images are loaded: what is kept of them between runs, and which are kept apart.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ocellus::data::CacheOptions;
use serde::{Deserialize, Serialize};

/// What does not change the result, only how soon it is there.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Loading {
    /// Keep prepared images in this folder, so that the next run need not decode them; `none` keeps nothing
    /// [default: ocellus in the system's folder of caches].
    #[arg(long, value_name = "FOLDER|none")]
    cache: Option<PathBuf>,

    /// Keep at most this much there, such as 500MB or 20GB; what was not used for longest goes first [default: 20GB].
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    cache_size: Option<u64>,
}

impl Loading {
    /// Where prepared images are to be kept.
    pub(crate) fn cache(&self) -> Option<CacheOptions> {
        let mut options = match &self.cache {
            Some(folder) if folder.as_os_str() == "none" => return None,
            Some(folder) => CacheOptions::new(folder),
            None => CacheOptions::of_user()?,
        };
        if let Some(size) = self.cache_size {
            options.size = size;
        }
        Some(options)
    }
}

/// One of several equal parts of the training images, counted from 1: `2/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Fold {
    pub(crate) number: usize,
    pub(crate) of: usize,
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let fold = parts.filter(|&(number, of)| of >= 2 && (1..=of).contains(&number));
        let (number, of) = fold.ok_or("expected K/N, part K from 1 to N, such as 1/5")?;
        Ok(Self { number, of })
    }
}

impl TryFrom<String> for Fold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Fold> for String {
    fn from(fold: Fold) -> Self {
        format!("{}/{}", fold.number, fold.of)
    }
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    let size = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    size.ok_or_else(|| "expected a size such as 500MB or 20GB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_folds() {
        assert_eq!(
            ["20GB", "500 mb", "7", "1tb"].map(bytes),
            [20_000_000_000, 500_000_000, 7, 1_000_000_000_000].map(Ok)
        );
        assert!(["", "GB", "1.5GB", "-1", "99999999999TB", "3x"].iter().all(|text| bytes(text).is_err()));
        assert_eq!("2/5".parse(), Ok(Fold { number: 2, of: 5 }));
        assert!(["0/5", "6/5", "1/1", "2", "a/b", "1/5/9"].iter().all(|text| text.parse::<Fold>().is_err()));
    }
}
