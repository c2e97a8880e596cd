//! What the readers promise, format by format, and that no file makes them panic.

use std::fmt::Write as _;
use std::io::Write as _;
use std::io::{self, Read};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Dataset, Error, Input, Table, read, read_pair};

const MEMORY: u64 = 1 << 20;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(vec![], Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn input<'a>(bytes: &'a mut &[u8]) -> Input<'a> {
    let size = Some(bytes.len() as u64);
    Input { reader: bytes, size }
}

fn labelled(mut text: &[u8], label: Option<&str>) -> Result<Dataset, Error> {
    read(input(&mut text), label, MEMORY)
}

fn dataset(text: impl AsRef<[u8]>) -> Dataset {
    labelled(text.as_ref(), None).unwrap()
}

fn table(text: impl AsRef<[u8]>) -> Table {
    dataset(text).table
}

#[track_caller]
fn refusal(text: impl AsRef<[u8]>) -> String {
    labelled(text.as_ref(), None).unwrap_err().to_string()
}

fn pair(mut images: &[u8], mut labels: &[u8], memory: u64) -> Result<Dataset, Error> {
    read_pair(input(&mut images), input(&mut labels), memory)
}

fn idx(sides: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, u8::try_from(sides.len()).unwrap()];
    sides.iter().for_each(|side| file.extend(side.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Endless, or as good as; counts what was taken of it.
struct Endless {
    text: &'static [u8],
    taken: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            *byte = self.text[self.taken % self.text.len()];
            self.taken += 1;
        }
        Ok(buffer.len())
    }
}

#[test]
fn csv_has_the_label_in_its_last_column() {
    let found = dataset("age,height,kind\n1,2.5,cat\n-3,4e2,ant\n5,6,cat\n");
    let wanted = Table {
        features: vec!["age".into(), "height".into()],
        classes: vec!["ant".into(), "cat".into()],
        values: vec![1.0, 2.5, -3.0, 400.0, 5.0, 6.0],
        labels: vec![1, 0, 1],
    };
    assert_eq!(found, Dataset { table: wanted, format: "CSV with a header", label: "kind".into() });
}

#[test]
fn csv_has_the_label_in_the_column_that_is_named() {
    let text = b"kind,age,height\ncat,1,2\nant,3,4\n";
    let found = labelled(text, Some("kind")).unwrap();
    assert_eq!(found.table.features, ["age", "height"]);
    assert_eq!(found.table.classes, ["ant", "cat"]);
    let refused = labelled(text, Some("kimd")).unwrap_err().to_string();
    assert_eq!(
        refused,
        "there is no column `kimd` to take the label from: \
         there are `kind`, `age`, `height`; did you mean `kind`?"
    );
}

#[test]
fn csv_without_a_header_has_its_columns_named_by_their_place() {
    for text in ["1,2,0\n3,4,1\n", "1,2,cat\n3,4,ant\n", "1,2,0\n"] {
        let found = labelled(text.as_bytes(), None);
        match found {
            Ok(found) => {
                assert_eq!(found.format, "CSV without a header");
                assert_eq!(found.table.features, ["0", "1"]);
                assert_eq!(found.table.row(0), [1.0, 2.0]);
            }
            Err(error) => assert!(error.to_string().contains("same label `2`: `0`"), "{error}"),
        }
    }
    let found = labelled(b"cat,1,2\nant,3,4\n", Some("0")).unwrap();
    assert_eq!((found.table.features, found.label), (vec!["1".into(), "2".into()], "0".into()));
}

#[test]
fn a_header_is_known_by_text_above_numbers() {
    // Numbers as names, as pandas writes them, under a label that is told or is a number too.
    assert_eq!(dataset("0,1,digit\n5,6,3\n7,8,4\n").format, "CSV with a header");
    let named = labelled(b"0,1,kind\n5,6,ant\n7,8,cat\n", Some("kind")).unwrap();
    assert_eq!(named.format, "CSV with a header");
    // A gap in the first row, or text above text, is none.
    assert!(refusal("1,,a\n2,3,b\n").contains("line 1, column `1`: is empty"));
    assert_eq!(refusal("a,b,kind\n"), "there are 0 rows of data");
}

