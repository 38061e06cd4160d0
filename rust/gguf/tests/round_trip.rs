//! What the writer writes, the reader reads; what the reader would refuse, the writer refuses.

use fastllm_gguf::{DType, Error, Header, OwnedValue, ValueType, Writer};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn scalar() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        any::<u8>().prop_map(OwnedValue::U8),
        any::<i8>().prop_map(OwnedValue::I8),
        any::<u16>().prop_map(OwnedValue::U16),
        any::<i16>().prop_map(OwnedValue::I16),
        any::<u32>().prop_map(OwnedValue::U32),
        any::<i32>().prop_map(OwnedValue::I32),
        any::<u64>().prop_map(OwnedValue::U64),
        any::<i64>().prop_map(OwnedValue::I64),
        proptest::num::f32::NORMAL.prop_map(OwnedValue::F32),
        proptest::num::f64::NORMAL.prop_map(OwnedValue::F64),
        any::<bool>().prop_map(OwnedValue::Bool),
        vec(any::<u8>(), 0..12).prop_map(OwnedValue::String),
    ]
}

/// Scalars, and arrays whose elements have the type of the first.
fn value() -> impl Strategy<Value = OwnedValue> {
    scalar().prop_recursive(3, 24, 6, |inner| {
        (inner.clone(), vec(inner, 0..6)).prop_map(|(first, mut rest)| {
            rest.retain(|v| v.kind() == first.kind());
            OwnedValue::Array(first.kind(), rest)
        })
    })
}

fn tensor() -> impl Strategy<Value = (DType, Vec<u64>)> {
    (0..DType::ALL.len(), 1u64..3, vec(1u64..4, 0..4)).prop_map(|(i, blocks, rest)| {
        let dtype = DType::ALL[i];
        let dims = std::iter::once(blocks * dtype.block_size()).chain(rest).collect();
        (dtype, dims)
    })
}

fn bytes_of(dtype: DType, dims: &[u64]) -> usize {
    dtype.bytes_for(dims.iter().product()).unwrap() as usize
}

proptest! {
    #[test]
    fn writer_then_reader(
        metadata in btree_map("[a-zäß._]{1,20}", value(), 0..12),
        tensors in btree_map("[a-z0-9._]{1,80}", tensor(), 0..8),
        alignment in proptest::option::of(0u32..10),
        declared in any::<bool>(),
    ) {
        let mut writer = Writer::new();
        for (key, value) in &metadata {
            writer.set(key.clone(), value.clone());
        }
        if let Some(log2) = alignment {
            writer.alignment(1 << log2);
        }
        let data = |i: usize, dtype, dims: &[u64]| vec![i as u8 + 1; bytes_of(dtype, dims)];
        for (i, (name, (dtype, dims))) in tensors.iter().enumerate() {
            if declared {
                writer.declare(name.clone(), dims, *dtype);
            } else {
                writer.add(name.clone(), dims, *dtype, data(i, *dtype, dims));
            }
        }
        let mut file = Vec::new();
        let mut next = 0;
        writer.write_with(&mut file, |name, out| {
            let (dtype, dims) = &tensors[name];
            next += 1;
            out.write_all(&data(next - 1, *dtype, dims))
        }).unwrap();

        let header = Header::parse(&file, file.len() as u64).unwrap();
        prop_assert_eq!(header.version, 3);
        prop_assert_eq!(header.alignment, alignment.map_or(32, |log2| 1 << log2));
        prop_assert_eq!(file.len() as u64 % header.alignment, 0);
        prop_assert_eq!(header.metadata.len(), metadata.len() + usize::from(alignment.is_some()));
        for ((key, value), (read_key, read)) in metadata.iter().zip(header.metadata.iter()) {
            prop_assert_eq!(key, read_key);
            prop_assert_eq!(value, &OwnedValue::from(read));
            prop_assert_eq!(header.metadata.get(key), Some(read));
        }
        prop_assert_eq!(header.tensors.len(), tensors.len());
        for (i, ((name, (dtype, dims)), t)) in tensors.iter().zip(&header.tensors).enumerate() {
            prop_assert_eq!((name, dims, *dtype, 0), (&t.name, &t.dims, t.dtype, t.file));
            let read = &file[t.offset as usize..(t.offset + t.bytes) as usize];
            prop_assert_eq!(read, data(i, *dtype, dims));
        }
    }
}

#[test]
fn setting_a_key_again_replaces_its_value() {
    let mut file = Vec::new();
    Writer::new().set("a", 1u32).set("b", 2u32).set("a", "text").write(&mut file).unwrap();
    let metadata = Header::parse(&file, file.len() as u64).unwrap().metadata;
    assert_eq!(metadata.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(metadata.str("a").unwrap(), Some("text"));
}

#[track_caller]
fn refused(writer: &Writer, named: &str) {
    let mut file = Vec::new();
    let error = writer.write(&mut file).unwrap_err();
    assert!(error.to_string().contains(named), "`{error}` does not name `{named}`");
    assert!(file.is_empty());
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let add = |name: &str, dims: &[u64], dtype, bytes| {
        let mut writer = Writer::new();
        writer.add(name, dims, dtype, vec![0; bytes]);
        writer
    };
    refused(&add("t", &[4], DType::F32, 15), "takes 16 bytes, not 15");
    refused(&add("t", &[33], DType::Q4_0, 18), "whole q4_0 blocks");
    refused(&add("t", &[0], DType::F32, 0), "dimension of 0");
    refused(&add("t", &[1; 5], DType::F32, 4), "more than 4 dimensions");
    refused(&add("t", &[u64::MAX, 2], DType::F32, 4), "too large");
    refused(&add("", &[1], DType::F32, 4), "is empty");
    refused(&add(&"n".repeat(1025), &[1], DType::F32, 4), "longer than 1024");
    refused(add("t", &[1], DType::F32, 4).add("t", &[1], DType::F32, vec![0; 4]), "added twice");
    refused(Writer::new().set("", 1u8), "is empty");
    refused(Writer::new().set("a\0", 1u8), "NUL");
    refused(Writer::new().alignment(3), "general.alignment");
    refused(Writer::new().declare("t", &[1], DType::F32), "declared without data");
    let mixed = OwnedValue::Array(ValueType::U8, vec![OwnedValue::U8(1), OwnedValue::Bool(true)]);
    refused(Writer::new().set("m", mixed), "element of type bool");
    let deep = (0..9).fold(OwnedValue::U8(1), |v, _| OwnedValue::Array(v.kind(), vec![v]));
    refused(Writer::new().set("d", deep), "nested deeper");
}

#[test]
fn declared_data_of_another_size_is_refused() {
    let mut writer = Writer::new();
    writer.declare("t", &[2], DType::F32);
    for len in [7, 9] {
        let error = writer.write_with(std::io::sink(), |_, out| out.write_all(&vec![0; len])).unwrap_err();
        assert!(matches!(error, Error::Unwritable { .. }), "{error}");
    }
    let full = |_: &str, _: &mut dyn std::io::Write| Err(std::io::ErrorKind::StorageFull.into());
    assert!(matches!(writer.write_with(std::io::sink(), full), Err(Error::Output(_))));
}
