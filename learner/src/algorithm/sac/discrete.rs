//! SAC's arithmetic for discrete actions, one choice or several (Christodoulou 2019, <https://arxiv.org/abs/1910.07207>).
//!
//! The critics estimate every joint action at once, so that expectations over the policy are sums and nothing is drawn. The
//! choices are independent under the policy: `p(a) = prod(p_c(a_c))`, `p_c = softmax(l_c)`. Illegal alternatives have the
//! logit `-inf` and take no part.
//!
//! ```text
//! V(x)  = sum(p (Q - alpha ln p))
//! loss  = mean(sum(p f)),   f = alpha ln p - Q
//! d loss / d l_cj = (sum over a with a_c = j of p f  -  p_c(j) sum(p f)) / N
//! ```

/// The joint actions of some choices, numbered with the last choice fastest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint {
    /// Alternatives of each choice.
    nvec: Vec<usize>,
}

/// What a policy makes of the critics' estimates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Soft {
    /// `[N]`: expected estimate plus `alpha` times the entropy.
    pub values: Vec<f32>,
    /// `[N]`: entropies in nats.
    pub entropies: Vec<f32>,
    /// `[N, M]`: gradient of the policy's loss with respect to the logits.
    pub d_logits: Vec<f32>,
}

impl Joint {
    /// Joint actions of choices with so many alternatives each.
    pub fn new(nvec: &[u32]) -> Self {
        Self { nvec: nvec.iter().map(|&n| n as usize).collect() }
    }

    /// How many joint actions there are; `usize::MAX` if they cannot be counted.
    pub fn count(&self) -> usize {
        self.nvec.iter().fold(1, |count: usize, &n| count.saturating_mul(n))
    }

    /// M: alternatives of all choices together, a logit each.
    pub fn logits(&self) -> usize {
        self.nvec.iter().sum()
    }

    /// The number of the joint action of which `choices` are the parts.
    pub fn number(&self, choices: &[i32]) -> usize {
        self.nvec.iter().zip(choices).fold(0, |number, (n, &choice)| number * n + choice as usize)
    }

    /// Greatest entropy in nats of a policy that may choose the alternatives flagged in `mask`, `[M]`.
    pub fn greatest_entropy(&self, mask: &[u8]) -> f32 {
        let mut rest = mask;
        let of_choice = |&n: &usize| {
            let (flags, after) = rest.split_at(n);
            rest = after;
            (flags.iter().filter(|flag| **flag != 0).count().max(1) as f32).ln()
        };
        self.nvec.iter().map(of_choice).sum()
    }

    /// `logits` are `[N, M]`, `q` is `[N, joint actions]`.
    pub fn soft(&self, logits: &[f32], q: &[f32], alpha: f32) -> Soft {
        let (width, joint) = (self.logits(), self.count());
        let weight = width as f32 / logits.len() as f32;
        let mut soft = Soft { d_logits: vec![0.0; logits.len()], ..Soft::default() };
        // Of a row: logarithms of the choices' probabilities; the joint action; sums of p f where a choice is an alternative.
        let (mut ln_p, mut action) = (vec![0.0; width], vec![0; self.nvec.len()]);
        let rows = logits.chunks_exact(width).zip(q.chunks_exact(joint));
        for ((logits, q), parts) in rows.zip(soft.d_logits.chunks_exact_mut(width)) {
            self.log_softmax(logits, &mut ln_p);
            action.fill(0);
            let (mut loss, mut entropy) = (0.0, 0.0);
            for &q in q {
                let ln_joint: f32 = self.chosen(&action).map(|at| ln_p[at]).sum();
                // An illegal one has probability 0.
                if ln_joint > f32::NEG_INFINITY {
                    let p = ln_joint.exp();
                    let share = p * (alpha * ln_joint - q);
                    loss += share;
                    entropy -= p * ln_joint;
                    self.chosen(&action).for_each(|at| parts[at] += share);
                }
                self.advance(&mut action);
            }
            for (part, ln_p) in parts.iter_mut().zip(&ln_p) {
                *part = weight * (*part - ln_p.exp() * loss);
            }
            soft.values.push(-loss);
            soft.entropies.push(entropy);
        }
        soft
    }

