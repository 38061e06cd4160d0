//! A sequence does not notice what else is in a batch, nor a pass that failed: the same bits.
mod variants;
use fastllm_model::batch::{Row, SequenceId};
use fastllm_model::{Context, ModelError};
use std::sync::atomic::AtomicBool;
use variants::{load, models};

fn rows(sequence: SequenceId, from: u32, count: u32, seed: u32) -> Vec<Row> {
    (from..from + count).map(|position| Row { sequence, position, token: (position * seed + 11) % 512, logits: true }).collect()
}

fn run(context: &mut Context, rows: &[Row]) -> Result<Vec<u32>, ModelError> {
    Ok(context.forward(rows, &AtomicBool::new(false))?.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn sequences_in_one_batch_are_independent() {
    for (name, parts) in models() {
        let mut context = load(&parts.open()).unwrap();
        let (a, b) = (context.open(), context.open());
        let mut alone = Vec::new();
        for (sequence, seed) in [(a, 5), (b, 7)] {
            let parts = [rows(sequence, 0, 19, seed), rows(sequence, 19, 1, seed), rows(sequence, 20, 3, seed)];
            alone.push(parts.map(|part| run(&mut context, &part).unwrap()));
            context.close(sequence);
        }
        let (a, b) = (context.open(), context.open());
        for (i, (from, count)) in [(0, 19), (19, 1), (20, 3)].into_iter().enumerate() {
            let both = run(&mut context, &[rows(b, from, count, 7), rows(a, from, count, 5)].concat()).unwrap();
            let (of_b, of_a) = both.split_at(both.len() / 2);
            assert!(of_a == alone[0][i] && of_b == alone[1][i], "{name}, part {i}");
        }
    }
}

#[test]
fn a_cancelled_pass_changes_nothing() {
    for (name, parts) in models() {
        let mut context = load(&parts.open()).unwrap();
        let mut out = Vec::new();
        for cancelled in [false, true] {
            let sequence = context.open();
            run(&mut context, &rows(sequence, 0, 10, 3)).unwrap();
            if cancelled {
                let error = context.forward(&rows(sequence, 10, 20, 9), &AtomicBool::new(true)).map(<[f32]>::len);
                assert!(matches!(error, Err(ModelError::Cancelled)), "{name}");
            }
            out.push(run(&mut context, &rows(sequence, 10, 5, 3)).unwrap());
            context.close(sequence);
        }
        assert!(out[0] == out[1], "{name}");
    }
}