#[test]
fn cells_are_between_commas_semicolons_or_tabs_and_may_be_quoted() {
    let plain = table("a,b,kind\n1,2,x\n3,4,y z\n");
    for text in [
        "a;b;kind\n1;2;x\n3;4;y z\n",
        "a\tb\tkind\n1\t2\tx\n3\t4\ty z\n",
        "a,b,kind\r\n1,2,x\r\n3,4,y z\r\n",
        "\u{feff}a,b,kind\n1,2,x\n\n3,4,y z",
        "\"a\",\"b\",\"kind\"\n\"1\", 2 ,x\n 3,\"4\",\"y z\"\n",
    ] {
        assert_eq!(table(text), plain, "{text:?}");
    }
    let quoted = table("a,kind\n1,\"x, \"\"y\"\"\"\n2,b\n");
    assert_eq!(quoted.classes, ["b", "x, \"y\""]);
}

#[test]
fn classes_are_sorted_as_numbers_if_all_are_numbers() {
    assert_eq!(table("a,k\n1,10\n1,9\n1,-1\n").classes, ["-1", "9", "10"]);
    assert_eq!(table("a,k\n1,10\n1,9\n1,x\n").classes, ["10", "9", "x"]);
    let table = table("a,k\n1,10\n1,9\n1,10\n");
    assert_eq!(table.labels, [1, 0, 1]);
}

#[test]
fn every_problem_is_told_with_its_line_and_column() {
    let text = "age,size,kind\n1,2,cat\n\nabc,nan,ant\n3,cat\n4,,cat\n\"5\n\",inf,cat\n1e39,1,\n";
    assert_eq!(
        refusal(text).split("; ").collect::<Vec<_>>(),
        [
            "line 4, column `age`: `abc` is no number",
            "line 4, column `size`: `nan` is no finite number of 32 bits",
            "line 5 has 2 cells, the header has 3",
            "line 6, column `size`: is empty",
            "line 7, column `size`: `inf` is no finite number of 32 bits",
            "line 9, column `age`: `1e39` is no finite number of 32 bits",
            "line 9, column `kind`: the label is empty",
        ]
    );
}

#[test]
fn the_first_ten_problems_are_told_and_the_others_counted() {
    let refused = refusal(["a,b,kind\n1,1,x\n", &"?,1,x\n".repeat(224)].concat());
    assert_eq!(refused.matches("is no number").count(), 10, "{refused}");
    assert!(refused.ends_with("; and 214 more"), "{refused}");
}

#[test]
fn what_cannot_be_learnt_from_is_refused_in_words() {
    let many: String = (0..10_001).fold("a,id\n".into(), |mut text, n| {
        writeln!(text, "1,{n}").unwrap();
        text
    });
    let key = "k".repeat(201);
    let column = format!("{{\"{key}\": 1, \"label\": 2}}");
    let label = format!("{{\"a\": 1, \"{key}\": 2}}");
    // Together 15 MB, if one made them.
    let names = format!("{{\"{}\": [{}1], \"label\": 2}}", &key[..150], "1,".repeat(99_999));
    let cases: [(&[u8], &str); 12] = [
        (column.as_bytes(), "kk…` names no column: a name is one line of at most 200 bytes"),
        (label.as_bytes(), "kk…` names no column: a name is one line of at most 200 bytes"),
        (names.as_bytes(), "the columns' names take more than 2 MiB"),
        (b"", "there is nothing in it: 0 rows"),
        (b" \n\n", "there is nothing in it: 0 rows"),
        (b"a,b,kind\n", "there are 0 rows of data"),
        (b"a,kind\n1,x\n2,x\n", "all rows have the same label `kind`: `x`"),
        (b"kind\nx\ny\n", "no column of numbers beside the label"),
        (many.as_bytes(), "the label `id` has more than 10000 classes"),
        (b"a,kind\n1,\"x\n2,y\n", "line 2: a quotation mark is left open"),
        (b"a,kind\n1,x\xff\n2,y\n", "line 2, column `kind`: is no UTF-8 text"),
        (b"PK\x03\x04\0\0", "neither text nor IDX"),
    ];
    for (text, wanted) in cases {
        let refused = refusal(text);
        assert!(refused.contains(wanted), "{refused}");
    }
}

