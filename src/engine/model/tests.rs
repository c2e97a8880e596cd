//! What is written, what is read of it, and what a hostile file gets.

use super::*;

const LIMITS: Limits = Limits { layers: 8, width: 1000, parameters: 100_000 };

/// 3 inputs, 4 hidden, 2 classes.
fn model() -> Model {
    let numbers = |count: u8, by: f32| (0..count).map(|n| f32::from(n) * by - 1.0).collect();
    Model {
        layers: vec![
            Layer { inputs: 3, outputs: 4, weight: numbers(12, 0.25), bias: numbers(4, 0.5) },
            Layer { inputs: 4, outputs: 2, weight: numbers(8, 0.125), bias: numbers(2, 1.0) },
        ],
        mean: numbers(3, 3.0),
        scale: numbers(3, 7.0),
        features: ["länge", "width \"x\"", "2"].map(str::to_owned).to_vec(),
        classes: ["no", "yes"].map(str::to_owned).to_vec(),
        notes: [("seed", "7"), ("dataset", "iris"), ("accuracy", "0.96")]
            .map(|(name, note)| (name.to_owned(), note.to_owned()))
            .to_vec(),
    }
}

/// A file with this header, and so many bytes of numbers after it.
fn file(header: &str, numbers: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; numbers]].concat()
}

/// Of a tensor of these sides from byte `begin` on.
fn entry(name: &str, shape: &[u64], begin: u64) -> String {
    let end = begin + 4 * shape.iter().product::<u64>();
    format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}")
}

/// A file of zeros with tensors of these names and shapes.
fn zeros(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    with_metadata("", tensors)
}

fn with_metadata(metadata: &str, tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let (mut entries, mut at) = (vec![], 0);
    if !metadata.is_empty() {
        entries.push(format!("\"__metadata__\":{metadata}"));
    }
    for (name, shape) in tensors {
        entries.push(entry(name, shape, at));
        at += 4 * shape.iter().product::<u64>();
    }
    file(&format!("{{{}}}", entries.join(",")), usize::try_from(at).unwrap())
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let said = from_bytes(bytes, LIMITS).unwrap_err().to_string();
    assert_eq!(said, format!("this model cannot be loaded: {why}"));
}

const PLAIN: [(&str, &[u64]); 4] =
    [("0.weight", &[4, 3]), ("0.bias", &[4]), ("2.weight", &[2, 4]), ("2.bias", &[2])];

#[test]
fn what_is_written_reads_back_the_same() {
    assert_eq!(from_bytes(&to_bytes(&model()), LIMITS), Ok(model()));
}

#[test]
fn the_bytes_of_a_model_are_these_and_no_others() {
    let bytes = to_bytes(&model());
    let length = usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
    assert_eq!(
        str::from_utf8(&bytes[8..8 + length]).unwrap().trim_end(),
        concat!(
            r#"{"__metadata__":{"architecture":"dense 3-4-2, ReLU between, softmax at the end","#,
            r#""classes":"[\"no\",\"yes\"]","features":"[\"länge\",\"width \\\"x\\\"\",\"2\"]","#,
            r#""notes":"{\"seed\":\"7\",\"dataset\":\"iris\",\"accuracy\":\"0.96\"}"},"#,
            r#""input.mean":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"#,
            r#""input.scale":{"dtype":"F32","shape":[3],"data_offsets":[12,24]},"#,
            r#""0.weight":{"dtype":"F32","shape":[4,3],"data_offsets":[24,72]},"#,
            r#""0.bias":{"dtype":"F32","shape":[4],"data_offsets":[72,88]},"#,
            r#""2.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[88,120]},"#,
            r#""2.bias":{"dtype":"F32","shape":[2],"data_offsets":[120,128]}}"#,
        )
    );
    assert_eq!((length % 8, bytes.len()), (0, 8 + length + 128));
    assert_eq!(bytes[8 + length..][..4], (-1.0_f32).to_le_bytes());
}

