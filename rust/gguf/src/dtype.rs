//! Tensor element types: ids, names and block sizes. Knows nothing of what is inside a block.

use std::fmt;

/// The storage type of a tensor (`ggml_type`): `block_size` consecutive elements of a row are stored in `block_bytes` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types, reason = "the field's names")]
pub enum DType {
    F32,
    F16,
    BF16,
    F64,
    I8,
    I16,
    I32,
    I64,
    Q1_0,
    Q2_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
}

struct Layout {
    id: u32,
    name: &'static str,
    block_size: u64,
    block_bytes: u64,
}

const fn layout(id: u32, name: &'static str, block_size: u64, block_bytes: u64) -> Layout {
    Layout { id, name, block_size, block_bytes }
}

impl DType {
    /// Every type, in the order of the enum.
    pub const ALL: [Self; 35] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::Q1_0,
        Self::Q2_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q8_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::Q8_K,
        Self::IQ1_S,
        Self::IQ1_M,
        Self::IQ2_XXS,
        Self::IQ2_XS,
        Self::IQ2_S,
        Self::IQ3_XXS,
        Self::IQ3_S,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::MXFP4,
        Self::NVFP4,
    ];

    const fn layout(self) -> Layout {
        match self {
            Self::F32 => layout(0, "f32", 1, 4),
            Self::F16 => layout(1, "f16", 1, 2),
            Self::BF16 => layout(30, "bf16", 1, 2),
            Self::F64 => layout(28, "f64", 1, 8),
            Self::I8 => layout(24, "i8", 1, 1),
            Self::I16 => layout(25, "i16", 1, 2),
            Self::I32 => layout(26, "i32", 1, 4),
            Self::I64 => layout(27, "i64", 1, 8),
            Self::Q1_0 => layout(41, "q1_0", 128, 18),
            Self::Q2_0 => layout(42, "q2_0", 64, 18),
            Self::Q4_0 => layout(2, "q4_0", 32, 18),
            Self::Q4_1 => layout(3, "q4_1", 32, 20),
            Self::Q5_0 => layout(6, "q5_0", 32, 22),
            Self::Q5_1 => layout(7, "q5_1", 32, 24),
            Self::Q8_0 => layout(8, "q8_0", 32, 34),
            Self::Q8_1 => layout(9, "q8_1", 32, 36),
            Self::Q2_K => layout(10, "q2_k", 256, 84),
            Self::Q3_K => layout(11, "q3_k", 256, 110),
            Self::Q4_K => layout(12, "q4_k", 256, 144),
            Self::Q5_K => layout(13, "q5_k", 256, 176),
            Self::Q6_K => layout(14, "q6_k", 256, 210),
            Self::Q8_K => layout(15, "q8_k", 256, 292),
            Self::IQ1_S => layout(19, "iq1_s", 256, 50),
            Self::IQ1_M => layout(29, "iq1_m", 256, 56),
            Self::IQ2_XXS => layout(16, "iq2_xxs", 256, 66),
            Self::IQ2_XS => layout(17, "iq2_xs", 256, 74),
            Self::IQ2_S => layout(22, "iq2_s", 256, 82),
            Self::IQ3_XXS => layout(18, "iq3_xxs", 256, 98),
            Self::IQ3_S => layout(21, "iq3_s", 256, 110),
            Self::IQ4_NL => layout(20, "iq4_nl", 32, 18),
            Self::IQ4_XS => layout(23, "iq4_xs", 256, 136),
            Self::TQ1_0 => layout(34, "tq1_0", 256, 54),
            Self::TQ2_0 => layout(35, "tq2_0", 256, 66),
            Self::MXFP4 => layout(39, "mxfp4", 32, 17),
            Self::NVFP4 => layout(40, "nvfp4", 64, 36),
        }
    }

    /// The type with this id in a file; `None` for ids that are unknown or were removed from the format.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.id() == id)
    }

    /// The type with this name, as [`name`](Self::name) gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The id in a file.
    pub const fn id(self) -> u32 {
        self.layout().id
    }

    /// The standard name in lower case, such as `q4_k`.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// Elements in a block; 1 for types that are not quantized.
    pub const fn block_size(self) -> u64 {
        self.layout().block_size
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> u64 {
        self.layout().block_bytes
    }

    /// Bytes that hold this many elements; `None` if they are not whole blocks or the size does not fit in 64 bits.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let Layout { block_size, block_bytes, .. } = self.layout();
        if elements.checked_rem(block_size)? != 0 {
            return None;
        }
        elements.checked_div(block_size)?.checked_mul(block_bytes)
    }

    /// What became of an id that files of 2023 and 2024 used.
    pub(crate) fn removed(id: u32) -> Option<&'static str> {
        Some(match id {
            4 => "q4_2",
            5 => "q4_3",
            31 => "q4_0_4_4",
            32 => "q4_0_4_8",
            33 => "q4_0_8_8",
            36 => "iq4_nl_4_4",
            37 => "iq4_nl_4_8",
            38 => "iq4_nl_8_8",
            _ => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_and_names_are_distinct_and_invert() {
        for t in DType::ALL {
            assert_eq!(DType::from_id(t.id()), Some(t));
            assert_eq!(DType::from_name(t.name()), Some(t));
            assert_eq!(DType::removed(t.id()), None);
            assert_eq!(t.name(), format!("{t:?}").to_lowercase());
        }
        assert_eq!(DType::from_id(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn bytes_for_agrees_with_128_bit_arithmetic(i in 0..DType::ALL.len(), blocks in any::<u64>(), rest in 0u64..300) {
            let t = DType::ALL[i];
            let elements = blocks.wrapping_mul(t.block_size()).wrapping_add(rest);
            let (size, bytes) = (u128::from(t.block_size()), u128::from(t.block_bytes()));
            let want = (u128::from(elements) % size == 0).then(|| u128::from(elements) / size * bytes);
            prop_assert_eq!(t.bytes_for(elements), want.and_then(|b| u64::try_from(b).ok()));
        }
    }
}