#[test]
fn json_lines_hold_numbers_and_lists_of_numbers() {
    let found = dataset(
        "{\"age\": 1, \"pixels\": [[2, 3.5], [4, 5]], \"label\": 3}\n\n\
         {\"label\": 12, \"pixels\": [6, 7, 8, 9], \"age\": -1}\n",
    );
    let features = ["age", "pixels[0]", "pixels[1]", "pixels[2]", "pixels[3]"];
    assert_eq!((found.format, found.label), ("JSON Lines", "label".to_owned()));
    assert_eq!(found.table.features, features);
    assert_eq!(found.table.classes, ["3", "12"]);
    assert_eq!(found.table.row(0), [1.0, 2.0, 3.5, 4.0, 5.0]);
    assert_eq!(found.table.row(1), [-1.0, 6.0, 7.0, 8.0, 9.0]);
}

#[test]
fn the_label_of_json_lines_is_named_or_the_last_key() {
    let text = b"{\"kind\": true, \"a\": 1, \"b\": 2}\n{\"kind\": false, \"a\": 1, \"b\": 3}\n";
    let last = "{\"a\":1,\"b\":2}\n{\"b\":3,\"a\":1}\n";
    assert_eq!(dataset(last).label, "b");
    let named = labelled(text, Some("kind")).unwrap();
    assert_eq!(named.table.classes, ["false", "true"]);
    let refused = labelled(text, Some("c")).unwrap_err().to_string();
    assert!(refused.contains("there are `kind`, `a`, `b`"), "{refused}");
}

#[test]
fn every_problem_of_json_lines_is_told() {
    let refused = refusal(
        "{\"a\": 1, \"p\": [1, 2], \"label\": \"x\"}\n{\"a\": \"2\", \"p\": [1], \"label\": \"y\"}\n\
         {\"p\": [1, null], \"q\": 0, \"label\": null}\n{\"a\": 1,\n[1, 2]\n\
         {\"a\": 1e300, \"p\": {}, \"a\": 2, \"label\": \"\"}\n",
    );
    for wanted in [
        "line 2, column `a`: `2` is text, and no number",
        "line 2, column `p`: has 1 numbers, the first row has 2",
        "line 3 has `q`, the first row has not",
        "line 3, column `a`: is missing",
        "line 3, column `p`: a list of other things is no number",
        "line 3, column `label`: null names no class",
        "line 4, character 8: EOF while parsing",
        "line 5: invalid type: sequence",
        "line 6 has `a` twice",
        "line 6, column `p`: an object is no number",
    ] {
        assert!(refused.contains(wanted), "{wanted}\n{refused}");
    }
    assert!(refusal("[{\"a\": 1}]").contains("write it as JSON Lines"));
}

#[test]
fn an_idx_pair_is_images_and_labels_in_any_order_packed_or_not() {
    let images = idx(&[3, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255]);
    let labels = idx(&[3], &[7, 0, 7]);
    let found = pair(&images, &labels, MEMORY).unwrap();
    assert_eq!(found.table.features, ["pixel_0_0", "pixel_0_1", "pixel_1_0", "pixel_1_1"]);
    assert_eq!(found.table.classes, ["0", "7"]);
    assert_eq!(found.table.labels, [1, 0, 1]);
    assert_eq!(found.table.row(2), [9.0, 10.0, 11.0, 255.0]);
    assert_eq!(pair(&gz(&labels), &gz(&images), MEMORY).unwrap(), found);
}

#[test]
fn an_idx_pair_that_lies_is_refused() {
    let (images, labels) = (idx(&[2, 1, 2], &[1, 2, 3, 4]), idx(&[2], &[0, 1]));
    let cases: [(Vec<u8>, &[u8], &str); 8] = [
        (images.clone(), &images, "both IDX files are images"),
        (labels.clone(), &labels, "both IDX files are labels"),
        (images.clone(), b"a,b\n", "no IDX file"),
        (idx(&[3, 1, 2], &[0; 6]), &labels, "there are 3 images and 2 labels"),
        (idx(&[2, 1, 2], &[0; 3]), &labels, "has 19 bytes, its header speaks of 20"),
        (gz(&idx(&[2, 1, 2], &[0; 5])), &labels, "has 21 bytes, its header speaks of 20"),
        (idx(&[2, 0, 2], &[]), &labels, "no column of numbers"),
        (vec![0, 0, 13, 1, 0, 0, 0, 2], &labels, "type 0x0d, only bytes"),
    ];
    for (images, labels, wanted) in cases {
        let refused = pair(&images, labels, MEMORY).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused}");
    }
    let one = refusal(images);
    assert!(one.contains("two: the images and their labels"), "{one}");
}

