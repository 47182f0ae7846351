//! Small files that ask for much memory or time: what they ask for is refused before it is spent.

use std::time::{Duration, Instant};

use ocellus::data::Catalog;

use super::archives::{member, samples, zip};
use super::{folder, grey, gzip, idx};

/// The message of opening these bytes, or what they hold; in a few seconds.
#[track_caller]
fn opened(name: &str, bytes: Vec<u8>) -> Result<Vec<String>, String> {
    let root = folder([(name, bytes), ("train-labels-idx1-ubyte", idx(&[2], &[0, 1]))]);
    let start = Instant::now();
    let opened = samples(&root.path().join(name));
    assert!(start.elapsed() < Duration::from_secs(60), "{name}: {:?}", start.elapsed());
    opened
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i64) -> Vec<u8> {
    varint((value << 1 ^ value >> 63) as u64)
}

/// Fields of Thrift's compact protocol, each with its number.
fn number(field: i64, value: i64) -> Vec<u8> {
    [vec![6], zigzag(field), zigzag(value)].concat()
}

fn text(field: i64, text: &str) -> Vec<u8> {
    [vec![8], zigzag(field), varint(text.len() as u64), text.into()].concat()
}

fn structure(field: i64, fields: &[Vec<u8>]) -> Vec<u8> {
    [vec![12], zigzag(field), fields.concat(), vec![0]].concat()
}

/// A list of structures.
fn list(field: i64, structures: &[Vec<u8>]) -> Vec<u8> {
    let ended = structures.iter().flat_map(|fields| fields.iter().chain(&[0]).copied());
    [vec![9], zigzag(field), vec![0xfc], varint(structures.len() as u64), ended.collect()].concat()
}

const NUMBERS: i64 = 1;
const BYTES: i64 = 6;

const DICTIONARY: i64 = 2;
const PLAIN: i64 = 0;
const INDICES: i64 = 8;

/// A page that states how many bytes and values it holds.
fn page(kind: i64, encoding: i64, unpacked: i64, values: i64, packed: &[u8]) -> Vec<u8> {
    let body = structure(if kind == DICTIONARY { 7 } else { 5 }, &[number(1, values), number(2, encoding)]);
    let sizes = [number(1, kind), number(2, unpacked), number(3, packed.len() as i64)].concat();
    [&sizes, &body, &[0][..], packed].concat()
}

/// A column of a row group: its type, how many values it states, how its pages are packed, and these.
struct Chunk {
    kind: i64,
    values: i64,
    codec: i64,
    has_dictionary: bool,
    pages: Vec<u8>,
}

fn plain(values: i64, bytes: &[u8]) -> Chunk {
    let pages = page(0, PLAIN, bytes.len() as i64, values, bytes);
    Chunk { kind: NUMBERS, values, codec: 0, has_dictionary: false, pages }
}

fn images(count: usize) -> Chunk {
    let image = [&(grey(7).len() as u32).to_le_bytes()[..], &grey(7)].concat();
    Chunk { kind: BYTES, ..plain(count as i64, &image.repeat(count)) }
}

fn footer(schema: &[Vec<u8>], groups: &[Vec<u8>]) -> Vec<u8> {
    [list(2, schema), list(4, groups), vec![0]].concat()
}

fn ended(mut bytes: Vec<u8>, footer: &[u8]) -> Vec<u8> {
    bytes.extend(footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}

/// A Parquet file of two columns, whose row groups are all the same bytes.
fn parquet(image: &Chunk, label: &Chunk, groups: usize) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    let mut group = Vec::new();
    for chunk in [image, label] {
        let start = bytes.len() as i64;
        let dictionary = if chunk.has_dictionary { number(11, start) } else { Vec::new() };
        let data = start + i64::from(chunk.has_dictionary);
        group.push(structure(3, &[number(4, chunk.codec), number(5, chunk.values), number(9, data), dictionary]));
        bytes.extend(&chunk.pages);
    }
    let column = |kind: i64, name: &str| [number(1, kind), number(3, 0), text(4, name)].concat();
    let schema = [[text(4, "root"), number(5, 2)].concat(), column(image.kind, "image"), column(label.kind, "label")];
    ended(bytes, &footer(&schema, &vec![list(1, &group); groups]))
}