    /// Where the alternatives of a joint action stand among the logits.
    fn chosen<'a>(&'a self, action: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
        self.nvec.iter().zip(action).scan(0, |start, (n, choice)| {
            let at = *start + choice;
            *start += n;
            Some(at)
        })
    }

    /// Makes `action` the next one.
    fn advance(&self, action: &mut [usize]) {
        for (choice, &n) in action.iter_mut().zip(&self.nvec).rev() {
            *choice += 1;
            if *choice < n {
                return;
            }
            *choice = 0;
        }
    }

    /// Logarithms of the probabilities of each choice's alternatives, `[M]`.
    fn log_softmax(&self, logits: &[f32], ln_p: &mut [f32]) {
        let mut start = 0;
        for &n in &self.nvec {
            let (logits, ln_p) = (&logits[start..start + n], &mut ln_p[start..start + n]);
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let ln_sum = logits.iter().map(|l| (l - max).exp()).sum::<f32>().ln();
            ln_p.iter_mut().zip(logits).for_each(|(ln_p, l)| *ln_p = l - max - ln_sum);
            start += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joint_actions_are_numbered_in_the_order_in_which_they_are_gone_through() {
        let joint = Joint::new(&[2, 3, 2]);
        assert_eq!((joint.count(), joint.logits()), (12, 7));
        let mut action = vec![0; 3];
        for number in 0..12 {
            let choices: Vec<i32> = action.iter().map(|c| *c as i32).collect();
            assert_eq!(joint.number(&choices), number);
            joint.advance(&mut action);
        }
        assert_eq!(action, [0; 3]);
    }

    #[test]
    fn values_are_expectations_and_the_gradient_is_the_slope_of_minus_their_mean() {
        let alpha = 0.4;
        for nvec in [vec![3], vec![2, 3]] {
            let joint = Joint::new(&nvec);
            let width = joint.logits();
            let mut logits: Vec<f32> = (0..2 * width).map(|i| (i as f32 * 1.7).sin()).collect();
            let q: Vec<f32> = (0..2 * joint.count()).map(|i| (i as f32 * 0.9).cos() * 2.0).collect();
            // An illegal alternative of the last choice in the second row.
            logits[2 * width - 1] = f32::NEG_INFINITY;
            let result = joint.soft(&logits, &q, alpha);
            for row in 0..2 {
                let mut p = vec![1.0f64; joint.count()];
                let mut start = row * width;
                let mut below = joint.count();
                for &n in &nvec {
                    let n = n as usize;
                    below /= n;
                    let exp: Vec<f64> =
                        logits[start..start + n].iter().map(|l| f64::from(*l).exp()).collect();
                    let sum = exp.iter().sum::<f64>();
                    p.iter_mut().enumerate().for_each(|(a, p)| *p *= exp[a / below % n] / sum);
                    start += n;
                }
                let legal = p.iter().filter(|p| **p > 0.0);
                let entropy = -legal.map(|p| p * p.ln()).sum::<f64>();
                let of_row = &q[row * joint.count()..][..joint.count()];
                let mean_q = p.iter().zip(of_row).map(|(p, q)| p * f64::from(*q)).sum::<f64>();
                assert!((f64::from(result.entropies[row]) - entropy).abs() < 1e-6);
                let value = mean_q + f64::from(alpha) * entropy;
                assert!((f64::from(result.values[row]) - value).abs() < 1e-6);
            }
            for at in 0..2 * width {
                let loss = |offset: f32| {
                    let mut logits = logits.clone();
                    logits[at] += offset;
                    -joint.soft(&logits, &q, alpha).values.iter().map(|v| f64::from(*v)).sum::<f64>() / 2.0
                };
                let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
                assert!((slope - f64::from(result.d_logits[at])).abs() < 1e-3, "{nvec:?}, {at}");
            }
            assert_eq!(result.d_logits[2 * width - 1], 0.0);
        }
    }

    #[test]
    fn the_greatest_entropy_is_that_of_the_legal_alternatives() {
        let joint = Joint::new(&[2, 4]);
        let close =
            |mask: &[u8], expected: f32| assert!((joint.greatest_entropy(mask) - expected).abs() < 1e-6);
        close(&[1; 6], 8f32.ln());
        close(&[1, 0, 1, 1, 0, 1], 3f32.ln());
    }
}
