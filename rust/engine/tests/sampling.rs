//! Each filter against an oracle of a few lines, and the drawn tokens against the distribution that they should follow.

use std::collections::BTreeMap;

use fastllm_engine::sampling::{SampleError, Sampler, SamplingParams, Scratch};
use proptest::prelude::*;

fn sample(params: &SamplingParams, prompt: &[u32], logits: &[f32]) -> Result<u32, SampleError> {
    Sampler::new(params.clone(), prompt).unwrap().sample(logits, &mut Scratch::default()).map(|choice| choice.id)
}

/// How often each token comes in `draws` draws, with the seeds 0, 1, 2, ...
fn frequencies(params: &SamplingParams, logits: &[f32], draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for seed in 0..draws {
        counts[sample(&SamplingParams { seed: Some(seed), ..params.clone() }, &[], logits).unwrap() as usize] += 1.0;
    }
    counts
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    logits.iter().map(|l| (l - max).exp() / total).collect()
}

/// Sorted by `key`, largest first, of equal ones the lower id: the fewest that reach `p`.
fn nucleus(probabilities: &[f64], key: impl Fn(usize) -> f64, p: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    let mut sum = 0.0;
    let reached = order.iter().position(|&id| {
        sum += probabilities[id];
        sum >= p
    });
    order.truncate(reached.map_or(order.len(), |last| last + 1));
    order
}

fn keep(probabilities: &mut [f64], kept: &[usize]) {
    let total: f64 = kept.iter().map(|&id| probabilities[id]).sum();
    for id in 0..probabilities.len() {
        probabilities[id] = if kept.contains(&id) { probabilities[id] / total } else { 0.0 };
    }
}

/// The distribution that `params` define, computed the slow way in double precision.
fn oracle(params: &SamplingParams, logits: &[f32]) -> Vec<f64> {
    let bias = |id: usize| f64::from(*params.logit_bias.get(&(id as u32)).unwrap_or(&0.0));
    let logits: Vec<f64> = logits.iter().enumerate().map(|(id, l)| (f64::from(*l) + bias(id)) / f64::from(params.temperature)).collect();
    let mut p = softmax(&logits);
    if params.top_k > 0 {
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(params.top_k as usize);
        keep(&mut p, &order);
    }
    if params.top_p < 1.0 {
        let kept = nucleus(&p, |id| p[id], f64::from(params.top_p));
        keep(&mut p, &kept);
    }
    if params.min_p > 0.0 {
        let max = p.iter().copied().fold(0.0, f64::max);
        let kept: Vec<usize> = (0..p.len()).filter(|&id| p[id] >= f64::from(params.min_p) * max).collect();
        keep(&mut p, &kept);
    }
    if params.typical_p < 1.0 {
        let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let kept = nucleus(&p, |id| -(-p[id].ln() - entropy).abs(), f64::from(params.typical_p));
        keep(&mut p, &kept);
    }
    if params.xtc_probability > 0.0 {
        let mut top: Vec<usize> = (0..p.len()).filter(|&id| p[id] >= f64::from(params.xtc_threshold)).collect();
        top.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        top.pop();
        let kept: Vec<usize> = (0..p.len()).filter(|id| !top.contains(id)).collect();
        let mut rest = p.clone();
        keep(&mut rest, &kept);
        let share = f64::from(params.xtc_probability);
        p = p.iter().zip(&rest).map(|(p, rest)| (1.0 - share) * p + share * rest).collect();
    }
    p
}

/// How far `counts` are from `expected`: chi-square over the tokens that should come at least five times, as a share of its mean plus
/// six standard deviations. Above one: another distribution.
fn chi_square(counts: &[f64], expected: &[f64]) -> f64 {
    let draws: f64 = counts.iter().sum();
    let cells: Vec<(f64, f64)> = counts.iter().zip(expected).map(|(&n, p)| (n, p * draws)).filter(|cell| cell.1 >= 5.0).collect();
    let chi: f64 = cells.iter().map(|(n, mean)| (n - mean).powi(2) / mean).sum();
    chi / (cells.len() as f64 + 6.0 * f64::sqrt(2.0 * cells.len() as f64))
}

