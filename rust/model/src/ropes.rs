//! Rotary frequencies of a model, and the angles of a batch.
use crate::ModelError;
use crate::config::{Config, Pairing, RopeConfig, RopeScaling};
use fastllm_kernels::rope;
use fastllm_simd::Cpu;

/// Rotary frequencies of the kinds that a model has.
#[derive(Debug)]
pub struct RopeTables(Vec<(Pairing, rope::RopeTable)>);

impl RopeTables {
    pub fn new(config: &Config, divisors: Option<&[f32]>) -> Result<RopeTables, ModelError> {
        let one = |r: &RopeConfig| Ok::<_, ModelError>((r.pairing, table(r, divisors)?));
        Ok(RopeTables(config.ropes.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// The angles of some positions.
    pub fn angles(&self, positions: &[usize]) -> RopeAngles {
        let of = |table: &rope::RopeTable| positions.iter().map(|&p| table.angles(p)).collect();
        let kinds = self.0.iter().map(|(pairing, table)| (*pairing, of(table))).collect();
        RopeAngles { kinds, positions: positions.to_vec() }
    }
}

fn table(r: &RopeConfig, divisors: Option<&[f32]>) -> Result<rope::RopeTable, ModelError> {
    let mut frequencies = rope::frequencies(f64::from(r.base), r.dim);
    match r.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear(factor) => rope::scale_linear(&mut frequencies, f64::from(factor)),
        RopeScaling::Divisors(name) => {
            let divisors = divisors.unwrap_or_default();
            if divisors.len() != frequencies.len() || divisors.iter().any(|d| !d.is_finite() || *d <= 0.0) {
                return Err(ModelError::Invalid(format!("{name} holds numbers that are not above 0")));
            }
            rope::divide(&mut frequencies, divisors);
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate } => {
            let yarn = rope::Yarn {
                factor: f64::from(factor),
                original_context: original_context as f64,
                beta_fast: f64::from(beta_fast),
                beta_slow: f64::from(beta_slow),
                truncate,
            };
            yarn.apply(&mut frequencies, f64::from(r.base));
        }
    }
    Ok(rope::RopeTable::new(frequencies, r.magnitude))
}

/// Cosines and sines of the rows of a batch, for every kind of rotary embedding.
pub struct RopeAngles {
    kinds: Vec<(Pairing, Vec<rope::Angles>)>,
    positions: Vec<usize>,
}

impl RopeAngles {
    /// The position of the batch's row `token`.
    pub fn position(&self, token: usize) -> usize {
        self.positions[token]
    }

    /// Rotates heads of `dim` channels of the batch's row `token`.
    pub fn rotate(&self, cpu: Cpu, kind: usize, token: usize, heads: &mut [f32], dim: usize) {
        let (pairing, angles) = &self.kinds[kind];
        rope::rope(cpu, heads, dim, &angles[token], *pairing);
    }
}
