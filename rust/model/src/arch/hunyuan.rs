//! Hunyuan, dense: "hunyuan-dense". Norms of query and key heads act after rotation; the base holds the factor of its longer context.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Pairing, QkNorm};

pub const FAMILY: Family = Family::new("hunyuan-dense", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    (attention.qk_norm, attention.norm_after_rope) = (QkNorm::Head, true);
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    header.decoder(header.rms_norm()?, attention, rope, header.dense()?)
}
