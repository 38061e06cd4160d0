//! Which experts a token goes to, and with which weights.
use crate::config::{ExpertGroups, ExpertsConfig, Gating};
use fastllm_kernels::elementwise::{sigmoid, softmax};
use fastllm_simd::Cpu;

/// Chooses experts; keeps its memory from token to token.
#[derive(Debug, Default)]
pub struct Router {
    /// Scores with the bias for the choice.
    choice: Vec<f32>,
    groups: Vec<(f32, usize)>,
    order: Vec<usize>,
}

impl Router {
    /// Makes scores of the router's logits, in place, and returns the chosen experts with their weights, the best first.
    pub fn choose<'a>(
        &'a mut self,
        cpu: Cpu,
        config: &'a ExpertsConfig,
        bias: Option<&[f32]>,
        scores: &'a mut [f32],
    ) -> impl Iterator<Item = (usize, f32)> {
        match config.gating {
            Gating::Softmax => softmax(cpu, scores),
            Gating::Sigmoid => sigmoid(cpu, scores),
            Gating::SoftmaxOfChosen => {}
        }
        self.choice.clear();
        self.choice.extend_from_slice(scores);
        for (choice, bias) in self.choice.iter_mut().zip(bias.unwrap_or_default()) {
            *choice += bias;
        }
        self.order.clear();
        match config.groups {
            None => self.order.extend(0..config.count),
            Some(groups) => self.best_groups(groups, config.count / groups.count),
        }
        let choice = &self.choice;
        // Of equals the first.
        self.order.sort_unstable_by(|&a, &b| choice[b].total_cmp(&choice[a]).then(a.cmp(&b)));
        self.order.truncate(config.used);
        let mut factor = config.scale;
        if config.gating == Gating::SoftmaxOfChosen {
            let mut chosen: Vec<f32> = self.order.iter().map(|&e| scores[e]).collect();
            softmax(cpu, &mut chosen);
            self.order.iter().zip(chosen).for_each(|(&e, p)| scores[e] = p);
        } else if config.normalise {
            factor /= self.order.iter().map(|&e| scores[e]).sum::<f32>();
        }
        self.order.iter().map(move |&e| (e, scores[e] * factor))
    }

    /// The experts of the best groups, of `size` each.
    fn best_groups(&mut self, groups: ExpertGroups, size: usize) {
        self.groups.clear();
        for (i, group) in self.choice.chunks_exact(size).enumerate() {
            self.order.clear();
            self.order.extend(0..size);
            self.order.sort_unstable_by(|&a, &b| group[b].total_cmp(&group[a]));
            self.groups.push((self.order.iter().take(groups.best).map(|&e| group[e]).sum(), i));
        }
        self.groups.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.order.clear();
        for &(_, i) in self.groups.iter().take(groups.used) {
            self.order.extend(i * size..(i + 1) * size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(gating: Gating) -> ExpertsConfig {
        ExpertsConfig { count: 8, used: 2, width: 1, gating, normalise: false, scale: 1.0, choice_bias: false, groups: None, shared: None }
    }

    fn choose(config: &ExpertsConfig, bias: Option<&[f32]>, logits: [f32; 8]) -> Vec<(usize, f32)> {
        Router::default().choose(Cpu::scalar(), config, bias, &mut logits.clone()).collect()
    }

    const LOGITS: [f32; 8] = [1.0, -2.0, 0.5, 3.0, 0.0, 2.0, 2.0, -1.0];

    #[test]
    fn the_best_are_chosen_and_of_equals_the_first() {
        let all: f32 = LOGITS.iter().map(|x| x.exp()).sum();
        let chosen = choose(&config(Gating::Softmax), None, LOGITS);
        assert_eq!([chosen[0].0, chosen[1].0], [3, 5]);
        assert!((chosen[0].1 - 3f32.exp() / all).abs() < 1e-6 && (chosen[1].1 - 2f32.exp() / all).abs() < 1e-6);
    }

    #[test]
    fn normalised_weights_sum_to_the_scale() {
        for gating in [Gating::Softmax, Gating::Sigmoid] {
            let chosen = choose(&ExpertsConfig { normalise: true, scale: 2.5, ..config(gating) }, None, LOGITS);
            assert!((chosen[0].1 + chosen[1].1 - 2.5).abs() < 1e-6, "{chosen:?}");
        }
        let chosen = choose(&config(Gating::SoftmaxOfChosen), None, LOGITS);
        assert!((chosen[0].1 - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6, "{chosen:?}");
    }

    #[test]
    fn a_bias_changes_the_choice_but_not_the_weights() {
        let bias = [0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let chosen = choose(&config(Gating::Sigmoid), Some(&bias), LOGITS);
        assert_eq!(chosen[0].0, 1);
        assert!((chosen[0].1 - 1.0 / (1.0 + 2f32.exp())).abs() < 1e-6);
    }

    #[test]
    fn groups_are_ranked_by_their_best_experts() {
        // Groups: (1, -2) (0.5, 3) (0, 2) (2, -1).
        let groups = |used, best| Some(ExpertGroups { count: 4, used, best });
        let one = choose(&ExpertsConfig { groups: groups(1, 1), ..config(Gating::Softmax) }, None, LOGITS);
        assert_eq!([one[0].0, one[1].0], [3, 2]);
        let two =
            choose(&ExpertsConfig { groups: groups(2, 2), ..config(Gating::Softmax) }, None, [1.0, 1.0, 1.2, -5.0, 1.1, 0.95, -5.0, 2.0]);
        // By their best alone the groups 3 and 1 would win, by two the groups 3 and 2 or 0.
        assert_eq!([two[0].0, two[1].0], [7, 4]);
    }
}
