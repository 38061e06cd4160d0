//! States of sequences that go to files and come from files, a little in every turn: other requests go on meanwhile.

use std::time::{Duration, Instant};

use super::generation::End;
use super::step::Scheduler;
use super::task::{Transfer, Work};
use crate::decoder::Decoder;
use crate::error::Failure;
use crate::event::FinishReason;

/// Most time of a turn while others compute.
const SLICE: Duration = Duration::from_millis(4);
/// Most time of a turn while nobody does: cancellation is seen between turns.
const ALONE: Duration = Duration::from_millis(50);

impl<D: Decoder> Scheduler<D> {
    /// Moves pieces of the states that are to be saved or restored.
    pub(super) fn transfer(&mut self) {
        let busy = self.running.iter().any(|running| running.remaining() > 0 && running.begun);
        let end = Instant::now() + if busy { SLICE } else { ALONE };
        for index in 0..self.running.len() {
            while self.running[index].outcome.is_none() && Instant::now() < end {
                match self.next_piece(index) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(failure) => self.running[index].outcome = Some(Err(failure)),
                }
            }
        }
    }

    /// Moves one piece of a request; whether there may be more to do for it.
    fn next_piece(&mut self, index: usize) -> Result<bool, Failure> {
        let Self { decoder, running, .. } = self;
        let running = &mut running[index];
        let (sequence, remaining) = (running.sequence, running.remaining());
        let Work::Transfer(transfer) = &mut running.task.work else { return Ok(false) };
        let Transfer { save, restore, piece } = &mut **transfer;
        if let Some(reader) = restore {
            let Some(bytes) = reader.piece()? else { return Err(crate::saved::StateError::Damaged("it ends too early").into()) };
            let complete = decoder.restore(sequence, *piece, &bytes)?;
            *piece += 1;
            if complete {
                if reader.piece()?.is_some() {
                    return Err(crate::saved::StateError::Damaged("there is more than expected").into());
                }
                *restore = None;
                running.restored(decoder.forkable(sequence, usize::MAX))?;
            }
            while self.decoder.cache_bytes() > self.limits.cache_bytes && self.forget_oldest() {}
            return Ok(true);
        }
        if remaining > 0 || !running.begun {
            return Ok(false);
        }
        if let Some(writer) = save {
            if let Some(bytes) = decoder.piece(sequence, *piece)? {
                writer.piece(&bytes)?;
                *piece += 1;
                return Ok(true);
            }
            writer.finish()?;
        }
        running.outcome = Some(Ok(End::early(FinishReason::Stop)));
        Ok(false)
    }
}
