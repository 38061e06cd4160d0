//! What a forward pass over some rows takes on this machine, as measured, and how many guessed rows are worth it.

use std::time::Duration;

use super::MAX_DRAFT;

/// Rows of a pass beyond which nothing is guessed.
pub(crate) const MAX_ROWS: usize = 31;
/// What guesses must gain at least: less is lost in the noise of the measurements.
const LEAST_GAIN: f64 = 1.03;
/// Weight of the latest measurement.
const LATEST: f64 = 0.2;
/// What a further row costs, as a share of the first, until it was measured: little, so that it is tried.
const FIRST_GUESS: f64 = 0.05;

/// Seconds that something takes, with the latest measurement. A machine that was busy for a moment is no slow machine.
pub(super) fn smoothed(known: Option<f64>, time: Duration) -> f64 {
    let time = time.as_secs_f64();
    known.map_or(time, |known| known + LATEST * (time.min(2.0 * known) - known))
}

/// Seconds of a pass by its number of rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct CostModel {
    /// By number of rows; none for 0.
    seconds: [Option<f64>; 32],
}

impl CostModel {
    /// A pass over `rows` rows, all of whose logits were wanted, took `time`.
    pub(crate) fn measured(&mut self, rows: usize, time: Duration) {
        if let Some(known) = self.seconds.get_mut(rows) {
            *known = Some(smoothed(*known, time));
        }
    }

    /// Seconds that a pass over `rows` rows takes, if any pass was measured: between the nearest measurements.
    fn estimate(&self, rows: usize) -> Option<f64> {
        let known = |rows: usize| self.seconds.get(rows).copied().flatten().map(|seconds| (rows as f64, seconds));
        // More rows never take less time: where they seem to, it is noise.
        let least = (1..=rows.min(MAX_ROWS)).filter_map(known).map(|(_, seconds)| seconds).fold(0.0, f64::max);
        let below = (1..=rows.min(MAX_ROWS)).rev().find_map(known);
        let above = (rows + 1..=MAX_ROWS).find_map(known);
        let rows = rows as f64;
        let between = match (below, above) {
            (Some((n, t)), _) if n == rows => t,
            (Some((n, t)), Some((m, u))) => t + (u - t).max(0.0) * (rows - n) / (m - n),
            (Some((n, t)), None) => {
                let before = (1..n as usize).rev().find_map(known);
                let slope = before.map_or(FIRST_GUESS * t, |(m, u)| (t - u).max(0.0) / (n - m));
                t + slope * (rows - n)
            }
            (None, Some((m, u))) => u * (1.0 - FIRST_GUESS * (m - rows)).max(0.5),
            (None, None) => return None,
        };
        Some(between.max(least))
    }

    /// How many tokens a draft model should guess for each of `texts` texts, at `seconds_each` for a token of all of them, beside `rows`
    /// rows: as many as give the most tokens a second, given the chance that the next one comes true.
    pub(crate) fn depth(&self, rows: usize, texts: usize, chance: f64, seconds_each: f64) -> usize {
        let Some(alone) = self.estimate(rows) else { return 0 };
        let (mut best, mut depth, mut tokens, mut all) = (LEAST_GAIN * rows as f64 / alone, 0, rows as f64, 1.0);
        for n in 1..=MAX_DRAFT.min(MAX_ROWS.saturating_sub(rows) / texts.max(1)) {
            all *= chance;
            tokens += all * texts as f64;
            let Some(seconds) = self.estimate(rows + n * texts) else { break };
            let rate = tokens / (seconds + n as f64 * seconds_each);
            if rate > best {
                (best, depth) = (rate, n);
            }
        }
        depth
    }

    /// How many of some guesses are worth a row each beside `rows` rows that are computed in any case, given the chance that each comes
    /// true, the likeliest first: as many as give the most tokens a second.
    pub(crate) fn worth(&self, rows: usize, chances: impl Iterator<Item = f64>) -> usize {
        let Some(alone) = self.estimate(rows) else { return 0 };
        let (mut best, mut count, mut tokens) = (LEAST_GAIN * rows as f64 / alone, 0, rows as f64);
        for (i, chance) in chances.take(MAX_ROWS.saturating_sub(rows)).enumerate() {
            tokens += chance;
            let Some(seconds) = self.estimate(rows + i + 1) else { break };
            if tokens / seconds > best {
                (best, count) = (tokens / seconds, i + 1);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(times: &[(usize, u64)]) -> CostModel {
        let mut model = CostModel::default();
        for &(rows, ms) in times {
            model.measured(rows, Duration::from_millis(ms));
        }
        model
    }

    #[test]
    fn nothing_is_guessed_before_anything_is_known() {
        assert_eq!(CostModel::default().worth(1, [1.0; 8].into_iter()), 0);
    }

    #[test]
    fn rows_that_cost_nothing_are_taken_and_others_only_if_likely() {
        let cheap = model(&[(1, 100), (8, 102), (9, 200)]);
        assert_eq!(cheap.worth(1, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2].into_iter()), 7);
        let dear = model(&[(1, 100), (2, 200), (3, 300)]);
        assert_eq!(dear.worth(1, [0.99, 0.99].into_iter()), 0);
        assert_eq!(dear.worth(1, [0.1].into_iter()), 0);
    }

    #[test]
    fn estimates_lie_between_measurements() {
        let model = model(&[(1, 100), (5, 140)]);
        let near = |rows: usize, seconds: f64| assert!((model.estimate(rows).unwrap() - seconds).abs() < 1e-9, "{rows}");
        near(3, 0.12);
        near(5, 0.14);
        near(7, 0.16);
    }

    #[test]
    fn one_slow_pass_changes_little() {
        let mut model = model(&[(1, 100)]);
        model.measured(1, Duration::from_secs(10));
        assert!(model.estimate(1).unwrap() < 0.13);
        for _ in 0..100 {
            model.measured(1, Duration::from_millis(300));
        }
        assert!(model.estimate(1).unwrap() > 0.29);
    }
}
