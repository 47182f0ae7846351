//! Prepared images kept on disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use ocellus::data::{CacheOptions, Dataset, Filter, OpenOptions, Preprocessing, Resize};
use tempfile::TempDir;

use super::{encode, folder, grey};

fn options(cache: &Path, memory: u64) -> OpenOptions {
    let cache = CacheOptions { folder: cache.to_owned(), size: 1 << 20, worth: Duration::ZERO };
    let mut options = OpenOptions { cache: Some(cache), ..Default::default() };
    options.limits.memory = memory;
    options
}

/// The first pixel of every image.
fn pixels(data: &Dataset) -> Vec<u8> {
    let mut pixels = vec![0; data.image_len()];
    let first = |index| {
        data.copy_image(index, &mut pixels).unwrap();
        pixels[0]
    };
    (0..data.len()).map(first).collect()
}

fn files(cache: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Three images, and one that is none.
fn images() -> TempDir {
    folder([("a/1.png", grey(1)), ("a/2.png", b"none".to_vec()), ("b/3.png", grey(3)), ("b/4.png", grey(4))])
}

/// Write other content of the same length, and have it look untouched or not.
fn rewrite(path: &Path, value: u8, touched: bool) {
    let before = fs::metadata(path).unwrap();
    let mut bytes = grey(value);
    // The length of a compressed image may differ by a byte or so; what follows its end is ignored.
    bytes.resize(before.len() as usize, 0);
    fs::write(path, bytes).unwrap();
    let time = if touched { SystemTime::now() + Duration::from_secs(5) } else { before.modified().unwrap() };
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn images_are_decoded_once_until_they_change() {
    for memory in [0, 1 << 20] {
        let (root, cache) = (images(), tempfile::tempdir().unwrap());
        let options = options(cache.path(), memory);
        let open = || Dataset::open(root.path(), &options).unwrap();
        let first = open();
        assert_eq!((pixels(&first), first.in_memory(), first.skipped().len()), (vec![1, 3, 4], memory > 0, 1));
        let made = files(cache.path());
        assert_eq!(made.len(), 1, "{made:?}");
        let fingerprint = first.fingerprint().unwrap();

        // Where nothing has changed, nothing is made anew.
        File::options().append(true).open(&made[0]).unwrap().set_permissions(read_only(&made[0])).unwrap();
        let again = open();
        assert_eq!((pixels(&again), again.skipped().len()), (vec![1, 3, 4], 1));
        assert_eq!(again.fingerprint().unwrap(), fingerprint);
        assert_eq!(files(cache.path()), made);
        assert!(fs::metadata(&made[0]).unwrap().permissions().readonly(), "another file has its name");
        // A file that has changed is read, also where a damaged one was, and where it has the old one's length and time.
        rewrite(&root.path().join("b/3.png"), 33, true);
        fs::write(root.path().join("a/2.png"), grey(2)).unwrap();
        assert_eq!(pixels(&open()), [1, 2, 33, 4]);
        if cfg!(unix) {
            rewrite(&root.path().join("b/3.png"), 30, false);
            assert_eq!(pixels(&open()), [1, 2, 30, 4]);
            rewrite(&root.path().join("b/3.png"), 33, false);
        }
        // Files that are gone, and new ones.
        fs::remove_file(root.path().join("b/4.png")).unwrap();
        fs::write(root.path().join("a/0.png"), grey(200)).unwrap();
        assert_eq!(pixels(&open()), [200, 1, 2, 33]);
        assert_eq!(pixels(&open()), [200, 1, 2, 33]);
        // Another size has a file of its own.
        let larger = OpenOptions { image_size: Some([9, 9]), ..options.clone() };
        assert_eq!(pixels(&Dataset::open(root.path(), &larger).unwrap()), [200, 1, 2, 33]);
        assert_eq!(files(cache.path()).len(), 2);
    }
}

fn read_only(path: &Path) -> fs::Permissions {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(true);
    permissions
}

#[test]
fn images_prepared_in_another_way_are_not_taken_for_these() {
    let edge = |x: u32| if x == 0 { 250 } else { 10 };
    let image = || encode(&DynamicImage::from(GrayImage::from_fn(8, 8, |x, _| Luma([edge(x)]))), ImageFormat::Png);
    let (root, cache) = (folder([("a/1.png", image()), ("b/2.png", image())]), tempfile::tempdir().unwrap());
    let whole = Preprocessing { image_size: [8, 8], ..Preprocessing::default() };
    let ways = [
        whole.clone(),
        Preprocessing { crop: 0.5, ..whole.clone() },
        Preprocessing { channels: 3, ..whole.clone() },
        Preprocessing { crop: 0.5, filter: Filter::CatmullRom, ..whole.clone() },
        Preprocessing { image_size: [16, 4], resize: Resize::CenterCrop, ..whole.clone() },
        Preprocessing { image_size: [16, 4], ..whole },
    ];
    for preprocessing in ways.iter().chain(&ways) {
        let kept = OpenOptions { preprocessing: Some(preprocessing.clone()), ..options(cache.path(), 0) };
        let unkept = OpenOptions { cache: None, ..kept.clone() };
        let [kept, unkept] = [kept, unkept].map(|options| {
            let data = Dataset::open(root.path(), &options).unwrap();
            let mut pixels = vec![0; data.image_len()];
            data.copy_image(0, &mut pixels).unwrap();
            pixels
        });
        assert_eq!(kept, unkept, "{preprocessing:?}");
    }
    assert_eq!(files(cache.path()).len(), ways.len());
}

#[test]
fn damage_to_the_cache_is_noticed() {
    let (root, cache) = (images(), tempfile::tempdir().unwrap());
    let options = options(cache.path(), 0);
    let open = || pixels(&Dataset::open(root.path(), &options).unwrap());
    assert_eq!(open(), [1, 3, 4]);
    let file = files(cache.path()).remove(0);
    let good = fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        assert_eq!(open(), [1, 3, 4], "byte {at}");
    }
    for keep in [0, 10, 64, 100, good.len() - 1] {
        fs::write(&file, &good[..keep]).unwrap();
        assert_eq!(open(), [1, 3, 4], "{keep} bytes");
    }
    let mut absurd = good;
    absurd[8..16].fill(0xff);
    fs::write(&file, absurd).unwrap();
    assert_eq!(open(), [1, 3, 4]);
}

#[test]
fn the_cache_keeps_to_its_size() {
    let (root, cache) = (images(), tempfile::tempdir().unwrap());
    let mut options = options(cache.path(), 0);
    let small = |size, options: &mut OpenOptions| options.cache.as_mut().unwrap().size = size;
    // Room for two of four records of 32 + 64 bytes.
    small(64 + 2 * 96, &mut options);
    for _ in 0..2 {
        assert_eq!(pixels(&Dataset::open(root.path(), &options).unwrap()), [1, 3, 4]);
        assert_eq!(fs::metadata(&files(cache.path())[0]).unwrap().len(), 64 + 2 * 96);
    }
    let other = images();
    assert_eq!(pixels(&Dataset::open(other.path(), &options).unwrap()), [1, 3, 4]);
    assert_eq!(files(cache.path()).len(), 1, "the older one is gone");
    // Less than one image: a note, and no file.
    small(100, &mut options);
    let data = Dataset::open(images().path(), &options).unwrap();
    assert!(data.notes().iter().any(|note| note.contains("less than one image")), "{:?}", data.notes());
    // A place that cannot be written to.
    options.cache.as_mut().unwrap().folder = root.path().join("a/1.png/cache");
    small(1 << 20, &mut options);
    let data = Dataset::open(root.path(), &options).unwrap();
    assert_eq!(pixels(&data), [1, 3, 4]);
    assert!(data.notes().iter().any(|note| note.contains("could not be kept")), "{:?}", data.notes());
    // What takes no time is not kept.
    let quick = tempfile::tempdir().unwrap();
    let cache = CacheOptions { folder: quick.path().into(), size: 1 << 20, worth: Duration::from_secs(60) };
    Dataset::open(root.path(), &OpenOptions { cache: Some(cache), ..Default::default() }).unwrap();
    assert!(files(quick.path()).is_empty());
}

#[test]
fn runs_may_share_the_cache() {
    let (root, cache) = (images(), tempfile::tempdir().unwrap());
    let options = options(cache.path(), 0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let data = Dataset::open(root.path(), &options).unwrap();
                    assert_eq!(pixels(&data), [1, 3, 4]);
                    // The file goes while others read it.
                    if let Some(file) =
                        files(cache.path()).into_iter().find(|file| file.extension().unwrap() == "pixels")
                    {
                        let _ = fs::remove_file(file);
                    }
                    assert_eq!(pixels(&data), [1, 3, 4]);
                }
            });
        }
    });
    assert!(files(cache.path()).iter().all(|file| file.extension().is_some_and(|end| end == "pixels")));
}
