//! The KV cache: blocks of 64 positions, found through a table per sequence.
//!
//! Layers with the same window form a group; a block of a group holds the pages of all its layers and heads. Sequences that begin alike
//! share blocks: a fork takes no memory, and a block is copied when one of its users is about to write into it. Blocks of closed sequences
//! are used again, and blocks that lie wholly below a window are given back.
//!
//! Layers with a recurrence keep a state of fixed size instead, twice: what is valid, and what a pass writes until it is committed.
mod blocks;
mod pieces;
mod shape;

use crate::ModelError;
use crate::batch::SequenceId;
use blocks::Group;
pub(crate) use blocks::TakenBlocks;
use fastllm_kernels::attention::PAGE;
use fastllm_kernels::buffer::AlignedVec;
use shape::LayerCache;
pub use shape::{CacheShape, LayerPages};
use std::collections::VecDeque;
use std::ops::Range;

/// Positions below a window that are kept all the same, so that a sequence can be shortened to as many less than it ever had.
pub const SPARE: usize = PAGE;

/// Where the blocks of a sequence are.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Blocks below this one have been given back.
    first: usize,
    blocks: VecDeque<usize>,
}

impl Table {
    /// One past the last block.
    fn end(&self) -> usize {
        self.first + self.blocks.len()
    }

    /// Blocks with some of the first `len` positions.
    fn used(&self, len: usize) -> usize {
        len.div_ceil(PAGE).saturating_sub(self.first).min(self.blocks.len())
    }

    /// Index of the block that holds some positions of a sequence of `len` and has room for more. Of the blocks with positions only
    /// this one is written again.
    fn partial(&self, len: usize) -> Option<usize> {
        let at = (len / PAGE).checked_sub(self.first)?;
        (!len.is_multiple_of(PAGE) && at < self.blocks.len()).then_some(at)
    }
}

/// The first block that a sequence of `len` positions needs under `window`: the next query is at `len` and sees the positions from
/// `len + 1 - window` on.
fn reach(len: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (len + 1).saturating_sub(window) / PAGE)
}

#[derive(Debug)]
struct Sequence {
    len: usize,
    tables: Vec<Table>,
    /// States of the recurrent layers after `len` positions, and those being computed; empty before the first position.
    state: AlignedVec<f32>,
    next: AlignedVec<f32>,
}

/// The caches of some sequences.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    groups: Vec<Group>,
    sequences: Vec<Option<Sequence>>,
}

/// Pages of one layer and head, from a certain one on.
pub struct Pages<'a> {
    /// Index of the first page.
    pub first: usize,
    /// The pages.
    pub pages: Vec<&'a [u8]>,
}

impl KvCache {
    /// A cache without sequences.
    pub fn new(shape: CacheShape) -> KvCache {
        let groups = groups(&shape);
        KvCache { shape, groups, sequences: Vec::new() }
    }

    /// The shape.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// A new, empty sequence.
    pub fn open(&mut self) -> SequenceId {
        let tables = vec![Table::default(); self.groups.len()];
        self.insert(Sequence { len: 0, tables, state: AlignedVec::default(), next: AlignedVec::default() })
    }

    fn insert(&mut self, new: Sequence) -> SequenceId {
        let slot = self.sequences.iter().position(Option::is_none).unwrap_or_else(|| {
            self.sequences.push(None);
            self.sequences.len() - 1
        });
        self.sequences[slot] = Some(new);
        SequenceId(slot as u32)
    }

    fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(id.0 as usize)?.as_ref()
    }

    /// The most positions, up to `most`, with which a fork of `id` can begin: what windows and recurrent layers have kept.
    pub fn forkable(&self, id: SequenceId, most: usize) -> usize {
        let Some(sequence) = self.get(id) else { return 0 };
        let len = sequence.len.min(most);
        let kept = |(table, &(window, _)): (&Table, &(Option<usize>, usize))| table.first <= reach(len, window);
        let pages = sequence.tables.iter().zip(&self.shape.groups).all(kept);
        if pages && (self.shape.state == 0 || len == sequence.len) { len } else { 0 }
    }

    /// A new sequence that begins with the first `len` positions of `id`, whose blocks it shares.
    ///
    /// # Errors
    /// If so many positions are not [`forkable`](Self::forkable), or there is no memory for the states of recurrent layers.
    pub fn fork(&mut self, id: SequenceId, len: usize) -> Result<SequenceId, ModelError> {
        if self.forkable(id, len) != len {
            return Err(ModelError::Batch(format!("sequence {} cannot be forked at {len} positions", id.0)));
        }
        let Some(source) = self.get(id) else { return Ok(self.open()) };
        let kept = if len == 0 { &[] } else { &source.state[..] };
        let mut state = AlignedVec::try_zeroed(kept.len())?;
        state.copy_from_slice(kept);
        let mut tables = source.tables.clone();
        for ((table, group), &(window, _)) in tables.iter_mut().zip(&mut self.groups).zip(&self.shape.groups) {
            let first = reach(len.saturating_sub(SPARE), window).max(table.first);
            table.blocks.truncate(len.div_ceil(PAGE).saturating_sub(table.first));
            table.blocks.drain(..(first - table.first).min(table.blocks.len()));
            table.first = first;
            table.blocks.iter().for_each(|&block| group.share(block));
        }
        Ok(self.insert(Sequence { len, tables, state, next: AlignedVec::default() }))
    }

    /// Drops the positions from `len` on. Windows keep [`SPARE`] positions for that, counted from the most that the sequence had;
    /// recurrent layers keep none.
    ///
    /// # Errors
    /// If so many positions were not kept.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<(), ModelError> {
        if self.forkable(id, len) != len {
            return Err(ModelError::Batch(format!("sequence {} cannot be cut to {len} positions", id.0)));
        }
        let Some(Some(sequence)) = self.sequences.get_mut(id.0 as usize) else { return Ok(()) };
        sequence.len = len;
        for (table, group) in sequence.tables.iter_mut().zip(&mut self.groups) {
            let kept = len.div_ceil(PAGE).saturating_sub(table.first);
            table.blocks.drain(kept.min(table.blocks.len())..).for_each(|block| group.release(block));
        }
        Ok(())
    }

    /// Gives the blocks of a sequence back.
    pub fn close(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id.0 as usize).and_then(Option::take) else { return };
        for (group, table) in self.groups.iter_mut().zip(sequence.tables) {
            table.blocks.into_iter().for_each(|block| group.release(block));
        }
        // A cache that nobody uses holds no memory.
        if self.is_empty() {
            self.groups = groups(&self.shape);
        }
    }

    /// Positions of a sequence, if it is open.
    pub fn len(&self, id: SequenceId) -> Option<usize> {
        Some(self.get(id)?.len)
    }

    /// Whether no sequence is open.
    pub fn is_empty(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let state = |s: &Sequence| size_of_val::<[f32]>(&s.state) + size_of_val::<[f32]>(&s.next);
        let states: usize = self.sequences.iter().flatten().map(state).sum();
        self.groups.iter().map(Group::bytes).sum::<usize>() + states
    }

    /// Bytes that room for some more positions would add, given as sequences and counts.
    pub fn growth(&self, more: impl Iterator<Item = (SequenceId, usize)>) -> usize {
        let mut blocks = vec![0; self.groups.len()];
        let mut states = 0;
        for (id, count) in more {
            let Some(sequence) = self.get(id) else { continue };
            let state = usize::from(sequence.state.is_empty()) + usize::from(sequence.next.is_empty());
            states += state * self.shape.state * size_of::<f32>();
            for ((table, group), blocks) in sequence.tables.iter().zip(&self.groups).zip(&mut blocks) {
                let copied = table.partial(sequence.len).is_some_and(|at| group.is_shared(table.blocks[at]));
                *blocks += (sequence.len + count).div_ceil(PAGE).saturating_sub(table.end()) + usize::from(copied);
            }
        }
        self.groups.iter().zip(blocks).map(|(group, count)| group.growth(count)).sum::<usize>() + states
    }

    /// Frees unused blocks until at most `bytes` are allocated, as far as it goes.
    pub fn shrink(&mut self, bytes: usize) {
        while self.bytes() > bytes && self.groups.iter_mut().any(Group::shrink) {}
    }

    /// Makes room for `count` more positions.
    ///
    /// # Errors
    /// If there is no memory; then nothing changes for the sequence.
    pub fn reserve(&mut self, id: SequenceId, count: usize) -> Result<(), ModelError> {
        let KvCache { shape, groups, sequences } = self;
        let Some(Some(sequence)) = sequences.get_mut(id.0 as usize) else {
            return Err(ModelError::Batch(format!("sequence {} is not open", id.0)));
        };
        for state in [&mut sequence.state, &mut sequence.next] {
            if state.is_empty() && shape.state > 0 {
                *state = AlignedVec::try_zeroed(shape.state)?;
            }
        }
        let len = sequence.len;
        for (g, (table, group)) in sequence.tables.iter_mut().zip(groups).enumerate() {
            if let Some(at) = table.partial(len)
                && group.is_shared(table.blocks[at])
            {
                table.blocks[at] = group.copy(table.blocks[at])?;
            }
            while table.end() < (len + count).div_ceil(PAGE) {
                let block = group.allocate()?;
                for layer in shape.group(g) {
                    for page in group.bytes_of_mut(block)[layer.offset..].chunks_exact_mut(layer.layout.bytes()).take(layer.heads) {
                        layer.layout.clear(page);
                    }
                }
                table.blocks.push_back(block);
            }
        }
        Ok(())
    }

    /// Makes `count` positions, written since `reserve`, part of the sequence, and gives back what no window reaches any more.
    pub fn commit(&mut self, id: SequenceId, count: usize) {
        let Some(Some(sequence)) = self.sequences.get_mut(id.0 as usize) else { return };
        sequence.len += count;
        std::mem::swap(&mut sequence.state, &mut sequence.next);
        for ((table, group), &(window, _)) in sequence.tables.iter_mut().zip(&mut self.groups).zip(&self.shape.groups) {
            while table.first < reach(sequence.len.saturating_sub(SPARE), window) {
                let Some(block) = table.blocks.pop_front() else { break };
                group.release(block);
                table.first += 1;
            }
        }
    }

    /// The state of recurrent layer `i` of a sequence, and where the next one is to be written, all of it.
    pub(crate) fn states(&mut self, id: SequenceId, i: usize) -> (&[f32], &mut [f32]) {
        let (LayerCache::State(first, len), Some(Some(s))) = (self.shape.layers[i], self.sequences.get_mut(id.0 as usize)) else {
            return (&[], &mut []);
        };
        (&s.state[first..first + len], &mut s.next[first..first + len])
    }

    /// Takes the blocks with positions `from..to` of a sequence out of the cache, to write them.
    pub(crate) fn take(&mut self, id: SequenceId, layer: LayerPages, from: usize, to: usize) -> TakenBlocks<'_> {
        let KvCache { groups, sequences, .. } = self;
        let group = &mut groups[layer.group];
        let Some(Some(sequence)) = sequences.get(id.0 as usize) else { return TakenBlocks { group, blocks: Vec::new() } };
        let table = &sequence.tables[layer.group];
        let blocks = (from / PAGE..to.div_ceil(PAGE)).map(|page| group.take(table.blocks[page - table.first], page)).collect();
        TakenBlocks { group, blocks }
    }

    /// The pages of a head of a layer whose indices are in `wanted`, as far as they are there.
    pub(crate) fn pages(&self, id: SequenceId, layer: LayerPages, head: usize, wanted: Range<usize>) -> Pages<'_> {
        let Some(sequence) = self.get(id) else { return Pages { first: 0, pages: Vec::new() } };
        let table = &sequence.tables[layer.group];
        let size = layer.layout.bytes();
        let end = wanted.end.saturating_sub(table.first).min(table.blocks.len());
        let start = wanted.start.saturating_sub(table.first).min(end);
        let page = |&block: &usize| &self.groups[layer.group].bytes_of(block)[layer.offset + head * size..][..size];
        Pages { first: table.first + start, pages: table.blocks.range(start..end).map(page).collect() }
    }
}

fn groups(shape: &CacheShape) -> Vec<Group> {
    shape.groups.iter().map(|&(_, bytes)| Group::new(bytes)).collect()
}