fn snappy_zeros(count: usize) -> Vec<u8> {
    let mut packed = varint(count as u64);
    packed.extend([0, 0]);
    (1..count).step_by(64).for_each(|_| packed.extend([63 << 2 | 2, 1, 0]));
    packed
}

#[test]
fn parquet_files_that_ask_for_much() {
    let labels = || plain(2, &[0, 0, 0, 0, 1, 0, 0, 0]);
    let good = ["x.parquet[0] 0 training 7", "x.parquet[1] 1 training 7"];
    assert_eq!(opened("x.parquet", parquet(&images(2), &labels(), 1)).unwrap(), good);
    let chunk = |codec, pages: Vec<u8>| Chunk { kind: NUMBERS, values: 2, codec, has_dictionary: false, pages };
    // Zero and one, one value of the dictionary in each of 2^31 - 1 rows.
    let dictionary = page(DICTIONARY, PLAIN, 8, 2, &[0, 0, 0, 0, 1, 0, 0, 0]);
    let run = [vec![1], varint(1), vec![], varint(0xffff_fffe), vec![1]].concat();
    let long_run = |run: &[u8]| Chunk {
        has_dictionary: true,
        ..chunk(0, [dictionary.clone(), page(0, INDICES, run.len() as i64, 2, run)].concat())
    };
    assert!(opened("x.parquet", parquet(&images(2), &long_run(&run), 1)).unwrap_err().contains("damaged"));
    let run = [vec![1, 2, 0], varint(0xffff_fffe), vec![1]].concat();
    assert_eq!(opened("x.parquet", parquet(&images(2), &long_run(&run), 1)).unwrap(), good);

    let zeros = |length: usize| gzip(&vec![0; length]);
    let wide = |length: usize| page(DICTIONARY, PLAIN, length as i64, 1, &zeros(length));
    let one = page(0, INDICES, 3, 1, &gzip(&[1, 2, 0]));
    let many = Chunk {
        kind: NUMBERS,
        values: 100,
        codec: 2,
        has_dictionary: true,
        pages: [wide(50 << 20), one.repeat(100)].concat(),
    };
    let absurd = |stated, values| Chunk { values, ..chunk(1, page(0, PLAIN, stated, values, &[0xff; 40])) };
    let text = [&(1u32 << 20).to_le_bytes()[..], &[b'x'; 1 << 20]].concat();
    let one_text = page(DICTIONARY, PLAIN, text.len() as i64, 1, &text);
    let all = [vec![1], varint(20_000 << 1), vec![0]].concat();
    let same = Chunk {
        kind: BYTES,
        values: 20_000,
        codec: 0,
        has_dictionary: true,
        pages: [one_text, page(0, INDICES, all.len() as i64, 20_000, &all)].concat(),
    };
    let nothing = |values| plain(values, &[]);
    for (what, image, label, groups, expected) in [
        (
            "a dictionary that expands",
            images(2),
            Chunk { has_dictionary: true, ..chunk(2, wide(100 << 20)) },
            1,
            "states 104857600 unpacked bytes",
        ),
        ("a dictionary for each of many pages", images(100), many, 1, "unpack to more than is trusted"),
        (
            "a page for each of many row groups",
            images(1),
            plain(1, &[0; 50_000]),
            5_000,
            "unpack to more than is trusted",
        ),
        ("a long text for each row", images(20_000), same, 1, "holds no labelled images"),
        (
            "values without end",
            Chunk { kind: BYTES, ..nothing(i64::MAX) },
            nothing(i64::MAX),
            1,
            "states more rows than",
        ),
        (
            "values without end in a page",
            images(2),
            chunk(0, page(0, PLAIN, 8, i64::MAX, &[0; 8])),
            1,
            "more values than its column",
        ),
        ("values without end in all", images(2), labels(), 1 << 16, "states more rows than"),
        ("a length of snappy", images(2), absurd(0x7fff_ffff, 2), 1, "states 2147483647 unpacked bytes"),
        ("another length of snappy", images(2), absurd(1 << 20, 2), 1, "has a page that is damaged"),
        (
            "snappy's copies of zeros",
            images(2),
            chunk(1, page(0, PLAIN, (60 << 20) + 1, 2, &snappy_zeros((60 << 20) + 1))),
            1,
            "one class only",
        ),
        ("gzip data that goes on", images(2), chunk(2, page(0, PLAIN, 8, 2, &zeros(50 << 20))), 1, "damaged"),
        (
            "gzip data that states too much",
            images(2),
            chunk(2, page(0, PLAIN, i64::MAX, 2, &zeros(8))),
            1,
            "unpacked bytes",
        ),
        ("a negative length", images(2), chunk(2, page(0, PLAIN, -1, 2, &zeros(8))), 1, "damaged header"),
        ("runs of no length", images(2), long_run(&[vec![1], [0, 0].repeat(1000)].concat()), 1, "damaged"),
    ] {
        let error = opened("x.parquet", parquet(&image, &label, groups)).expect_err(what);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn footers_of_parquet_that_ask_for_much() {
    let group = |name: &str, children| [number(3, 0), text(4, name), number(5, children)].concat();
    let leaf = [number(1, 6), number(3, 0), text(4, "x")].concat();
    // Every path would be the names of all groups around it.
    let groups = (0..50).map(|_| group(&"y".repeat(20_000), 1 << 40));
    let schema: Vec<Vec<u8>> = groups.chain((0..30_000).map(|_| leaf.clone())).collect();
    let deep = |kind: &[u8]| kind.repeat(1_000_000);
    for (what, footer, expected) in [
        ("long paths", footer(&schema, &[]), "expected the columns `image`"),
        ("structures in structures", deep(&[0x1c]), "has a damaged footer"),
        ("lists in lists", [&[0x19][..], &deep(&[0x19])].concat(), "has a damaged footer"),
        ("booleans", [deep(&[0x11; 15]), vec![0]].concat(), "has a damaged footer"),
        ("a list without end", [vec![0x19, 0xfc], varint(u64::MAX >> 1)].concat(), "has a damaged footer"),
        (
            "a map without end",
            [vec![0x1b], varint(u64::MAX), vec![0x11], vec![0; 1000]].concat(),
            "has a damaged footer",
        ),
    ] {
        let error = opened("x.parquet", ended(b"PAR1".to_vec(), &footer)).expect_err(what);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn packed_data_that_asks_for_much() {
    // Noise does not shrink, and so makes room for a lie.
    let noise: Vec<u8> =
        (0..400_000u64).map(|i| (i.wrapping_mul(i | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let images = gzip(&[idx(&[1_000_000, 20, 20], &[]), noise].concat());
    let error = opened("train-images-idx3-ubyte.gz", images).unwrap_err();
    assert!(error.contains("more than a packed file of its length is trusted with"), "{error}");

    let npy = |shape: &str, data: Vec<u8>| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &data].concat()
    };
    let arrays = [("y_train.npy", npy("(20000000,)", vec![0; 20_000_000])), ("x_train.npy", npy("(1, 1, 1)", vec![0]))];
    let error = opened("x.npz", zip(&[("a", vec![]), arrays[0].clone(), arrays[1].clone()])).unwrap_err();
    assert!(error.contains("20000000 labels, more than"), "{error}");

    // Two members whose content is the same bytes.
    let mut twice = zip(&[("a/1.png", grey(1)), ("b/2.png", grey(2)), ("b/3.png", grey(3))]);
    let last = twice.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    twice[last + 42..last + 46].fill(0);
    let root = folder([("x.zip", twice)]);
    let catalog = Catalog::open(root.path().join("x.zip")).unwrap();
    assert!(catalog.refused()[0].reason.contains("lies within another member"), "{:?}", catalog.refused());

    // Folders in folders, all of them around everything.
    let name = |index: usize| member("././@LongLink", b'L', format!("{}{index}.png", "x/".repeat(2_000)).as_bytes());
    let bytes: Vec<u8> = (0..4_000).flat_map(|index| [name(index), member("x", b'0', &[])].concat()).collect();
    assert!(opened("x.tar.gz", gzip(&bytes)).unwrap_err().contains("one class only"));
}

#[test]
fn a_quote_that_is_not_closed_takes_a_row_of_memory() {
    let mut bytes = b"path,label\n1.png,a\n\"".to_vec();
    bytes.resize(5_000_000, b'x');
    let error = opened("m.csv", bytes).unwrap_err();
    assert!(error.contains("line 3 begins a row that cannot be read"), "{error}");
    assert!(error.contains("longer than 1048576 bytes; is a quote not closed?"), "{error}");
}
