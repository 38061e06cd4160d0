//! Blocks of one group of layers, counted by the sequences that use them, and blocks taken out to be written.
use super::shape::LayerPages;
use fastllm_kernels::buffer::{AlignedVec, Line, OutOfMemory};

/// Memory that must be there beside a new block: small allocations elsewhere in the process cannot fail in order, so the cache does not
/// take the last of it.
const HEADROOM: usize = 32 << 20;
/// Bytes of blocks from which on that is looked at: less is not what exhausts a memory.
const MUCH: usize = 4 << 20;

#[derive(Debug, Default)]
struct Block {
    /// Empty while the block is taken, or when its memory was given back.
    data: AlignedVec<Line>,
    /// Sequences that use it.
    users: u32,
}

/// The blocks of one group of layers.
#[derive(Debug)]
pub(super) struct Group {
    /// Lines of a block.
    lines: usize,
    blocks: Vec<Block>,
    /// Blocks without users that have memory.
    free: Vec<usize>,
    /// Blocks without users and memory.
    vacant: Vec<usize>,
}

impl Group {
    pub(super) fn new(bytes: usize) -> Group {
        Group { lines: bytes / size_of::<Line>(), blocks: Vec::new(), free: Vec::new(), vacant: Vec::new() }
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.lines * size_of::<Line>()
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        (self.blocks.len() - self.vacant.len()) * self.block_bytes()
    }

    /// Bytes that `count` more blocks would add.
    pub(super) fn growth(&self, count: usize) -> usize {
        count.saturating_sub(self.free.len()) * self.block_bytes()
    }

    /// A block with one user; what it holds is unspecified.
    pub(super) fn allocate(&mut self) -> Result<usize, OutOfMemory> {
        if let Some(block) = self.free.pop() {
            self.blocks[block].users = 1;
            return Ok(block);
        }
        let new = Block { data: AlignedVec::try_zeroed(self.lines)?, users: 1 };
        if self.bytes() >= MUCH {
            // Mapped and given back untouched: under a limit of address space or data this fails before the limit is reached.
            drop(AlignedVec::<u8>::try_zeroed(HEADROOM)?);
        }
        if let Some(block) = self.vacant.pop() {
            self.blocks[block] = new;
            return Ok(block);
        }
        self.blocks.push(new);
        Ok(self.blocks.len() - 1)
    }

    /// One more user.
    pub(super) fn share(&mut self, block: usize) {
        self.blocks[block].users += 1;
    }

    /// One user less.
    pub(super) fn release(&mut self, block: usize) {
        let users = &mut self.blocks[block].users;
        *users -= 1;
        if *users == 0 {
            self.free.push(block);
        }
    }

    /// Whether somebody else uses the block too.
    pub(super) fn is_shared(&self, block: usize) -> bool {
        self.blocks[block].users > 1
    }

    /// Gives one user a copy of its own.
    pub(super) fn copy(&mut self, block: usize) -> Result<usize, OutOfMemory> {
        let copy = self.allocate()?;
        let mut data = std::mem::take(&mut self.blocks[copy].data);
        data.copy_from_slice(&self.blocks[block].data);
        self.blocks[copy].data = data;
        self.release(block);
        Ok(copy)
    }

    /// Frees the memory of a block that nobody uses; whether there was one.
    pub(super) fn shrink(&mut self) -> bool {
        let Some(block) = self.free.pop() else { return false };
        self.blocks[block].data = AlignedVec::default();
        self.vacant.push(block);
        true
    }

    pub(super) fn bytes_of(&self, block: usize) -> &[u8] {
        bytemuck::cast_slice(&self.blocks[block].data)
    }

    pub(super) fn bytes_of_mut(&mut self, block: usize) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.blocks[block].data)
    }

    pub(super) fn take(&mut self, block: usize, page: usize) -> Taken {
        Taken { block, page, data: std::mem::take(&mut self.blocks[block].data) }
    }
}

/// Blocks that are being written; they go back into the cache in the end, also if a panic ends it.
pub(crate) struct TakenBlocks<'a> {
    pub(super) group: &'a mut Group,
    /// The blocks, in the order of positions.
    pub blocks: Vec<Taken>,
}

impl Drop for TakenBlocks<'_> {
    fn drop(&mut self) {
        for Taken { block, data, .. } in self.blocks.drain(..) {
            self.group.blocks[block].data = data;
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