fn check(params: &SamplingParams, logits: &[f32]) {
    let (counts, expected) = (frequencies(params, logits, 20_000), oracle(params, logits));
    for (id, (&count, &p)) in counts.iter().zip(&expected).enumerate() {
        assert!(p > 0.0 || count == 0.0, "token {id} came {count} times with {params:?}");
    }
    assert!(chi_square(&counts, &expected) <= 1.0, "another distribution with {params:?}");
}

/// 100 logits without ties, of the shape that models give: a few likely tokens and a long tail.
fn logits() -> Vec<f32> {
    (0..100u32).map(|id| 6.0 - ((id * 37 % 100) as f32 * 1.7).sqrt() + 0.001 * id as f32).collect()
}

#[test]
fn draws_follow_the_distribution() {
    let base = SamplingParams::default;
    let cases = [
        base(),
        SamplingParams { temperature: 0.5, ..base() },
        SamplingParams { temperature: 3.0, ..base() },
        SamplingParams { top_k: 1, ..base() },
        SamplingParams { top_k: 7, ..base() },
        SamplingParams { top_k: 1000, ..base() },
        SamplingParams { top_p: 0.0, ..base() },
        SamplingParams { top_p: 0.5, ..base() },
        SamplingParams { top_p: 0.999, ..base() },
        SamplingParams { min_p: 0.2, ..base() },
        SamplingParams { min_p: 1.0, ..base() },
        SamplingParams { typical_p: 0.3, ..base() },
        SamplingParams { typical_p: 0.9, ..base() },
        SamplingParams { logit_bias: BTreeMap::from([(0, f32::NEG_INFINITY), (5, 3.0), (99, -1.5)]), ..base() },
        SamplingParams { xtc_probability: 1.0, xtc_threshold: 0.05, ..base() },
        SamplingParams { xtc_probability: 0.4, xtc_threshold: 0.02, top_k: 20, ..base() },
        SamplingParams { xtc_probability: 1.0, xtc_threshold: 0.9, ..base() },
        SamplingParams { xtc_probability: 1.0, xtc_threshold: 0.0, ..base() },
        SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, typical_p: 0.95, ..base() },
    ];
    for params in cases {
        check(&params, &logits());
    }
}

#[test]
fn a_neighbour_of_the_distribution_is_told_apart() {
    let counts = frequencies(&SamplingParams { temperature: 1.1, ..SamplingParams::default() }, &logits(), 20_000);
    let expected = oracle(&SamplingParams::default(), &logits());
    assert!(chi_square(&counts, &expected) > 1.0, "the check of distributions has no power");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    /// Whatever the options, only tokens that the oracle allows are drawn. Logits are multiples of 1/8, so that ties are common; a
    /// token at the border of a nucleus is allowed, because the oracle rounds differently.
    #[test]
    fn only_allowed_tokens_are_drawn(
        eighths in prop::collection::vec(-40i32..40, 1..80),
        temperature in 0.1f32..3.0,
        top_k in 0u32..50,
        top_p in 0.0f32..=1.0,
        min_p in 0.0f32..=1.0,
        seed in any::<u64>(),
    ) {
        let logits: Vec<f32> = eighths.iter().map(|&e| e as f32 / 8.0).collect();
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed: Some(seed), ..SamplingParams::default() };
        let id = sample(&params, &[], &logits).unwrap() as usize;
        let loose = SamplingParams { top_p: (top_p + 1e-5).min(1.0), min_p: min_p * (1.0 - 1e-5), ..params };
        prop_assert!(oracle(&loose, &logits)[id] > 0.0);
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_largest(eighths in prop::collection::vec(-4i32..4, 1..80)) {
        let logits: Vec<f32> = eighths.iter().map(|&e| e as f32 / 8.0).collect();
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let id = sample(&SamplingParams::greedy(), &[], &logits).unwrap();
        prop_assert_eq!(id as usize, logits.iter().position(|&l| l == max).unwrap());
    }
}