#[test]
fn nothing_is_allocated_because_a_header_says_so() {
    let (images, labels) = (idx(&[u32::MAX, 1 << 12, 1 << 12], &[]), idx(&[u32::MAX], &[]));
    let refused = pair(&images, &labels, MEMORY).unwrap_err().to_string();
    assert!(refused.contains("16777216 columns"), "{refused}");
    let images = idx(&[u32::MAX, 28, 28], &[]);
    let refused = pair(&images, &labels, 4 << 30).unwrap_err().to_string();
    let wanted = "the dataset needs about 12.3 TiB in memory, this job may use 4 GiB: ";
    assert!(refused.starts_with(wanted), "{refused}");
    // Allowed, and not there.
    let refused = pair(&images, &labels, u64::MAX).unwrap_err().to_string();
    assert!(refused.contains("its header speaks of"), "{refused}");
}

#[test]
fn a_file_of_known_size_that_is_too_large_is_refused_unread() {
    for text in ["1.5,2.5,cat\n2.5,3.5,dog\n", "{\"a\":1.5,\"b\":2,\"label\":3}\n"] {
        let mut endless = Endless { text: text.as_bytes(), taken: 0 };
        let input = Input { reader: &mut endless, size: Some(1 << 40) };
        let refused = read(input, None, 1 << 30).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { at_least: false, .. }), "{refused}");
        assert!(endless.taken <= 5 << 20, "{} bytes were read", endless.taken);
    }
}

#[test]
fn a_file_of_unknown_size_is_refused_when_it_is_too_large() {
    for text in ["1.5,2.5,cat\n2.5,3.5,dog\n", "{\"a\":1.5,\"b\":2,\"label\":3}\n"] {
        let mut endless = Endless { text: text.as_bytes(), taken: 0 };
        let refused = read(Input { reader: &mut endless, size: None }, None, MEMORY).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { at_least: true, .. }), "{refused}");
        assert!(
            refused.to_string().starts_with("the dataset needs more than 1 MiB in memory"),
            "{refused}"
        );
    }
}

#[test]
fn a_row_without_an_end_is_refused() {
    for (text, wanted) in [
        (&b"1,2,"[..], "the row is longer than 4 MiB"),
        (b"{\"a\":", "line 1 is longer than 4 MiB"),
    ] {
        let mut endless = Endless { text, taken: 0 };
        let refused = read(Input { reader: &mut endless, size: None }, None, 1 << 30).unwrap_err();
        assert!(refused.to_string().contains(wanted), "{refused}");
        assert!(endless.taken <= 10 << 20, "{} bytes were read", endless.taken);
    }
    let mut endless = Endless { text: b"1,2,x\n", taken: 0 };
    let mut text = (&b"1,2,x\n\n1,\"2,x\n"[..]).chain(&mut endless);
    let refused = read(Input { reader: &mut text, size: None }, None, 1 << 30).unwrap_err();
    assert!(refused.to_string().contains("a quotation mark is left open there"), "{refused}");
    assert!(endless.taken <= 10 << 20, "{} bytes were read", endless.taken);
}

#[test]
fn what_is_packed_is_read_as_what_it_holds_and_not_without_a_bound() {
    let text = "a,b,kind\n1,2,x\n3,4,y\n";
    assert_eq!(table(gz(text.as_bytes())), table(text));
    let packed = gz(text.as_bytes());
    let damaged = refusal(&packed[..packed.len() - 9]);
    assert!(damaged.contains("the gzip file is damaged or cut off"), "{damaged}");
    let padded = ["1,2,x", &" ".repeat(1000), "\n"].concat();
    let bomb = gz(&[text.as_bytes(), &padded.as_bytes().repeat(17 << 10)].concat());
    assert!(bomb.len() < 1 << 20);
    let refused = refusal(&bomb);
    assert!(refused.contains("unpacked it is more than 16777216 bytes"), "{refused}");
}

#[test]
fn a_failing_read_is_told_as_one() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let refused = read(Input { reader: &mut Broken, size: None }, None, MEMORY).unwrap_err();
    assert!(matches!(refused, Error::Read(_)), "{refused}");
}

