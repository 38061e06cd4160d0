//! Tensor infos: name, shape, type and place of each tensor.

use crate::cursor::{Cursor, Subject};
use crate::dtype::DType;
use crate::error::{Error, quoted};
use crate::limits;
use crate::memory;

/// Fewest bytes of a tensor info: name length, one byte of name, number of dimensions, type, offset.
pub(crate) const MIN_INFO_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// A tensor of a file. The reader guarantees that `dims` are not 0, that rows are whole blocks, that `bytes` is what shape and type
/// need, and that the data lies inside the file, aligned and shared with no other tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, unique in the model.
    pub name: String,
    /// The shape, fastest dimension (row length) first. Empty for a scalar.
    pub dims: Vec<u64>,
    /// The type.
    pub dtype: DType,
    /// Where the data starts in its file.
    pub offset: u64,
    /// Bytes of the data.
    pub bytes: u64,
    /// Index of the shard that holds it, from 0.
    pub file: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // The reader checked that the product fits.
        self.dims.iter().fold(1, |n, &d| n.saturating_mul(d))
    }
}

/// A tensor info as it is in the file, borrowed.
pub(crate) struct RawInfo<'a> {
    name: &'a str,
    dims: [u64; limits::DIMENSIONS],
    n_dims: usize,
    dtype: DType,
    offset: u64,
    bytes: u64,
}

impl<'a> RawInfo<'a> {
    /// Reads and validates tensor info number `index`, all but its place.
    pub(crate) fn read(cursor: &mut Cursor<'a>, index: u64) -> Result<Self, Error> {
        cursor.subject = Subject::TensorInfo(index);
        let name = cursor.name("name", limits::TENSOR_NAME_BYTES)?;
        cursor.subject = Subject::Tensor(name.as_bytes());
        let at = cursor.offset();
        let n_dims = cursor.u32("number of dimensions")?;
        let mut dims = [0; limits::DIMENSIONS];
        let n_dims = usize::try_from(n_dims).ok().filter(|&n| n <= dims.len());
        let Some(used) = n_dims.and_then(|n| dims.get_mut(..n)) else {
            return Err(cursor.invalid("number of dimensions", at, format!("is above {}", limits::DIMENSIONS)));
        };
        let shape_at = cursor.offset();
        for dim in used.iter_mut() {
            *dim = cursor.u64("dimension")?;
        }
        let n_dims = used.len();
        let type_at = cursor.offset();
        let id = cursor.u32("type")?;
        let dtype = DType::from_id(id).ok_or_else(|| cursor.invalid("type", type_at, unknown_type(id)))?;
        let bytes = bytes_of(used, dtype).map_err(|reason| cursor.invalid("shape", shape_at, reason))?;
        let offset = cursor.u64("offset")?;
        Ok(Self { name, dims, n_dims, dtype, offset, bytes })
    }

    /// The info with its place in a file whose tensor data starts at `data_start`.
    pub(crate) fn place(&self, data_start: u64, alignment: u64, file_len: u64) -> Result<TensorInfo, Error> {
        let &Self { name, dtype, offset, bytes, .. } = self;
        if offset.checked_rem(alignment) != Some(0) {
            let (subject, reason) =
                (format!("tensor {}", quoted(name.as_bytes())), format!("is not a multiple of the alignment {alignment}"));
            return Err(Error::Invalid { subject, field: "data offset", offset, reason });
        }
        let start = data_start.checked_add(offset).filter(|s| s.checked_add(bytes).is_some_and(|end| end <= file_len));
        let Some(start) = start else {
            return Err(Error::OutsideFile { name: quoted(name.as_bytes()), offset, bytes, data_start, file_len });
        };
        let dims = memory::copy(self.dims.get(..self.n_dims).unwrap_or_default())?;
        Ok(TensorInfo { name: memory::copy_text(name)?, dims, dtype, offset: start, bytes, file: 0 })
    }
}

fn unknown_type(id: u32) -> String {
    match DType::removed(id) {
        Some(name) => format!("{id} ({name}) was removed from the format: quantize the model again"),
        None => format!("{id} is unknown"),
    }
}

/// Bytes of a tensor, or what is wrong with its shape.
pub(crate) fn bytes_of(dims: &[u64], dtype: DType) -> Result<u64, String> {
    if dims.contains(&0) {
        return Err(format!("{dims:?} has a dimension of 0"));
    }
    let row = dims.first().copied().unwrap_or(1);
    if row.checked_rem(dtype.block_size()) != Some(0) {
        return Err(format!("{dims:?} has rows that are not whole {dtype} blocks of {} elements", dtype.block_size()));
    }
    let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    // Signed sizes are common in other programs: what they cannot represent is not a tensor.
    let bytes = elements.and_then(|n| dtype.bytes_for(n)).filter(|&b| i64::try_from(b).is_ok());
    bytes.ok_or_else(|| format!("{dims:?} of {dtype} is too large"))
}

/// Finds two tensors with one name. Gives the indices of the tensors in the order of their names.
pub(crate) fn sort_by_name(tensors: &[TensorInfo]) -> Result<Vec<u32>, Error> {
    let name = |i: u32| name_at(tensors, i);
    let mut order: Vec<u32> = memory::collect(tensors.len(), 0u32..)?;
    order.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
    for (&a, &b) in order.iter().zip(order.iter().skip(1)) {
        if name(a) == name(b) {
            return Err(Error::DuplicateTensor { name: quoted(name(b).as_bytes()) });
        }
    }
    Ok(order)
}

pub(crate) fn name_at(tensors: &[TensorInfo], index: u32) -> &str {
    usize::try_from(index).ok().and_then(|i| tensors.get(i)).map_or("", |t| &t.name)
}

/// Finds two tensors of one file that share bytes.
pub(crate) fn check_disjoint(tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut order: Vec<&TensorInfo> = memory::collect(tensors.len(), tensors.iter())?;
    order.sort_unstable_by_key(|t| t.offset);
    for (a, b) in order.iter().zip(order.iter().skip(1)) {
        if a.offset.saturating_add(a.bytes) > b.offset {
            let [first, second] = [a, b].map(|t| quoted(t.name.as_bytes()));
            return Err(Error::Overlap { first, second, offset: b.offset });
        }
    }
    Ok(())
}
