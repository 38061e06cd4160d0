//! The tokens that are still possible, with their logits.

use super::SampleError;
use super::math;

/// Buffers of one sampling step, reused between steps and requests.
#[derive(Debug, Default)]
pub struct Scratch {
    candidates: Candidates,
}

impl Scratch {
    pub(crate) fn load(&mut self, logits: &[f32]) -> &mut Candidates {
        let candidates = &mut self.candidates;
        candidates.logits.clear();
        candidates.logits.extend_from_slice(logits);
        candidates.ids = None;
        candidates
    }
}

/// A struct of arrays: logit `i` belongs to id `ids[i]`, or to id `i` while nothing was removed.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    ids: Option<Vec<u32>>,
    logits: Vec<f32>,
    weights: Vec<f32>,
}

impl Candidates {
    pub(crate) fn len(&self) -> usize {
        self.logits.len()
    }

    pub(crate) fn id(&self, index: usize) -> u32 {
        self.ids.as_ref().map_or(index as u32, |ids| ids[index])
    }

    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    pub(crate) fn logits_mut(&mut self) -> &mut [f32] {
        &mut self.logits
    }

    /// Gives ids without a bit in `mask` the logit -infinity; only while nothing was removed.
    pub(crate) fn restrict(&mut self, mask: &[u32]) {
        debug_assert!(self.ids.is_none(), "candidates are masked before any are removed");
        let mut words = mask.iter().copied();
        for chunk in self.logits.chunks_mut(32) {
            let word = words.next().unwrap_or(0);
            for (bit, logit) in chunk.iter_mut().enumerate() {
                *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
            }
        }
    }

    /// The logit of an id; only while nothing was removed.
    pub(crate) fn logit_of(&mut self, id: u32) -> Option<&mut f32> {
        debug_assert!(self.ids.is_none(), "logits are adjusted before candidates are removed");
        self.logits.get_mut(id as usize)
    }

    /// The largest logit, after a check that all are below +infinity and one is above -infinity.
    pub(crate) fn check(&self) -> Result<f32, SampleError> {
        let (max, valid) = math::max_and_validity(&self.logits);
        if !valid {
            let invalid = self.logits.iter().enumerate().find(|(_, logit)| logit.is_nan() || **logit == f32::INFINITY);
            if let Some((index, &value)) = invalid {
                return Err(SampleError::InvalidLogit { id: self.id(index), value });
            }
        }
        if max == f32::NEG_INFINITY { Err(SampleError::AllBanned) } else { Ok(max) }
    }

    /// The lowest id whose logit is `value`.
    pub(crate) fn first_equal(&self, value: f32) -> u32 {
        self.id(self.logits.iter().position(|&logit| logit == value).unwrap_or(0))
    }

    /// Keeps the candidates at `indices`, in that order.
    pub(crate) fn keep(&mut self, indices: &[u32]) {
        self.ids = Some(indices.iter().map(|&i| self.id(i as usize)).collect());
        let logits: Vec<f32> = indices.iter().map(|&i| self.logits[i as usize]).collect();
        self.logits = logits;
    }

    /// `exp(logit - max)` of every candidate, and their sum. The largest weight is 1.
    pub(crate) fn weights(&mut self) -> (&[f32], f64) {
        let (max, _) = math::max_and_validity(&self.logits);
        let total = math::exp_shifted(&self.logits, max, &mut self.weights);
        (&self.weights, total)
    }
}
