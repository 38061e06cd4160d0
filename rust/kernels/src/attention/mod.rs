//! Causal attention over a paged KV cache. Knows pages and query rows, no models and no threads.
//!
//! A page ([`PageLayout`]) holds 64 consecutive positions of one KV head of one layer. The operator ([`Attend`]) takes the query rows
//! that share this KV head: `tokens x group` of them, so that grouped queries, verification and prefill are all the same case.
//!
//! The context is cut at multiples of [`CHUNK`] positions. A chunk gives a row the triple (maximum, sum of exponentials, weighted sum
//! of values), a pure function of the row, its position and the chunk; triples are folded from the left ([`State`]). Neither the number
//! of rows, nor who computed which chunk, nor the instruction set appears in a result: callers may split heads, rows or the context
//! over threads as they like.
//!
//! A row that sees a score which is not finite (a NaN or an infinity in its query, or in a key or value that it sees) is NaN in all
//! channels; rows that do not see the position are untouched.
mod cache;
mod dense;
mod layout;
mod operator;
mod q8_0;
mod query;
mod state;
#[cfg(test)]
mod tests;

pub use cache::Workspace;
pub use layout::{CacheType, LayoutError, PageLayout, Strided};
pub use operator::{Attend, attend};
pub use query::Queries;
pub use state::State;

/// Positions of a page.
pub const PAGE: usize = 64;
/// Positions whose probabilities share a maximum; the unit of the fold over the context. A multiple of [`PAGE`].
pub const CHUNK: usize = 256;
/// The widest head, of keys or values.
pub const MAX_HEAD: usize = 576;

/// Largest number of query rows in a register tile.
const ROWS: usize = 6;
/// Lanes of the reference vector: sums over keys run in this many lanes whatever the instruction set.
const LANES: usize = fastllm_simd::ROWS;

/// What does not change from call to call of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// The pages.
    pub layout: PageLayout,
    /// Multiplies every score; usually `1 / sqrt(dim_k)`.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A row sees this many positions, itself included; `None` is all of them.
    pub window: Option<usize>,
}

impl Attention {
    /// What to multiply a query by, so that a score is in units of log2, or of the soft cap.
    fn query_scale(&self) -> f32 {
        match self.softcap {
            Some(cap) => self.scale / cap,
            None => self.scale * std::f32::consts::LOG2_E,
        }
    }

    /// The first position that the row at `position` sees.
    #[inline(always)]
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The chunks that rows at positions `first..=last` see.
    pub fn chunks(&self, first: usize, last: usize) -> std::ops::Range<usize> {
        self.first_seen(first) / CHUNK..last / CHUNK + 1
    }

    /// The first page that the row at `position` sees; pages below it may be gone.
    pub fn first_page(&self, position: usize) -> usize {
        self.first_seen(position) / PAGE
    }
}
