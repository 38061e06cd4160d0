//! What encoding has dropped: the vocabularies of a few models lack some bytes.

use std::sync::atomic::{AtomicU16, Ordering};

const NOTHING: u16 = u16::MAX;
const REPORTED: u16 = u16::MAX - 1;

/// The first byte that was dropped, until it is reported.
#[derive(Debug)]
pub struct Dropped(AtomicU16);

impl Default for Dropped {
    fn default() -> Self {
        Self(AtomicU16::new(NOTHING))
    }
}

impl Dropped {
    pub fn record(&self, byte: u8) {
        // Whichever is first stays; a failed exchange is one that was recorded or reported before.
        let _ = self.0.compare_exchange(NOTHING, u16::from(byte), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn take(&self) -> Option<u8> {
        let byte = u8::try_from(self.0.load(Ordering::Relaxed)).ok()?;
        self.0.compare_exchange(u16::from(byte), REPORTED, Ordering::Relaxed, Ordering::Relaxed).ok().map(|_| byte)
    }
}
