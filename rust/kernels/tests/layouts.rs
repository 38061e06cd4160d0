//! Packed layouts are kept in files: none may change without a new version.
use fastllm_kernels::linear::{LAYOUT_VERSION, Linear, WeightType};
use fastllm_kernels::pool::Pool;
use std::convert::Infallible;

/// The layouts of this version.
const VERSION: u32 = 1;
const LAYOUTS: &[(&str, u64)] = &[
    ("f32", 0x41060af0814e40f4),
    ("f16", 0x2e29ae3acd65d853),
    ("bf16", 0x2e29ae3acd65d853),
    ("q4_0", 0x644cf5d453743ac7),
    ("q4_1", 0xad88f5a1d2e8820b),
    ("q5_0", 0x11853cc28e0839d7),
    ("q5_1", 0x339a046154b95548),
    ("q8_0", 0xad7c7d994ccc7710),
    ("q2_k", 0x5e6fc9ae28e6ea6c),
    ("q3_k", 0x60c5c88166391a54),
    ("q4_k", 0xa6906a66c19e0a01),
    ("q5_k", 0x69a6a7ab9816c2fd),
    ("q6_k", 0xb6bc439c000ab023),
    ("iq1_s", 0x82a6121b78033fc5),
    ("iq1_m", 0x1b3e75b8368681e7),
    ("iq2_xxs", 0x7a5d8afd70130564),
    ("iq2_xs", 0x7e7bbaa4d7502a93),
    ("iq2_s", 0xd142a9488d7dfd19),
    ("iq3_xxs", 0x46508b7473645257),
    ("iq3_s", 0xc31ce0ba8a2cb083),
    ("iq4_nl", 0x644cf5d453743ac7),
    ("iq4_xs", 0x48af8b13039cc539),
    ("tq1_0", 0xcd6451c549c95762),
    ("tq2_0", 0x3a5b1c1c99c08b21),
    ("mxfp4", 0x88509268d456dad7),
    ("nvfp4", 0xdf988bedbd71a0cf),
];

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Two matrices of 35 rows of pseudo-random bytes, packed: the last panel of each is not full.
fn packed(kind: WeightType) -> u64 {
    let cols = 2 * kind.block_cols().max(24);
    let read = |first: usize, out: &mut [u8]| {
        let row_bytes = kind.file_row_bytes(cols).unwrap();
        for (i, byte) in out.iter_mut().enumerate() {
            let x = ((first * row_bytes + i) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
        Ok::<_, Infallible>(())
    };
    let weights = Linear::pack(kind, (35, cols), 2, &Pool::new(1), read).unwrap_or_else(|_| panic!("packing cannot fail"));
    assert_eq!(weights.bytes().len(), 2 * 3 * kind.panel_bytes(cols));
    hash(weights.bytes())
}

#[test]
fn layouts_change_with_their_version_only() {
    let found: Vec<(&str, u64)> = WeightType::all().map(|kind| (kind.name(), packed(kind))).collect();
    let list: Vec<String> = found.iter().map(|(name, hash)| format!("    ({name:?}, {hash:#018x}),")).collect();
    assert!(
        (LAYOUT_VERSION, &found[..]) == (VERSION, LAYOUTS),
        "Packed layouts differ from those written down here. Raise LAYOUT_VERSION in src/linear/storage.rs, and VERSION here to the same: \
         files of packed weights that older versions have left would be misread. Then put this into LAYOUTS:\n{}",
        list.join("\n")
    );
}