#[test]
fn penalties_follow_their_definitions() {
    let greedy = SamplingParams::greedy;
    // After (prompt, forced output): which of two logits is larger.
    let winner = |params: SamplingParams, prompt: &[u32], output: &[u32], logits: &[f32]| {
        let mut sampler = Sampler::new(params, prompt).unwrap();
        for &id in output {
            let forced: Vec<f32> = (0..logits.len()).map(|i| if i == id as usize { 0.0 } else { f32::NEG_INFINITY }).collect();
            sampler.sample(&forced, &mut Scratch::default()).unwrap();
        }
        sampler.sample(logits, &mut Scratch::default()).unwrap().id
    };
    let repetition = |r: f32| SamplingParams { repetition_penalty: r, ..greedy() };
    // Positive logits are divided, once: 3 / 1.5 = 2; negative ones multiplied: -1 * 1.5 = -1.5. Prompt and output both count.
    assert_eq!(winner(repetition(1.5), &[0, 0, 0], &[], &[3.0, 1.99]), 0);
    assert_eq!(winner(repetition(1.5), &[0, 0, 0], &[], &[3.0, 2.01]), 1);
    assert_eq!(winner(repetition(1.5), &[], &[0, 0], &[3.0, 1.99]), 0);
    assert_eq!(winner(repetition(1.5), &[], &[0, 0], &[3.0, 2.01]), 1);
    assert_eq!(winner(repetition(1.5), &[0], &[], &[-1.0, -1.49]), 1);
    assert_eq!(winner(repetition(1.5), &[0], &[], &[-1.0, -1.51]), 0);
    // Presence: once, output only. Frequency: times the count, output only.
    let presence = SamplingParams { presence_penalty: 0.5, ..greedy() };
    assert_eq!(winner(presence.clone(), &[0, 0], &[], &[3.0, 2.9]), 0);
    assert_eq!(winner(presence.clone(), &[], &[0, 0, 0], &[3.0, 2.49]), 0);
    assert_eq!(winner(presence, &[], &[0, 0, 0], &[3.0, 2.51]), 1);
    let frequency = SamplingParams { frequency_penalty: 0.5, ..greedy() };
    assert_eq!(winner(frequency.clone(), &[0, 0], &[], &[3.0, 2.9]), 0);
    assert_eq!(winner(frequency.clone(), &[], &[0, 0, 0], &[3.0, 1.49]), 0);
    assert_eq!(winner(frequency, &[], &[0, 0, 0], &[3.0, 1.51]), 1);
}

#[test]
fn dry_penalises_the_token_that_would_repeat() {
    let dry = |allowed| SamplingParams { dry_multiplier: 1.0, dry_base: 2.0, dry_allowed_length: allowed, ..SamplingParams::greedy() };
    // After 0 1 2 3 0 1 2, the token 3 would make a repetition of three grow: 1 * 2^(3 - 2) = 2.
    let prompt = [0, 1, 2, 3, 0, 1, 2];
    assert_eq!(sample(&dry(2), &prompt, &[0.0, 0.0, 0.0, 5.0, 2.99]), Ok(3));
    assert_eq!(sample(&dry(2), &prompt, &[0.0, 0.0, 0.0, 5.0, 3.01]), Ok(4));
    assert_eq!(sample(&dry(4), &prompt, &[0.0, 0.0, 0.0, 5.0, 4.99]), Ok(3));
    let broken = SamplingParams { dry_sequence_breakers: [1].into(), ..dry(2) };
    assert_eq!(sample(&broken, &prompt, &[0.0, 0.0, 0.0, 5.0, 4.99]), Ok(3));
}

