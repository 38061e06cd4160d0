//! Looks tensors up by name and checks their shapes and types.
use super::{Declared, MatrixInfo, Norm, Projection, RowsOf, VectorInfo};
use crate::ModelError;
use crate::config::NormKind;
use crate::error::invalid;
use fastllm_gguf::{GgufFile, TensorInfo};
use fastllm_kernels::linear::{Linear, WeightType};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

/// Which tensors weights were declared from: where each lies (its file and its offset there, which no two share), and whether it holds
/// matrices.
#[derive(Debug, Default)]
pub struct Used(RefCell<HashMap<(usize, u64), bool>>);

/// The tensors of a file.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    file: &'a GgufFile,
    used: &'a Used,
}

impl<'a> Tensors<'a> {
    /// The tensors of a file, which are noted in `used` when weights are declared from them.
    pub fn new(file: &'a GgufFile, used: &'a Used) -> Self {
        Tensors { file, used }
    }

    /// Whether weights were declared from a tensor, and if so, whether they are matrices.
    pub fn used(self, t: &TensorInfo) -> Option<bool> {
        self.used.0.borrow().get(&(t.file, t.offset)).copied()
    }

    fn note(self, t: &TensorInfo, matrix: bool) {
        self.used.0.borrow_mut().insert((t.file, t.offset), matrix);
    }

    /// Number of tensors.
    pub fn count(self) -> usize {
        self.file.tensors().len()
    }

    /// Whether there is such a tensor.
    pub fn has(self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    fn get(self, name: &str) -> Result<&'a TensorInfo, ModelError> {
        match self.file.tensor(name) {
            Some(t) => Ok(t),
            None => invalid!("the file lacks the tensor {name}"),
        }
    }

    /// The number of rows of a matrix.
    pub fn rows(self, name: &str) -> Result<usize, ModelError> {
        match *self.get(name)?.dims {
            [_, rows] if (1..1 << 32).contains(&rows) => Ok(rows as usize),
            ref dims => invalid!("the tensor {name} has the shape {dims:?}, but must be a matrix"),
        }
    }

