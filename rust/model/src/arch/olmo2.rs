//! OLMo 2 and 3: "olmo2". Norms act on the outputs of the blocks instead of their inputs, and on queries and keys as a whole.
//!
//! OLMo 3 has a window on all layers but every fourth; only the layers without one rotate with YaRN.
use super::common::set_windows;
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Mixer, NormNames, Pairing, QkNorm, RopeConfig, RopeScaling};

pub const FAMILY: Family = Family::new("olmo2", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = QkNorm::Projection;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames::POST;
    }
    let windows = header.windows(4)?;
    if windows.window.is_some() {
        set_windows(&mut config, &windows);
        let base = header.keys.positive("rope.freq_base_swa")?.unwrap_or(config.ropes[0].base);
        config.ropes.push(RopeConfig { base, scaling: RopeScaling::None, magnitude: 1.0, ..config.ropes[0].clone() });
        for (layer, windowed) in config.layers.iter_mut().zip(windows.layers) {
            if let (Mixer::Attention(a), true) = (&mut layer.mixer, windowed) {
                a.rope = Some(1);
            }
        }
    }
    Ok(config)
}
