//! Gemma 1 to 3: "gemma", "gemma2", "gemma3". Embeddings are multiplied by the root of the width; norms are stored with 1 added.
use super::Header;
use crate::ModelError;
use crate::config::{Activation, AttentionConfig, Config, Mixer, NormNames, Pairing, QkNorm, RopeScaling};

pub fn gemma(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    decoder(header, attention)
}

/// Soft caps on scores and logits, norms around both parts, and windows on every other layer.
pub fn gemma2(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.softcap = Some(header.keys.positive("attn_logit_softcapping")?.unwrap_or(50.0));
    attention.scale = scale(header, &attention, 46)?;
    let mut config = decoder(header, attention.clone())?;
    config.logit_softcap = Some(header.keys.positive("final_logit_softcapping")?.unwrap_or(30.0));
    let window = header.window()?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.norms = SANDWICH;
        if i % 2 == 0 {
            layer.mixer = Mixer::Attention(AttentionConfig { window, ..attention.clone() });
        }
    }
    Ok(config)
}

/// Norms of queries and keys instead of caps; five windowed layers, with a rotation of their own, then one that sees all.
pub fn gemma3(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = QkNorm::Head;
    attention.scale = scale(header, &attention, 62)?;
    let mut config = decoder(header, attention.clone())?;
    config.logit_softcap = header.keys.positive("final_logit_softcapping")?;
    let mut local = config.ropes[0].clone();
    local.base = header.keys.positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    (local.scaling, local.magnitude) = (RopeScaling::None, 1.0);
    config.ropes.push(local);
    let window = header.window()?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.norms = SANDWICH;
        if (i + 1) % 6 != 0 {
            layer.mixer = Mixer::Attention(AttentionConfig { window, rope: Some(1), ..attention.clone() });
        }
    }
    Ok(config)
}

const SANDWICH: NormNames =
    NormNames { post_attention: Some("post_attention_norm"), post_feed_forward: Some("post_ffw_norm"), ..NormNames::PRE };

/// What scores are multiplied by. The models of 27B, known by their layers, have it from the width instead of the head.
fn scale(header: &Header, attention: &AttentionConfig, layers_of_27b: usize) -> Result<f32, ModelError> {
    if header.keys.required("block_count", super::common::MOST)? == layers_of_27b {
        return Ok((attention.heads as f32 / header.hidden()? as f32).sqrt());
    }
    Ok(attention.scale)
}

fn decoder(header: &Header, attention: AttentionConfig) -> Result<Config, ModelError> {
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    config.activation = Activation::GegluTanh;
    config.embedding_scale = (config.hidden as f32).sqrt();
    Ok(config)
}