#[test]
fn mirostat_holds_the_surprise_at_its_target() {
    let logits: Vec<f32> = (0..5000).map(|id| -1.2 * (id as f32 + 1.0).ln()).collect();
    let p = softmax(&logits.iter().map(|&l| f64::from(l)).collect::<Vec<_>>());
    let mean = |tau: f32| {
        let params = SamplingParams { mirostat: 2, mirostat_tau: tau, seed: Some(5), ..SamplingParams::default() };
        let (mut sampler, mut scratch) = (Sampler::new(params, &[]).unwrap(), Scratch::default());
        let ids: Vec<usize> = (0..3000).map(|_| sampler.sample(&logits, &mut scratch).unwrap().id as usize).collect();
        // The most surprising token that came bounds what was left; the surprise is measured among those.
        ids[1000..].iter().map(|&id| -p[id].log2()).sum::<f64>() / 2000.0
    };
    let (low, high) = (mean(2.0), mean(5.0));
    assert!((1.9..4.0).contains(&low) && (4.9..6.5).contains(&high) && high - low > 2.0, "{low} {high}");
}

#[test]
fn logits_that_allow_no_choice_are_errors() {
    for params in
        [SamplingParams::greedy(), SamplingParams::default(), SamplingParams { top_k: 2, top_p: 0.5, ..SamplingParams::default() }]
    {
        let sample = |logits: &[f32]| sample(&params, &[], logits);
        assert!(matches!(sample(&[0.0, f32::NAN, f32::NAN]), Err(SampleError::InvalidLogit { id: 1, value }) if value.is_nan()));
        assert_eq!(sample(&[0.0, 1.0, f32::INFINITY]), Err(SampleError::InvalidLogit { id: 2, value: f32::INFINITY }));
        assert_eq!(sample(&[f32::NEG_INFINITY; 3]), Err(SampleError::AllBanned));
        assert_eq!(sample(&[f32::NEG_INFINITY, -1e30, f32::NEG_INFINITY]), Ok(1));
        assert_eq!(sample(&[f32::MIN, f32::NEG_INFINITY, f32::MAX]), Ok(2));
        assert!(sample(&[0.0; 1000]).is_ok());
    }
}

#[test]
fn logprobs_are_those_of_the_model() {
    let logits = logits();
    let expected = softmax(&logits.iter().map(|&l| f64::from(l)).collect::<Vec<_>>());
    let params = SamplingParams {
        temperature: 0.3,
        top_k: 3,
        repetition_penalty: 2.0,
        logit_bias: BTreeMap::from([(50, 100.0)]),
        logprobs: Some(5),
        ..SamplingParams::default()
    };
    let choice = Sampler::new(params, &[0, 1]).unwrap().sample(&logits, &mut Scratch::default()).unwrap();
    let logprobs = choice.logprobs.unwrap();
    assert_eq!(choice.id, 50);
    assert!((f64::from(logprobs.logprob) - expected[50].ln()).abs() < 1e-6);
    let mut order: Vec<usize> = (0..100).collect();
    order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
    assert_eq!(logprobs.top.len(), 5);
    for (rank, &(id, logprob)) in logprobs.top.iter().enumerate() {
        assert_eq!(id as usize, order[rank]);
        assert!((f64::from(logprob) - expected[order[rank]].ln()).abs() < 1e-6);
    }
}

#[test]
fn a_seed_gives_the_same_tokens_and_another_seed_others() {
    let run = |seed| {
        let params = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
        let mut sampler = Sampler::new(params, &[]).unwrap();
        (0..50).map(|_| sampler.sample(&logits(), &mut Scratch::default()).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // The numbers are part of the interface: a text made with a seed can be made again. Computed apart from this code.
    assert_eq!(run(1)[..8], [73, 46, 0, 65, 0, 0, 0, 0]);
}
