//! The KV cache: blocks of 64 positions, found through a table per sequence.
//!
//! Layers with the same window form a group; a block of a group holds the pages of all its layers and heads. Blocks are allocated as
//! sequences grow and used again when they are closed; blocks that lie wholly below a window are given back.
//!
//! Layers with a recurrence keep a state of fixed size instead, twice: what is valid, and what a pass writes until it is committed.
use crate::ModelError;
use crate::batch::SequenceId;
use crate::config::{AttentionConfig, Config, Mixer};
use fastllm_kernels::attention::{CacheType, PAGE, PageLayout};
use fastllm_kernels::buffer::{AlignedVec, Line};
use std::collections::VecDeque;
use std::ops::Range;

/// Where a layer's pages lie.
#[derive(Clone, Copy, Debug)]
pub struct LayerPages {
    /// Index of the group.
    pub group: usize,
    /// Byte in a block where the layer's first page starts.
    offset: usize,
    /// KV heads: one page each.
    heads: usize,
    /// The layout of a page.
    pub layout: PageLayout,
}

/// What a layer keeps.
#[derive(Clone, Copy, Debug)]
enum LayerCache {
    Pages(LayerPages),
    /// Floats before and of the layer's state.
    State(usize, usize),
}

/// What a cache for a model looks like.
#[derive(Clone, Debug)]
pub struct CacheShape {
    layers: Vec<LayerCache>,
    /// Floats of the states of all recurrent layers.
    state: usize,
    /// Window and bytes of a block of each group.
    groups: Vec<(Option<usize>, usize)>,
}

impl CacheShape {
    /// The shape for a model.
    ///
    /// # Errors
    /// If a head is too wide.
    pub fn new(config: &Config, cache_type: CacheType) -> Result<CacheShape, ModelError> {
        let mut groups: Vec<(Option<usize>, usize)> = Vec::new();
        let mut layers = Vec::with_capacity(config.layers.len());
        let mut state = 0;
        for layer in &config.layers {
            let &AttentionConfig { kv_heads: heads, dim_k, dim_v, window, .. } = match &layer.mixer {
                Mixer::Attention(attention) => attention,
                Mixer::DeltaNet(d) => {
                    layers.push(LayerCache::State(state, d.state()));
                    state += d.state();
                    continue;
                }
            };
            let layout = PageLayout::new(cache_type, dim_k, dim_v).map_err(|e| ModelError::Unsupported(e.to_string()))?;
            let group = groups.iter().position(|g| g.0 == window).unwrap_or_else(|| {
                groups.push((window, 0));
                groups.len() - 1
            });
            layers.push(LayerCache::Pages(LayerPages { group, offset: groups[group].1, heads, layout }));
            groups[group].1 += heads * layout.bytes();
        }
        Ok(CacheShape { layers, state, groups })
    }

    /// The pages of layer `i`, if it has attention.
    pub fn layer(&self, i: usize) -> Option<LayerPages> {
        match self.layers[i] {
            LayerCache::Pages(pages) => Some(pages),
            LayerCache::State(..) => None,
        }
    }

    /// The layers with pages in a group.
    fn group(&self, group: usize) -> impl Iterator<Item = LayerPages> {
        self.layers.iter().filter_map(move |l| match l {
            LayerCache::Pages(pages) if pages.group == group => Some(*pages),
            _ => None,
        })
    }

    /// Bytes of the states of a sequence.
    fn state_bytes(&self) -> usize {
        2 * self.state * size_of::<f32>()
    }

    /// Bytes that a sequence of `positions` needs at most, when it is filled `chunk` positions at a time.
    pub fn bytes(&self, positions: usize, chunk: usize) -> usize {
        // `n` positions touch at most as many pages as `n + PAGE - 1` from the start of one; a chunk sees `window - 1` before it.
        let blocks = |window: Option<usize>| {
            let kept = window.map_or(positions, |w| positions.min(w.saturating_add(chunk).saturating_add(PAGE - 2)));
            kept.div_ceil(PAGE)
        };
        let pages = self.groups.iter().map(|&(window, bytes)| blocks(window).saturating_mul(bytes));
        pages.fold(self.state_bytes(), usize::saturating_add)
    }

    /// Bytes that attention reads for one token at `position`.
    pub fn bytes_read(&self, position: usize) -> usize {
        let seen = |window: Option<usize>| window.map_or(position + 1, |w| w.min(position + 1)).div_ceil(PAGE);
        let pages: usize = self.groups.iter().map(|&(window, bytes)| seen(window) * bytes).sum();
        pages + self.state_bytes()
    }
}

/// The blocks of one group of layers.
#[derive(Debug, Default)]
struct Group {
    blocks: Vec<AlignedVec<Line>>,
    free: Vec<usize>,
}

