//! Files that broke other readers, one test for each class.

mod common;

use common::{Raw, small_file};
use fastllm_gguf::{DType, Error, Header, Value, ValueType, limits};

const F32: u32 = 0;
const Q4_0: u32 = 2;

#[test]
fn files_of_a_few_bytes() {
    let small = small_file();
    for len in [0, 1, 3, 4, 7, 8, 15, 16, 23, 36, 43, 49, 57] {
        assert!(Header::parse(&small[..len], len as u64).is_err(), "{len} bytes");
    }
    Raw::default().error("empty");
}

#[test]
fn other_kinds_of_files_are_named() {
    let zeros = [0; 64];
    let mut safetensors = 10u64.to_le_bytes().to_vec();
    safetensors.extend_from_slice(b"{\"a\": 1}  ");
    let cases: [(&[u8], &str); 10] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"PK\x03\x04rest", "zip"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n <html>", "HTML"),
        (b"{\"error\": \"not found\"}", "JSON"),
        (b"Entry not found", "text"),
        (b"tjgg\x03\0\0\0", "GGJT"),
        (&safetensors, "safetensors"),
        (&zeros, "zeros"),
        (b"\x7fELF\x02\x01", "not `GGUF`"),
    ];
    for (bytes, named) in cases {
        let error = Raw(bytes.to_vec()).error(named);
        assert!(matches!(error, Error::NotGguf { .. }));
    }
}

#[test]
fn other_versions_and_byte_orders() {
    for version in [0, 1, 4, u32::MAX] {
        let raw = Raw::default().bytes(b"GGUF").u32(version).u64(0).u64(0);
        assert!(matches!(raw.error("version"), Error::UnsupportedVersion { version: v } if v == version));
    }
    for version in 1u32..=3 {
        let raw = Raw::default().bytes(b"GGUF").bytes(&version.to_be_bytes()).u64(0).u64(0);
        assert!(matches!(raw.error("big-endian"), Error::BigEndian));
    }
    let version_2 = Raw::default().bytes(b"GGUF").u32(2).u64(0).u64(0);
    assert_eq!(version_2.parse().unwrap().version, 2);
}

#[test]
fn truncation_at_every_byte() {
    let file = small_file();
    let whole = Header::parse(&file, file.len() as u64).unwrap();
    let header_end = whole.data_start as usize - 31;
    for len in 0..file.len() {
        // Cut off: an error, unless only the padding after the last tensor is missing.
        let cut = Header::parse(&file[..len], len as u64);
        let last = whole.tensors.iter().map(|t| t.offset + t.bytes).max().unwrap();
        assert_eq!(cut.is_ok(), len as u64 >= last, "{len}");
        // A prefix of the whole file: "read more" until the header is there.
        match Header::parse(&file[..len], file.len() as u64) {
            Ok(header) => assert!(len >= header_end && header.tensors == whole.tensors),
            Err(error) => assert!(error.is_truncated() && len < whole.data_start as usize, "{len}: {error}"),
        }
    }
}

#[test]
fn counts_are_huge_or_wrap() {
    for count in [1, 1 << 20, 1 << 32, 1 << 60, u64::MAX / 24 + 1, 1 << 63, u64::MAX] {
        assert!(matches!(Raw::new(count, 0).error("tensor count"), Error::TooLarge { .. }));
        assert!(matches!(Raw::new(0, count).error("metadata entry count"), Error::TooLarge { .. }));
    }
    // Possible by the length of the file, but beyond the limit.
    let file_len = u64::MAX / 2;
    let raw = Raw::new(limits::TENSORS + 1, 0);
    assert!(matches!(Header::parse(&raw.0, file_len), Err(Error::TooLarge { limit: limits::TENSORS, .. })));
    let raw = Raw::new(0, limits::METADATA_ENTRIES + 1);
    assert!(matches!(Header::parse(&raw.0, file_len), Err(Error::TooLarge { limit: limits::METADATA_ENTRIES, .. })));
}

