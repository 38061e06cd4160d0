//! The clock of one request.

use std::time::{Duration, Instant};

/// Speed of one request. Times are wall time in seconds and include what other requests took in the same steps; a value that was
/// not reached is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// From submission to the first token: waiting and prompt.
    pub time_to_first_token: f64,
    /// From the moment the request left the queue to the first token (or the end, when none came).
    pub prompt_seconds: f64,
    /// From the first token to the end.
    pub decode_seconds: f64,
    /// Prompt tokens computed, per second of `prompt_seconds`.
    pub prompt_tokens_per_second: f64,
    /// Tokens after the first (with the one that ended the text), per second of `decode_seconds`.
    pub decode_tokens_per_second: f64,
    /// 10^9 bytes of weights and KV cache read per second, in the forward passes that made the tokens after the first.
    pub gigabytes_per_second: f64,
}

/// Collects the moments and sums that [`Timings`] reports.
#[derive(Clone, Debug)]
pub(crate) struct Stopwatch {
    submitted: Instant,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    decode_steps: u64,
    decode_bytes: u64,
    decode_forward: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            submitted: Instant::now(),
            admitted: None,
            first_token: None,
            decode_steps: 0,
            decode_bytes: 0,
            decode_forward: Duration::ZERO,
        }
    }

    pub(crate) fn admit(&mut self) {
        self.admitted = Some(Instant::now());
    }

    /// A token was chosen from a forward pass that took `forward` and read `bytes`.
    pub(crate) fn token(&mut self, forward: Duration, bytes: u64) {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
        } else {
            self.decode_steps += 1;
            self.decode_bytes += bytes;
            self.decode_forward += forward;
        }
    }

    /// `count` more tokens are known after the same forward pass: guesses that came true, or tokens that had to follow.
    pub(crate) fn more(&mut self, count: usize) {
        self.decode_steps += count as u64;
    }

    /// The report at the end; `computed` prompt tokens went through the model.
    pub(crate) fn finish(&self, computed: usize) -> Timings {
        let now = Instant::now();
        let between = |from: Option<Instant>, to: Instant| from.map_or(0.0, |from| to.duration_since(from).as_secs_f64());
        let prompt_seconds = between(self.admitted, self.first_token.unwrap_or(now));
        let decode_seconds = between(self.first_token, now);
        Timings {
            time_to_first_token: self.first_token.map_or(0.0, |first| between(Some(self.submitted), first)),
            prompt_seconds,
            decode_seconds,
            prompt_tokens_per_second: rate(computed as f64, prompt_seconds),
            decode_tokens_per_second: rate(self.decode_steps as f64, decode_seconds),
            gigabytes_per_second: rate(self.decode_bytes as f64 / 1e9, self.decode_forward.as_secs_f64()),
        }
    }
}

fn rate(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_tokens_reports_zeros() {
        assert_eq!(Stopwatch::start().finish(0), Timings::default());
    }

    #[test]
    fn the_first_token_counts_as_prompt() {
        let mut watch = Stopwatch::start();
        watch.admit();
        std::thread::sleep(Duration::from_millis(2));
        watch.token(Duration::from_secs(1), 1_000_000_000);
        watch.token(Duration::from_secs(2), 3_000_000_000);
        std::thread::sleep(Duration::from_millis(2));
        let timings = watch.finish(10);
        assert!(timings.time_to_first_token >= 0.002 && timings.prompt_seconds >= 0.002 && timings.decode_seconds >= 0.002);
        assert_eq!(timings.prompt_tokens_per_second, 10.0 / timings.prompt_seconds);
        assert_eq!(timings.decode_tokens_per_second, 1.0 / timings.decode_seconds);
        assert_eq!(timings.gigabytes_per_second, 1.5);
    }
}
