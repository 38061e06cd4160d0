//! Every quantized type against values that another program decoded (`tests/data/quants/make.py`), bit for bit.
use fastllm_kernels::format::Quantized;
use fastllm_kernels::linear::{Linear, WeightType};
use fastllm_kernels::pool::Pool;
use std::convert::Infallible;
use std::path::Path;

/// Weights in a file.
const WEIGHTS: usize = 768;

#[test]
fn rows_are_those_of_the_specification() {
    let pool = Pool::new(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/quants");
    for &quantized in Quantized::ALL {
        let kind = WeightType::Quantized(quantized);
        let file = std::fs::read(folder.join(format!("{}.bin", kind.name()))).unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
        let (blocks, values) = file.split_at(file.len() - 4 * WEIGHTS);
        let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        // As many rows of a block, which need not fill their panels, and as one row of many blocks.
        for (rows, cols) in [(WEIGHTS / kind.block_cols(), kind.block_cols()), (1, WEIGHTS)] {
            let row_bytes = kind.file_row_bytes(cols).unwrap();
            assert_eq!(rows * row_bytes, blocks.len(), "{}", kind.name());
            let read = |row: usize, out: &mut [u8]| {
                out.copy_from_slice(&blocks[row * row_bytes..][..out.len()]);
                Ok::<(), Infallible>(())
            };
            let weights = Linear::pack(kind, (rows, cols), 1, &pool, read).unwrap_or_else(|_| panic!("packing cannot fail"));
            let mut row = vec![0.0; cols];
            for (i, expected) in values.chunks(cols).enumerate() {
                weights.row(i, &mut row);
                for (col, (a, b)) in row.iter().zip(expected).enumerate() {
                    // A zero may have another sign.
                    assert!(a.to_bits() == b.to_bits() || *a == 0.0 && *b == 0.0, "{} row {i} column {col}: {a:e}, not {b:e}", kind.name());
                }
            }
        }
    }
}