#[test]
fn string_lengths_are_huge_or_negative() {
    for len in [20, 1 << 31, 1 << 63, u64::MAX] {
        let rest = [b'x'; 16];
        assert!(matches!(Raw::new(0, 1).u64(len).bytes(&rest).error("metadata entry 0: key"), Error::TooLarge { .. }));
        Raw::new(0, 1).entry("k", ValueType::String).u64(len).bytes(&rest[..8]).error("metadata key `k`: string at byte 37");
        let tokens = Raw::new(0, 1).entry("t", ValueType::Array).u32(ValueType::String.id()).u64(1).u64(len).bytes(&rest[..8]);
        tokens.error("metadata key `t`: string");
        Raw::new(1, 0).u64(len).bytes(&[b'x'; 17]).error("tensor info 0: name");
    }
}

#[test]
fn array_lengths_are_huge_or_wrap() {
    for kind in ValueType::ALL {
        for len in [9, 1 << 29, 1 << 61, (1 << 61) + 1, 1 << 62, 1 << 63, u64::MAX] {
            let raw = Raw::new(0, 1).entry("a", ValueType::Array).u32(kind.id()).u64(len).bytes(&[0; 8]);
            assert!(matches!(raw.error("metadata key `a`: array length"), Error::TooLarge { .. }), "{kind} {len}");
        }
    }
}

#[test]
fn unknown_value_types() {
    for id in [13, 255, 1 << 31, u32::MAX] {
        Raw::new(0, 1).string("k").u32(id).u64(0).error("metadata key `k`: value type");
        Raw::new(0, 1).entry("k", ValueType::Array).u32(id).u64(0).error("array element type");
    }
}

#[test]
fn arrays_nested_too_deep() {
    let nested = |depth: u32| {
        let start = Raw::new(0, 1).entry("n", ValueType::Array);
        (1..depth).fold(start, |raw, _| raw.u32(ValueType::Array.id()).u64(1)).u32(ValueType::U8.id()).u64(1).bytes(&[7])
    };
    let header = nested(limits::ARRAY_DEPTH).parse().unwrap();
    let mut value = header.metadata.get("n").unwrap();
    while let Value::Array(array) = value {
        assert_eq!(array.iter().count(), 1);
        value = array.iter().next().unwrap();
    }
    assert_eq!(value, Value::U8(7));
    nested(limits::ARRAY_DEPTH + 1).error("nested deeper");
    nested(100_000).error("nested deeper");
}

#[test]
fn nested_array_that_lies_about_its_length() {
    let raw = Raw::new(0, 1).entry("n", ValueType::Array).u32(ValueType::Array.id()).u64(2);
    let raw = raw.u32(ValueType::U32.id()).u64(1).u32(5).u32(ValueType::U32.id()).u64(2).u32(6);
    assert!(matches!(raw.error("metadata key `n`: array length"), Error::TooLarge { value: 2, limit: 1, .. }));
}

#[test]
fn bools_that_are_neither() {
    Raw::new(0, 1).entry("b", ValueType::Bool).bytes(&[2]).error("metadata key `b`: bool at byte 37");
    let raw = Raw::new(0, 1).entry("b", ValueType::Array).u32(ValueType::Bool.id()).u64(3).bytes(&[1, 0, 9]);
    raw.error("bool at byte 51");
}

#[test]
fn values_of_another_type_than_expected() {
    let file = small_file();
    let metadata = Header::parse(&file, file.len() as u64).unwrap().metadata;
    assert_eq!(metadata.u32("a.i32").unwrap_err().to_string(), "metadata key `a.i32` is -3, out of range for u32");
    assert_eq!(metadata.i32("a.u64").unwrap(), Some(4));
    assert_eq!(metadata.u64("a.u8").unwrap(), Some(1));
    assert_eq!(metadata.f32("a.f64").unwrap(), Some(0.25));
    assert_eq!(metadata.f32("a.i64").unwrap(), Some(-4.0));
    assert!(matches!(metadata.u32("a.f32"), Err(Error::WrongType { .. })));
    assert!(matches!(metadata.u32("general.architecture"), Err(Error::WrongType { .. })));
    assert!(matches!(metadata.str("a.u32"), Err(Error::WrongType { .. })));
    assert!(matches!(metadata.bool("a.u8"), Err(Error::WrongType { .. })));
    assert!(matches!(metadata.array("a.u8"), Err(Error::WrongType { .. })));
    let error = metadata.u32("tokens").unwrap_err();
    assert_eq!(error.to_string(), "metadata key `tokens` is of type array of string, expected u32");
    assert_eq!(metadata.u32("absent").unwrap(), None);
    assert_eq!(metadata.str("absent").unwrap(), None);
    let scores = metadata.array("scores").unwrap().unwrap();
    assert_eq!(scores.to_f32s(), Some(vec![0.0, -1.0, 2.5]));
    assert_eq!((scores.to_u32s(), scores.to_i32s(), scores.strings().is_none()), (None, None, true));
    let tokens = metadata.array("tokens").unwrap().unwrap();
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), [b"a".as_slice(), b"bc", b""]);
    assert_eq!((tokens.to_f32s(), tokens.to_u32s()), (None, None));
}

