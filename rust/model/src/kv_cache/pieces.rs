//! The state of a sequence as pieces of bytes, to be written down and restored: first what it consists of, then its blocks, group by
//! group, then the states of recurrent layers.
use super::{KvCache, Table, reach};
use crate::ModelError;
use crate::batch::SequenceId;
use fastllm_kernels::attention::PAGE;
use fastllm_kernels::buffer::AlignedVec;
use std::borrow::Cow;

/// Version of the pieces and of the pages in them.
const VERSION: u64 = 1;

/// A piece that does not fit.
fn damaged<T>(what: &str) -> Result<T, ModelError> {
    Err(ModelError::Invalid(format!("the saved state is damaged, or of another model: {what}")))
}

impl KvCache {
    /// Piece `index` of the state of a sequence, if there are so many.
    pub fn piece(&self, id: SequenceId, index: usize) -> Option<Cow<'_, [u8]>> {
        let sequence = self.get(id)?;
        let Some(mut index) = index.checked_sub(1) else {
            let tables = sequence.tables.iter().flat_map(|table| [table.first as u64, table.used(sequence.len) as u64]);
            let numbers = self.signature().into_iter().chain([sequence.len as u64]).chain(tables);
            return Some(numbers.flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into());
        };
        for (group, table) in self.groups.iter().zip(&sequence.tables) {
            let used = table.used(sequence.len);
            if index < used {
                return Some(group.bytes_of(table.blocks[index]).into());
            }
            index -= used;
        }
        (index == 0 && !sequence.state.is_empty()).then(|| bytemuck::cast_slice(&sequence.state).into())
    }

    /// Gives an empty sequence the next piece of a state; whether that was the last one. A sequence with some pieces only is to be closed.
    ///
    /// # Errors
    /// If the piece is none of a state of this model, or memory is short.
    pub fn restore(&mut self, id: SequenceId, index: usize, piece: &[u8]) -> Result<bool, ModelError> {
        if index == 0 {
            self.describe(id, piece)?;
        } else {
            self.fill(id, piece)?;
        }
        let missing = self.get(id).is_some_and(|sequence| {
            let pages = sequence.tables.iter().any(|table| table.end() < sequence.len.div_ceil(PAGE));
            pages || (self.shape.state > 0 && sequence.len > 0 && sequence.state.is_empty())
        });
        Ok(!missing)
    }

    /// What all sequences of this cache have in common.
    fn signature(&self) -> Vec<u64> {
        let groups = self.shape.groups.iter().flat_map(|&(window, bytes)| [window.map_or(0, |window| window as u64 + 1), bytes as u64]);
        [VERSION, self.shape.state as u64].into_iter().chain(groups).collect()
    }

    /// Positions and first blocks; the tables are empty still.
    fn describe(&mut self, id: SequenceId, piece: &[u8]) -> Result<(), ModelError> {
        let signature = self.signature();
        let numbers: Vec<u64> = piece.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        let Some((len, tables)) = numbers.strip_prefix(&signature[..]).and_then(<[u64]>::split_first) else {
            return damaged("it has other layers");
        };
        let Some(Some(sequence)) = self.sequences.get_mut(id.0 as usize).filter(|s| s.as_ref().is_some_and(|s| s.len == 0)) else {
            return damaged("the sequence is not empty");
        };
        let Some(len) = u32::try_from(*len).ok().map(|len| len as usize) else { return damaged("it is too long") };
        if piece.len() != 8 * numbers.len() || tables.len() != 2 * sequence.tables.len() {
            return damaged("its description is too long");
        }
        for ((table, pair), &(window, _)) in sequence.tables.iter_mut().zip(tables.chunks_exact(2)).zip(&self.shape.groups) {
            let (first, blocks) = (pair[0] as usize, pair[1] as usize);
            if first > reach(len, window) || first.checked_add(blocks) != Some(len.div_ceil(PAGE)) {
                return damaged("it does not hold what a window reaches");
            }
            *table = Table { first, ..Table::default() };
        }
        sequence.len = len;
        Ok(())
    }

    fn fill(&mut self, id: SequenceId, piece: &[u8]) -> Result<(), ModelError> {
        let KvCache { shape, groups, sequences } = self;
        let Some(Some(sequence)) = sequences.get_mut(id.0 as usize) else { return damaged("the sequence is not open") };
        let last = sequence.len.div_ceil(PAGE);
        if let Some((table, group)) = sequence.tables.iter_mut().zip(groups).find(|(table, _)| table.end() < last) {
            if piece.len() != group.block_bytes() {
                return damaged("a block has another size");
            }
            let block = group.allocate()?;
            group.bytes_of_mut(block).copy_from_slice(piece);
            table.blocks.push_back(block);
            return Ok(());
        }
        if piece.len() != shape.state * size_of::<f32>() || !sequence.state.is_empty() || piece.is_empty() {
            return damaged("there are more pieces than expected");
        }
        sequence.state = AlignedVec::try_zeroed(shape.state)?;
        bytemuck::cast_slice_mut::<f32, u8>(&mut sequence.state).copy_from_slice(piece);
        Ok(())
    }
}
