//! ERNIE 4.5, dense: "ernie4_5". Llama whose checkpoint rotates neighbouring channels already.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Pairing};

pub const FAMILY: Family = Family::new("ernie4_5", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    header.decoder(header.rms_norm()?, attention, rope, header.dense()?)
}