#[test]
fn alignment_is_zero_odd_huge_or_of_another_type() {
    let with = |kind, bytes: &[u8]| Raw::new(0, 1).entry("general.alignment", kind).bytes(bytes);
    for value in [0u32, 3, 33, 1 << 21, 1 << 31, u32::MAX] {
        assert!(matches!(with(ValueType::U32, &value.to_le_bytes()).error("general.alignment"), Error::Alignment { .. }));
    }
    assert!(matches!(with(ValueType::I32, &(-32i32).to_le_bytes()).error("-32"), Error::Alignment { .. }));
    assert!(matches!(with(ValueType::U64, &u64::MAX.to_le_bytes()).error("general.alignment"), Error::Alignment { .. }));
    with(ValueType::String, &0u64.to_le_bytes()).error("of type string");
    for value in [1u64, 8, 64, 4096] {
        assert_eq!(with(ValueType::U64, &value.to_le_bytes()).parse().unwrap().alignment, value);
    }
}

#[test]
fn tensor_types_that_are_unknown_or_removed() {
    for id in [43, 255, 1 << 31, u32::MAX] {
        Raw::new(1, 0).tensor("t", &[32], id, 0).data(64).error(&format!("tensor `t`: type at byte 45 {id} is unknown"));
    }
    Raw::new(1, 0).tensor("t", &[32], 31, 0).data(64).error("31 (q4_0_4_4) was removed");
}

#[test]
fn dimensions_are_zero_wrap_or_split_a_block() {
    let error = |dims: &[u64], id| Raw::new(1, 0).tensor("t", dims, id, 0).data(64).error("tensor `t`: shape at byte 37");
    for dims in [&[0][..], &[4, 0], &[0, u64::MAX]] {
        error(dims, F32);
    }
    for dims in [&[i64::MAX as u64, 2][..], &[u64::MAX], &[1 << 32, 1 << 32], &[1 << 62], &[1 << 61, 1, 1, 1], &[u64::MAX - 31, 2]] {
        error(dims, F32);
        // One byte an element or less: some of these sizes fit in 63 bits, but in no file.
        for id in [24, Q4_0] {
            let error = Raw::new(1, 0).tensor("t", dims, id, 0).data(64).error("tensor `t`");
            assert!(matches!(error, Error::Invalid { field: "shape", .. } | Error::OutsideFile { .. }), "{error}");
        }
    }
    error(&[33], Q4_0);
    // The elements would be whole blocks, the rows are not.
    error(&[16, 2], Q4_0);
    error(&[], Q4_0);
    for t in DType::ALL.into_iter().filter(|t| t.block_size() > 1) {
        error(&[t.block_size() + 1], t.id());
    }
    Raw::new(1, 0).tensor("t", &[1; 5], F32, 0).data(64).error("number of dimensions at byte 33 is above 4");
    Raw::new(1, 0).string("t").u32(u32::MAX).data(64).error("number of dimensions");
    assert_eq!(Raw::new(1, 0).tensor("t", &[], F32, 0).data(4).parse().unwrap().tensors[0].bytes, 4);
}

#[test]
fn offsets_outside_misaligned_or_wrapping() {
    let error = |offset, dims: &[u64]| Raw::new(1, 0).tensor("t", dims, F32, offset).data(64).error("tensor `t`");
    for offset in [64, 1 << 40, u64::MAX - 31, 1 << 63] {
        assert!(matches!(error(offset, &[1]), Error::OutsideFile { .. }), "{offset}");
    }
    assert!(matches!(error(0, &[17]), Error::OutsideFile { bytes: 68, .. }));
    assert!(matches!(error(32, &[9]), Error::OutsideFile { .. }));
    for offset in [1, 16, 31, 33, u64::MAX] {
        assert!(matches!(error(offset, &[1]), Error::Invalid { field: "data offset", .. }), "{offset}");
    }
    assert!(Raw::new(1, 0).tensor("t", &[8], F32, 32).data(64).parse().is_ok());
}