#[test]
fn the_plain_weights_of_somebody_elses_network_are_understood() {
    let plain = from_bytes(&with_metadata(r#"{"format":"pt"}"#, &PLAIN), LIMITS).unwrap();
    assert_eq!(plain.classes, ["0", "1"]);
    assert_eq!(plain.features, ["0", "1", "2"]);
    assert_eq!((plain.mean, plain.scale), (vec![0.0; 3], vec![1.0; 3]));
    assert_eq!((plain.layers.len(), plain.notes), (2, vec![]));
    let shuffled = [PLAIN[3], PLAIN[0], PLAIN[2], PLAIN[1]];
    assert!(from_bytes(&zeros(&shuffled), LIMITS).is_ok(), "in whatever order they lie");
}

#[test]
fn every_shape_is_held_against_its_neighbours() {
    let wide: &[u64] = &[2, 5];
    refused(
        &zeros(&[PLAIN[0], PLAIN[1], ("2.weight", wide), PLAIN[3]]),
        "2.weight is [2, 5], but 0.weight gives 4 outputs",
    );
    refused(&zeros(&[PLAIN[0], ("0.bias", &[3])]), "0.bias is [3], and should be [4]");
    refused(&zeros(&[("0.weight", &[24]), PLAIN[1]]), "0.weight is [24], and no matrix");
    refused(
        &zeros(&[("0.weight", &[4, 0]), PLAIN[1]]),
        "0.weight is [4, 0]: a layer has 1 to 1000 inputs and outputs",
    );
    refused(
        &zeros(&[("0.weight", &[1, 4]), ("0.bias", &[1])]),
        "its last layer gives 1 output: a network that tells classes apart gives at least 2",
    );
    let mean: (&str, &[u64]) = ("input.mean", &[4]);
    refused(&zeros(&[PLAIN[0], PLAIN[1], mean]), "input.mean is [4], and should be [3]");
    refused(
        &zeros(&[PLAIN[0], PLAIN[1], ("input.scale", &[3])]),
        "it has only one of input.mean and input.scale",
    );
}

#[test]
fn what_is_missing_or_has_no_place_is_named() {
    refused(b"{}", "2 bytes are no safetensors file");
    refused(&file("{}", 0), &format!("0.weight is missing: {FORM}"));
    refused(
        &zeros(&[("net.0.weight", &[4, 3])]),
        &format!("0.weight is missing, and net.0.weight is there: {FORM}"),
    );
    refused(
        &zeros(&[PLAIN[0], PLAIN[2]]),
        &format!("0.bias is missing, and 2.weight is there: {FORM}"),
    );
    refused(
        &zeros(&[PLAIN[0], PLAIN[1], ("3.weight", &[2, 4])]),
        &format!("3.weight has no place in it: {FORM}"),
    );
}

#[test]
fn names_are_as_many_as_the_network_has_ends_and_each_stands_once() {
    let named = |metadata: &str| with_metadata(metadata, &PLAIN);
    refused(&named(r#"{"classes":"[\"a\"]"}"#), "it names 1 classes for 2 outputs");
    refused(&named(r#"{"classes":"[\"a\",\"a\"]"}"#), "classes: a stands there twice");
    refused(&named(r#"{"features":"[\"a\"]"}"#), "it names 1 features for 3 inputs");
    refused(
        &named(r#"{"classes":"[\"a\",\"b\\n\"]"}"#),
        "classes: b: a name is one line of at most 200 bytes",
    );
    refused(
        &named(r#"{"classes":"a, b"}"#),
        "classes cannot be understood: expected value at line 1 column 1",
    );
    refused(
        &named(r#"{"classes":2}"#),
        "its metadata cannot be understood: invalid type: integer `2`, expected a string at line 1 column 12",
    );
}

#[test]
fn a_number_that_is_none_is_found() {
    let mut model = model();
    model.layers[1].weight[5] = f32::NAN;
    refused(&to_bytes(&model), "2.weight holds NaN at 5");
    model.layers[1].weight[5] = f32::NEG_INFINITY;
    refused(&to_bytes(&model), "2.weight holds -inf at 5");
}

#[test]
fn a_model_that_is_too_large_is_not_loaded() {
    let loaded = |limits| from_bytes(&to_bytes(&model()), limits).map_err(|why| why.0);
    let told = |limits| loaded(limits).unwrap_err();
    assert_eq!(told(Limits { layers: 1, ..LIMITS }), "it has more than 1 layers");
    assert_eq!(
        told(Limits { width: 3, ..LIMITS }),
        "0.weight is [4, 3]: a layer has 1 to 3 inputs and outputs"
    );
    assert_eq!(
        told(Limits { parameters: 31, ..LIMITS }),
        "it has 32 numbers, at most 31 are allowed"
    );
    assert_eq!(loaded(Limits { layers: 2, width: 4, parameters: 32 }), Ok(model()));
}

/// What a header claims is held against the bytes that are there before anything is made of it: else
/// these would ask for exabytes.
#[test]
fn a_header_that_lies_is_refused() {
    let with_length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    for length in [1 << 63, u64::MAX, 1 << 40] {
        refused(
            &with_length(length),
            &format!(
                "its header is {length} bytes long, or it is no safetensors file: 33554432 are read"
            ),
        );
    }
    refused(&with_length(3), "it is cut off: its header should have 3 bytes, and 2 are there");
    let one = |shape: &str, offsets: &str, dtype: &str| {
        let entry = format!(
            "{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        );
        file(&entry, 16)
    };
    let does_not_fit =
        |shape, bytes| format!("a is {shape}, which does not fit into its bytes {bytes}");
    refused(&one("[2,2]", "[0,16]", "F16"), "a is F16: only F32 is read");
    refused(&one("[2,3]", "[0,16]", "F32"), &does_not_fit("[2, 3]", "0 to 16"));
    let huge = "4294967296, 4294967296, 4294967296";
    refused(
        &one(&format!("[{huge}]"), "[0,16]", "F32"),
        &does_not_fit(&format!("[{huge}]"), "0 to 16"),
    );
    refused(&one("[2,2]", "[16,0]", "F32"), "a follows a gap: it begins at 16 instead of 0");
    refused(
        &one("[1152921504606846976]", "[0,4611686018427387904]", "F32"),
        "it is cut off: a should end at 4611686018427387904, the file does at 16",
    );
    refused(&one("[3]", "[0,12]", "F32"), "4 bytes at its end belong to no tensor");
    refused(
        &one("[-1]", "[0,16]", "F32"),
        "its entry a cannot be understood: invalid value: integer `-1`, expected u64 at line 1 column 26",
    );
}

#[test]
fn tensors_lie_side_by_side() {
    let two = |begin| {
        let entries = [entry("0.weight", &[4, 3], 0), entry("0.bias", &[4], begin)];
        file(&format!("{{{}}}", entries.join(",")), 64)
    };
    let zeros = Layer { inputs: 3, outputs: 4, weight: vec![0.0; 12], bias: vec![0.0; 4] };
    assert_eq!(from_bytes(&two(48), LIMITS).unwrap().layers, [zeros]);
    refused(&two(44), "0.bias overlaps the tensor before it: it begins at 44 instead of 48");
    refused(&two(52), "0.bias follows a gap: it begins at 52 instead of 48");
}

#[test]
fn a_name_stands_once() {
    let twice = [entry("a", &[1], 0), entry("a", &[1], 0)].join(",");
    refused(
        &file(&format!("{{{twice}}}"), 4),
        "its header cannot be understood: a stands there twice at line 1 column 57",
    );
    let many: Vec<String> = (0..10_001).map(|n| format!("\"{n}\":0")).collect();
    let said = from_bytes(&file(&format!("{{{}}}", many.join(",")), 0), LIMITS).unwrap_err();
    assert!(said.0.contains("more than 10000 names"), "{said}");
}

#[test]
fn a_header_nested_without_end_is_refused_like_any_other() {
    let deep = "[".repeat(1_000_000);
    let closed = format!("{deep}{}", "]".repeat(1_000_000));
    let within =
        format!("{{\"dtype\":\"F32\",\"x\":{closed},\"shape\":[],\"data_offsets\":[0,4]}}");
    for header in [format!("{{\"a\":{deep}"), format!("{{\"a\":{closed}}}"), deep, closed] {
        let said = from_bytes(&file(&header, 0), LIMITS).unwrap_err();
        assert!(said.0.contains(" cannot be understood: "), "{said}");
    }
    refused(
        &file(&format!("{{\"a\":{within}}}"), 4),
        &format!("0.weight is missing, and a is there: {FORM}"),
    );
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bytes = to_bytes(&model());
    for end in 0..bytes.len() {
        assert!(from_bytes(&bytes[..end], LIMITS).is_err(), "cut at {end}");
    }
    assert!(from_bytes(&[&*bytes, &[0]].concat(), LIMITS).is_err(), "one byte too many");
}

/// Either it is refused in one line, or what is loaded is sound and is written and read the same.
#[test]
fn no_flipped_byte_of_the_header_does_harm() {
    let bytes = to_bytes(&model());
    for at in 0..bytes.len() - 128 {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            match from_bytes(&bytes, LIMITS) {
                Ok(model) => assert_eq!(from_bytes(&to_bytes(&model), LIMITS), Ok(model)),
                Err(why) => {
                    let why = why.to_string();
                    assert!(why.len() < 400 && !why.contains('\n'), "{at}: {why}");
                }
            }
        }
    }
}

#[test]
fn fuzz_model() {
    const WORDS: [&str; 10] = [
        "{",
        "}",
        "[",
        "]",
        "\"F32\"",
        "\"0.weight\":",
        "\"shape\":[",
        "\"__metadata__\":",
        "1e9",
        ",",
    ];
    crate::fuzz::run("model", &WORDS, |bytes| {
        let mut bytes = bytes.to_vec();
        // Its header ends where it closes, or hardly one would be read.
        let length = bytes.get(8..).map(|rest| {
            let mut values =
                serde_json::Deserializer::from_slice(rest).into_iter::<serde::de::IgnoredAny>();
            values.next().and_then(Result::ok).map_or(rest.len(), |_| values.byte_offset())
        });
        if let Some(length) = length.filter(|_| bytes[0] != b'=') {
            bytes[..8].copy_from_slice(&(length as u64).to_le_bytes());
        }
        match from_bytes(&bytes, LIMITS) {
            Ok(model) => {
                let written = to_bytes(&model);
                let again = from_bytes(&written, LIMITS).unwrap();
                assert_eq!(to_bytes(&again), written, "it is written as it is read");
                format!("{:?} layers", model.layers.len().min(3))
            }
            Err(refusal) => refusal.to_string(),
        }
    });
}