    /// A tensor of a certain shape.
    fn check(self, name: &str, dims: &[usize]) -> Result<&'a TensorInfo, ModelError> {
        let tensor = self.get(name)?;
        // Trailing dimensions of 1 are often left out or added.
        let dim = |i: usize| (tensor.dims.get(i).copied().unwrap_or(1), dims.get(i).map_or(1, |&d| d as u64));
        if !(0..dims.len().max(tensor.dims.len())).map(dim).all(|(found, wanted)| found == wanted) {
            return invalid!("the tensor {name} has the shape {:?}, but the metadata ask for {dims:?}", tensor.dims);
        }
        Ok(tensor)
    }

    /// The type of a tensor, of which `matrices` matrices of `rows` x `cols` are to be packed.
    fn kind(tensor: &TensorInfo, cols: usize, rows: usize, matrices: usize) -> Result<WeightType, ModelError> {
        let (name, dtype) = (&tensor.name, tensor.dtype.name());
        let Some(kind) = WeightType::from_name(dtype) else {
            return Err(ModelError::Unsupported(format!("the tensor {name} has the type {dtype}, which is not supported")));
        };
        if kind.file_row_bytes(cols).is_none() {
            return invalid!("the tensor {name} has rows of {cols}, which are not whole blocks of {dtype}");
        }
        match Linear::bytes_for(kind, rows, cols, matrices) {
            Some(_) => Ok(kind),
            None => invalid!("the tensor {name} is too large"),
        }
    }

    /// Rows of a tensor as some matrices of `rows` rows each, which start at `first`; the rows of all lie in the tensor.
    fn pack(self, tensor: &TensorInfo, rows: usize, cols: usize, first: impl Iterator<Item = usize>) -> Result<MatrixInfo, ModelError> {
        self.note(tensor, true);
        let sources: Vec<RowsOf> = first.map(|first| RowsOf { tensor: tensor.clone(), first }).collect();
        let kind = Self::kind(tensor, cols, rows, sources.len())?;
        Ok(MatrixInfo { sources, kind, rows, cols, transposed: None })
    }

    /// A matrix with `cols` features in and `rows` out.
    pub fn matrix(self, name: &str, rows: usize, cols: usize) -> Result<MatrixInfo, ModelError> {
        self.rows_of(name, rows, 0..rows, cols)
    }

    /// Some of the `total` rows of a tensor.
    pub fn rows_of(self, name: &str, total: usize, rows: Range<usize>, cols: usize) -> Result<MatrixInfo, ModelError> {
        debug_assert!(rows.end <= total);
        self.pack(self.check(name, &[cols, total])?, rows.len(), cols, std::iter::once(rows.start))
    }

    /// `count` matrices in one tensor `[cols, rows, count]`.
    pub fn stack(self, name: &str, count: usize, rows: usize, cols: usize) -> Result<MatrixInfo, ModelError> {
        self.stack_of(name, count, rows, 0..rows, cols)
    }

    /// Some of the rows of each of `count` matrices in one tensor `[cols, total, count]`.
    pub fn stack_of(self, name: &str, count: usize, total: usize, rows: Range<usize>, cols: usize) -> Result<MatrixInfo, ModelError> {
        debug_assert!(rows.end <= total);
        let tensor = self.check(name, &[cols, total, count])?;
        self.pack(tensor, rows.len(), cols, (0..count).map(|i| i * total + rows.start))
    }

    /// `count` matrices in one tensor each.
    pub fn each(self, name: impl Fn(usize) -> String, count: usize, rows: usize, cols: usize) -> Result<MatrixInfo, ModelError> {
        let mut all: Option<MatrixInfo> = None;
        for i in 0..count {
            let next = self.matrix(&name(i), rows, cols)?;
            match &mut all {
                None => all = Some(next),
                Some(all) if all.kind == next.kind => all.sources.extend(next.sources),
                Some(_) => {
                    let name = name(i);
                    return Err(ModelError::Unsupported(format!("the tensor {name} differs in type from that of the first expert")));
                }
            }
        }
        let Some(all) = all else { return invalid!("a mixture of no experts") };
        match Linear::bytes_for(all.kind, rows, cols, count) {
            Some(_) => Ok(all),
            None => invalid!("the tensors {} … are too large", name(0)),
        }
    }

    /// Rows of a matrix `[rank, heads * total]`: of each head those in `rows`.
    pub fn head_rows(self, name: &str, heads: usize, total: usize, rows: Range<usize>, cols: usize) -> Result<MatrixInfo, ModelError> {
        debug_assert!(rows.end <= total);
        let tensor = self.check(name, &[cols, heads * total])?;
        self.pack(tensor, rows.len(), cols, (0..heads).map(|i| i * total + rows.start))
    }

    /// The transposes of some matrices, as floats: blocks run along rows, so quantized ones are decoded.
    pub fn transpose(m: MatrixInfo) -> Result<MatrixInfo, ModelError> {
        let kind = match m.kind {
            WeightType::Quantized(_) => WeightType::F32,
            float => float,
        };
        if Linear::bytes_for(kind, m.cols, m.rows, m.sources.len()).is_none() {
            return invalid!("the tensor {} is too large", m.sources[0].tensor.name);
        }
        Ok(MatrixInfo { kind, rows: m.cols, cols: m.rows, transposed: Some(m.kind), sources: m.sources })
    }

    /// `len` of the `total` floats of a tensor of the shape `dims`, from `first` on.
    fn floats(self, name: &str, dims: &[usize], part: Range<usize>) -> Result<VectorInfo, ModelError> {
        let tensor = self.check(name, dims)?;
        self.note(tensor, false);
        match tensor.dtype.name() {
            "f32" | "f16" | "bf16" => Ok(VectorInfo { tensor: tensor.clone(), first: part.start, len: part.len() }),
            dtype => Err(ModelError::Unsupported(format!("the tensor {name} has the type {dtype}, but vectors must be floats"))),
        }
    }

    /// A vector of `len` floats.
    pub fn vector(self, name: &str, len: usize) -> Result<VectorInfo, ModelError> {
        self.floats(name, &[len], 0..len)
    }

    /// Vectors of `len` floats.
    pub fn vectors(self, name: &str, len: usize, count: usize) -> Result<VectorInfo, ModelError> {
        self.floats(name, &[len, count], 0..len * count)
    }

    /// What `of` gives for a tensor that may be absent.
    pub fn optional<T>(self, name: &str, of: impl FnOnce(&str) -> Result<T, ModelError>) -> Result<Option<T>, ModelError> {
        self.has(name).then(|| of(name)).transpose()
    }

    /// `{prefix}.weight` and, if norms of this kind have one, perhaps `{prefix}.bias`.
    pub fn norm(self, prefix: &str, len: usize, kind: NormKind) -> Result<Norm<Declared>, ModelError> {
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => self.optional(&format!("{prefix}.bias"), |name| self.vector(name, len))?,
        };
        Ok(Norm { weight: self.vector(&format!("{prefix}.weight"), len)?, bias })
    }

    /// `{prefix}.weight` and perhaps `{prefix}.bias`.
    pub fn projection(self, prefix: &str, rows: usize, cols: usize) -> Result<Projection<Declared>, ModelError> {
        self.projection_of(prefix, rows, 0..rows, cols)
    }

    /// Some of the `total` rows of `{prefix}.weight`, and perhaps of `{prefix}.bias`.
    pub fn projection_of(self, prefix: &str, total: usize, rows: Range<usize>, cols: usize) -> Result<Projection<Declared>, ModelError> {
        Ok(Projection {
            weight: self.rows_of(&format!("{prefix}.weight"), total, rows.clone(), cols)?,
            bias: self.optional(&format!("{prefix}.bias"), |name| self.floats(name, &[total], rows))?,
        })
    }
}