/// Where the blocks of a sequence are.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Blocks below this one have been given back.
    first: usize,
    blocks: VecDeque<usize>,
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
        let groups = shape.groups.iter().map(|_| Group::default()).collect();
        KvCache { shape, groups, sequences: Vec::new() }
    }

    /// The shape.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// A new, empty sequence.
    pub fn open(&mut self) -> SequenceId {
        let new = Sequence {
            len: 0,
            tables: vec![Table::default(); self.groups.len()],
            state: AlignedVec::default(),
            next: AlignedVec::default(),
        };
        let slot = self.sequences.iter().position(Option::is_none).unwrap_or_else(|| {
            self.sequences.push(None);
            self.sequences.len() - 1
        });
        self.sequences[slot] = Some(new);
        SequenceId(slot as u32)
    }

    /// Gives the blocks of a sequence back.
    pub fn close(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id.0 as usize).and_then(Option::take) else { return };
        for (group, table) in self.groups.iter_mut().zip(sequence.tables) {
            group.free.extend(table.blocks);
        }
        // A cache that nobody uses holds no memory.
        if self.sequences.iter().all(Option::is_none) {
            self.groups.iter_mut().for_each(|g| *g = Group::default());
        }
    }

    /// Positions of a sequence, if it is open.
    pub fn len(&self, id: SequenceId) -> Option<usize> {
        Some(self.sequences.get(id.0 as usize)?.as_ref()?.len)
    }

    /// Whether no sequence is open.
    pub fn is_empty(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let pages: usize = self.groups.iter().flat_map(|g| &g.blocks).map(|b| size_of_val::<[Line]>(b)).sum();
        let state = |s: &Sequence| size_of_val::<[f32]>(&s.state) + size_of_val::<[f32]>(&s.next);
        pages + self.sequences.iter().flatten().map(state).sum::<usize>()
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
        if sequence.state.is_empty() && shape.state > 0 {
            let (state, next) = (AlignedVec::try_zeroed(shape.state)?, AlignedVec::try_zeroed(shape.state)?);
            (sequence.state, sequence.next) = (state, next);
        }
        for (g, table) in sequence.tables.iter_mut().enumerate() {
            let wanted = (sequence.len + count).div_ceil(PAGE);
            while table.first + table.blocks.len() < wanted {
                let group = &mut groups[g];
                let block = if let Some(block) = group.free.pop() {
                    block
                } else {
                    group.blocks.push(AlignedVec::try_zeroed(shape.groups[g].1 / size_of::<Line>())?);
                    group.blocks.len() - 1
                };
                for layer in shape.group(g) {
                    let bytes = bytemuck::cast_slice_mut::<Line, u8>(&mut group.blocks[block]);
                    for page in bytes[layer.offset..].chunks_exact_mut(layer.layout.bytes()).take(layer.heads) {
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
        for (g, table) in sequence.tables.iter_mut().enumerate() {
            let Some(window) = self.shape.groups[g].0 else { continue };
            // The next query is at `len` and sees the positions from `len + 1 - window` on.
            let reach = (sequence.len + 1).saturating_sub(window) / PAGE;
            while table.first < reach {
                let Some(block) = table.blocks.pop_front() else { break };
                self.groups[g].free.push(block);
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
        let blocks = (from / PAGE..to.div_ceil(PAGE))
            .map(|page| {
                let block = table.blocks[page - table.first];
                Taken { block, page, data: std::mem::take(&mut group.blocks[block]) }
            })
            .collect();
        TakenBlocks { group, blocks }
    }

    /// The pages of a head of a layer whose indices are in `wanted`, as far as they are there.
    pub(crate) fn pages(&self, id: SequenceId, layer: LayerPages, head: usize, wanted: Range<usize>) -> Pages<'_> {
        let Some(Some(sequence)) = self.sequences.get(id.0 as usize) else { return Pages { first: 0, pages: Vec::new() } };
        let table = &sequence.tables[layer.group];
        let size = layer.layout.bytes();
        let end = wanted.end.saturating_sub(table.first).min(table.blocks.len());
        let start = wanted.start.saturating_sub(table.first).min(end);
        let page = |&block: &usize| {
            let bytes = bytemuck::cast_slice::<Line, u8>(&self.groups[layer.group].blocks[block]);
            &bytes[layer.offset + head * size..][..size]
        };
        Pages { first: table.first + start, pages: table.blocks.range(start..end).map(page).collect() }
    }
}

/// Blocks that are being written; they go back into the cache in the end, also if a panic ends it.
pub(crate) struct TakenBlocks<'a> {
    group: &'a mut Group,
    /// The blocks, in the order of positions.
    pub blocks: Vec<Taken>,
}

impl Drop for TakenBlocks<'_> {
    fn drop(&mut self) {
        for Taken { block, data, .. } in self.blocks.drain(..) {
            self.group.blocks[block] = data;
        }
    }
}

/// A block that is being written.
pub(crate) struct Taken {
    block: usize,
    /// Index of its page in the sequence.
    pub page: usize,
    data: AlignedVec<Line>,
}

impl Taken {
    /// The pages of a layer, one per head.
    pub fn pages_mut(&mut self, layer: LayerPages) -> impl Iterator<Item = &mut [u8]> {
        let bytes = bytemuck::cast_slice_mut::<Line, u8>(&mut self.data);
        bytes[layer.offset..].chunks_exact_mut(layer.layout.bytes()).take(layer.heads)
    }
}
