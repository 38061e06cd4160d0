//! OLMo 2: "olmo2". Norms act on the outputs of the blocks instead of their inputs, and on queries and keys as a whole.
use super::Header;
use crate::ModelError;
use crate::config::{Config, NormNames, Pairing, QkNorm};

pub fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = QkNorm::Projection;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames {
            attention: None,
            post_attention: Some("post_attention_norm"),
            feed_forward: None,
            post_feed_forward: Some("post_ffw_norm"),
        };
    }
    Ok(config)
}
