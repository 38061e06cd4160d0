//! How weights are stored: a type known at run time, and how it becomes a Rust type.
use crate::activation::{Forms, dense_cols};
use crate::dense::{Bf16, Element, F16, F32};
use crate::format::{FileType, Format, Quantized, Visitor};
use fastllm_simd::ROWS;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// A block-quantized type.
    Quantized(Quantized),
}

impl WeightType {
    /// The type with this GGUF name in lower case.
    pub fn from_name(name: &str) -> Option<WeightType> {
        match name {
            "f32" => Some(WeightType::F32),
            "f16" => Some(WeightType::F16),
            "bf16" => Some(WeightType::Bf16),
            _ => Quantized::from_name(name).map(WeightType::Quantized),
        }
    }

    /// Every type.
    pub fn all() -> impl Iterator<Item = WeightType> {
        [WeightType::F32, WeightType::F16, WeightType::Bf16].into_iter().chain(Quantized::ALL.iter().copied().map(WeightType::Quantized))
    }

    /// The GGUF name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Bf16 => "bf16",
            WeightType::Quantized(q) => q.name(),
        }
    }

    /// The form of the activations that these weights are multiplied with.
    pub fn form(self) -> Forms {
        let quantized = matches!(self, WeightType::Quantized(_));
        Forms { quantized, dense: !quantized }
    }

    /// Columns of a block in the file.
    pub fn block_cols(self) -> usize {
        self.visit(BlockCols)
    }

    /// Bytes of a row in the file, if `cols` is a whole number of blocks.
    pub fn file_row_bytes(self, cols: usize) -> Option<usize> {
        (cols.is_multiple_of(self.block_cols())).then(|| self.visit(FileBytes { cols }))
    }

    /// Bytes of a panel of 16 rows in memory.
    pub fn panel_bytes(self, cols: usize) -> usize {
        self.visit(PanelBytes { cols })
    }

    pub(super) fn visit<V: WeightVisitor>(self, v: V) -> V::Output {
        match self {
            WeightType::F32 => v.dense::<F32>(),
            WeightType::F16 => v.dense::<F16>(),
            WeightType::Bf16 => v.dense::<Bf16>(),
            WeightType::Quantized(q) => {
                struct Adapt<V>(V);
                impl<V: WeightVisitor> Visitor for Adapt<V> {
                    type Output = V::Output;
                    fn visit<T: FileType>(self) -> V::Output {
                        self.0.quantized::<T>()
                    }
                }
                q.visit(Adapt(v))
            }
        }
    }
}

/// Work on weights of a type known at run time only.
pub(super) trait WeightVisitor {
    type Output;
    fn dense<E: Element>(self) -> Self::Output;
    fn quantized<T: FileType>(self) -> Self::Output;
}

struct BlockCols;
impl WeightVisitor for BlockCols {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        1
    }
    fn quantized<T: FileType>(self) -> usize {
        T::Format::COLS
    }
}

struct FileBytes {
    cols: usize,
}
impl WeightVisitor for FileBytes {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        self.cols * size_of::<E::Bits>()
    }
    fn quantized<T: FileType>(self) -> usize {
        self.cols / T::Format::COLS * T::BYTES
    }
}

struct PanelBytes {
    cols: usize,
}
impl WeightVisitor for PanelBytes {
    type Output = usize;
    fn dense<E: Element>(self) -> usize {
        dense_cols(self.cols) * ROWS * size_of::<E::Bits>()
    }
    fn quantized<T: FileType>(self) -> usize {
        self.cols / T::Format::COLS * size_of::<<T::Format as Format>::Block>()
    }
}
