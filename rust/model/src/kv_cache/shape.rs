//! What a cache for a model looks like: which layers share blocks, and how large they are.
use super::SPARE;
use crate::ModelError;
use crate::config::{AttentionConfig, Config, Mixer};
use fastllm_kernels::attention::{CacheType, PAGE, PageLayout};

/// Where a layer's pages lie.
#[derive(Clone, Copy, Debug)]
pub struct LayerPages {
    /// Index of the group.
    pub group: usize,
    /// Byte in a block where the layer's first page starts.
    pub(super) offset: usize,
    /// KV heads: one page each.
    pub(super) heads: usize,
    /// The layout of a page.
    pub layout: PageLayout,
}

/// What a layer keeps.
#[derive(Clone, Copy, Debug)]
pub(super) enum LayerCache {
    Pages(LayerPages),
    /// Floats before and of the layer's state.
    State(usize, usize),
}

/// What a cache for a model looks like.
#[derive(Clone, Debug)]
pub struct CacheShape {
    pub(super) layers: Vec<LayerCache>,
    /// Floats of the states of all recurrent layers.
    pub(super) state: usize,
    /// Window and bytes of a block of each group.
    pub(super) groups: Vec<(Option<usize>, usize)>,
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

    /// Whether every position is kept: there are neither windows nor recurrent layers.
    pub fn keeps_all(&self) -> bool {
        self.state == 0 && self.groups.iter().all(|group| group.0.is_none())
    }

    /// Positions by which a sequence can be shortened: recurrent layers keep no earlier state.
    pub fn spare(&self) -> usize {
        if self.state == 0 { SPARE } else { 0 }
    }

    /// The pages of layer `i`, if it has attention.
    pub fn layer(&self, i: usize) -> Option<LayerPages> {
        match self.layers[i] {
            LayerCache::Pages(pages) => Some(pages),
            LayerCache::State(..) => None,
        }
    }

    /// The layers with pages in a group.
    pub(super) fn group(&self, group: usize) -> impl Iterator<Item = LayerPages> {
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
        // `n` positions touch at most as many pages as `n + PAGE - 1` from the start of one; a chunk sees `window - 1` before it, and
        // the spare positions are below that.
        let blocks = |window: Option<usize>| {
            let kept = window.map_or(positions, |w| positions.min(w.saturating_add(chunk).saturating_add(SPARE + PAGE - 2)));
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
