//! Llama 1 to 3, Mistral, Yi, and with experts Mixtral: `general.architecture` "llama".
use super::Header;
use super::common::{MOST, WIDEST};
use crate::ModelError;
use crate::config::{Config, ExpertsConfig, FeedForwardConfig, Pairing};

pub fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.window = header.window()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    // Converters write an expert count of 0 for dense models.
    let feed_forward = if header.keys.optional_count("expert_count", MOST)?.is_some() {
        let width = header.keys.required("feed_forward_length", WIDEST)?;
        FeedForwardConfig::Experts(ExpertsConfig { normalise: true, ..header.experts(width)? })
    } else {
        header.dense()?
    };
    header.decoder(header.rms_norm()?, attention, rope, feed_forward)
}