#[test]
fn the_hash_is_of_the_content_and_not_of_the_file() {
    let hash = |text: &str| table(text).hash();
    let first = hash("a,b,kind\n1,2.50,x\n3,4,y\n");
    assert_eq!(first, table(gz(b"a;b;kind\r\n1;2.5;x\r\n3;4;y")).hash());
    assert_eq!(first, hash("{\"a\":1,\"b\":2.5,\"kind\":\"x\"}\n{\"a\":3,\"b\":4,\"kind\":\"y\"}"));
    for other in [
        "a,c,kind\n1,2.5,x\n3,4,y\n",
        "a,b,kind\n1,2.5,x\n3,4,z\n",
        "a,b,kind\n1,2.5,x\n3,5,y\n",
        "a,b,kind\n1,2.5,y\n3,4,x\n",
    ] {
        assert_ne!(first, hash(other), "{other}");
    }
    // By a script in Python that follows the head of `hash.rs` with hashlib and struct.
    assert_eq!(first, "a6c7321f43504ea7000d2408e453a2109e9f8dc51c9d598df954a215c6fceb68");
}

/// All files that differ from `file` by a cut or by one byte.
fn damaged(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cuts = (0..file.len()).map(|end| file[..end].to_vec());
    let flips = (0..file.len()).flat_map(move |at| {
        [0x01, 0x10, 0x80, 0xff].map(|flip| {
            let mut file = file.to_vec();
            file[at] ^= flip;
            file
        })
    });
    cuts.chain(flips)
}

fn assert_sound(table: &Table) {
    assert_eq!(table.values.len(), table.rows() * table.features.len());
    assert!(table.values.iter().all(|value| value.is_finite()));
    assert!(table.classes.len() >= 2);
    assert!(table.labels.iter().all(|label| (*label as usize) < table.classes.len()));
}

#[test]
fn a_damaged_text_is_refused_or_sound() {
    let csv = b"a,\"b c\",kind\n1,2.5,x\n-3e1,\"4\",\"y\"\"z\"\n5,6,x\n";
    let json = b"{\"a\":1,\"p\":[2,3],\"label\":\"x\"}\n{\"a\":-4e1,\"p\":[5,6],\"label\":\"y\"}\n";
    for file in [&csv[..], json, &gz(csv), &gz(json)] {
        for file in damaged(file) {
            for label in [None, Some("a")] {
                if let Ok(found) = labelled(&file, label) {
                    assert_sound(&found.table);
                }
            }
        }
    }
}

#[test]
fn a_damaged_idx_pair_is_refused_or_sound() {
    let (images, labels) = (idx(&[3, 1, 2], &[1, 2, 3, 4, 5, 6]), idx(&[3], &[0, 1, 1]));
    for images in damaged(&images).chain(damaged(&gz(&images))) {
        let found = pair(&images, &labels, MEMORY).ok();
        found.iter().for_each(|found| assert_sound(&found.table));
    }
    for labels in damaged(&labels).chain(damaged(&gz(&labels))) {
        let found = pair(&images, &labels, MEMORY).ok();
        found.iter().for_each(|found| assert_sound(&found.table));
    }
}

fn fuzzed(found: Result<Dataset, Error>) -> String {
    match found {
        Ok(found) => {
            assert_sound(&found.table);
            let width = found.table.features.len();
            format!("{} columns {}", found.format, if width > 2 { "many" } else { "few" })
        }
        Err(error) => error.to_string(),
    }
}

const WORDS: [&str; 16] = [
    "\n", "\r\n", ",", ";", "\t", "\"", "\"\"", "{", "}", "[", "]", ":", "1e39", "-0.0", "NaN",
    "\u{feff}",
];

#[test]
fn fuzz_table() {
    crate::fuzz::run("table", &WORDS, |bytes| {
        let as_it_is = fuzzed(labelled(bytes, None));
        fuzzed(labelled(bytes, Some("a")));
        fuzzed(labelled(&gz(bytes), None));
        as_it_is
    });
}

#[test]
fn fuzz_rows() {
    crate::fuzz::run("rows", &WORDS, |mut bytes| {
        let features = ["a", "b"].map(str::to_owned);
        match super::rows::rows(input(&mut bytes), &features, MEMORY) {
            Ok(values) => {
                assert!(values.iter().all(|value| value.is_finite()));
                assert!(values.len() % features.len() == 0 && !values.is_empty());
                "rows".into()
            }
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn fuzz_idx() {
    crate::fuzz::run("idx", &[], |bytes| {
        // The second file begins where its first bytes say.
        let begin = bytes.windows(4).rposition(|window| window == [0, 0, 8, 1]);
        let (images, labels) = bytes.split_at(begin.unwrap_or(bytes.len() / 2));
        fuzzed(labelled(bytes, None));
        fuzzed(pair(images, labels, MEMORY))
    });
}