#[test]
fn tensors_that_overlap() {
    let two = |first, second| Raw::new(2, 0).tensor("a", &[12], F32, first).tensor("b", &[8], F32, second).data(128);
    assert!(matches!(two(0, 32).error("`a` and `b`"), Error::Overlap { .. }));
    assert!(matches!(two(64, 64).error("overlap"), Error::Overlap { .. }));
    assert!(matches!(two(32, 64).error("overlap"), Error::Overlap { .. }));
    assert!(two(0, 64).parse().is_ok());
    // Order and gaps are free.
    assert!(two(64, 0).parse().is_ok());
}

#[test]
fn keys_and_names_twice_empty_long_or_not_text() {
    let key = |key: &[u8]| Raw::new(0, 1).entry(key, ValueType::U8).bytes(&[0, 0]);
    key(b"").error("is empty");
    key(b"a\0b").error("contains NUL");
    key(b"\xff\xfe").error("is not UTF-8");
    assert!(key(&vec![b'k'; 65_535]).parse().is_ok());
    assert!(matches!(key(&vec![b'k'; 65_536]).error("key"), Error::TooLarge { .. }));
    let twice = Raw::new(0, 2).entry("k", ValueType::U8).bytes(&[0]).entry("k", ValueType::Bool).bytes(&[1]);
    assert!(matches!(twice.error("`k` occurs twice, the second time at byte 46"), Error::DuplicateKey { offset: 46, .. }));

    let name = |name: &[u8]| Raw::new(1, 0).tensor(name, &[1], F32, 0).data(4);
    name(b"").error("is empty");
    name(b"a\0b").error("contains NUL");
    name(b"\xc3").error("is not UTF-8");
    for len in [63, 64, 65, 1024] {
        assert!(name(&vec![b'n'; len]).parse().is_ok());
    }
    assert!(matches!(name(&[b'n'; 1025]).error("name"), Error::TooLarge { .. }));
    let twice = Raw::new(2, 0).tensor("n", &[1], F32, 0).tensor("n", &[1], F32, 32).data(64);
    assert!(matches!(twice.error("`n` occurs twice"), Error::DuplicateTensor { .. }));
}

#[test]
fn messages_show_control_characters_escaped_and_cut_long_names() {
    let error = Raw::new(0, 1).entry("k\x1b[31m\n", ValueType::Bool).bytes(&[3]).error("k\\u{1b}[31m\\n");
    assert!(!error.to_string().contains('\x1b'));
    Raw::new(0, 1).entry("größe", ValueType::Bool).bytes(&[3]).error("`größe`");
    let error = Raw::new(0, 1).entry(vec![b'k'; 60_000], ValueType::Bool).bytes(&[3]).error("kkk");
    assert!(error.to_string().len() < 300);
}

#[test]
fn token_texts_that_are_not_utf8_are_kept() {
    let raw = Raw::new(0, 2).entry("tokens", ValueType::Array).u32(ValueType::String.id()).u64(2).string(b"\xff\0").string("");
    let header = raw.entry("name", ValueType::String).string(b"ok\xe2").parse().unwrap();
    let tokens = header.metadata.array("tokens").unwrap().unwrap();
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), [b"\xff\0".as_slice(), b""]);
    let error = header.metadata.str("name").unwrap_err();
    assert!(matches!(error, Error::NotUtf8 { valid_up_to: 2, .. }), "{error}");
    assert_eq!(header.metadata.get("name").unwrap().as_bytes(), Some(b"ok\xe2".as_slice()));
}

#[test]
fn floats_beyond_the_range() {
    let with = |x: f64| Raw::new(0, 1).entry("f", ValueType::F64).bytes(&x.to_le_bytes()).parse().unwrap().metadata.f32("f");
    assert!(matches!(with(1e300), Err(Error::OutOfRange { .. })));
    assert_eq!(with(f64::INFINITY).unwrap(), Some(f32::INFINITY));
    assert!(with(f64::NAN).unwrap().unwrap().is_nan());
    assert_eq!(with(0.1).unwrap(), Some(0.1));
}

#[test]
fn bytes_after_the_stated_length_are_not_read() {
    let file = small_file();
    assert!(Header::parse(&file, 100).is_err());
}
