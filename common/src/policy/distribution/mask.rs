//! Masks of legal actions: which alternatives of a categorical distribution may be chosen.
//!
//! A mask has a flag for every logit. Where it is 0 the logit becomes `-inf`: the alternative has probability 0, adds
//! nothing to the entropy and gets no gradient, and the others share its probability. The log-probability of an
//! action is then that of the policy which acted, so that importance weights and policy gradients stay correct (Huang &
//! Ontañón 2020, <https://arxiv.org/abs/2006.14171>).

use candle_core::{Result, Tensor};

/// Puts `-inf` in place of the logits of illegal alternatives: `params` and `masks` are `[N, P]`.
pub(super) fn apply(params: &mut [f32], masks: &[u8]) {
    for (logit, legal) in params.iter_mut().zip(masks) {
        *logit = if *legal == 0 { f32::NEG_INFINITY } else { *logit };
    }
}

/// The same in the graph of `params`, `[N, P]`.
pub(super) fn applied(params: &Tensor, masks: &[u8]) -> Result<Tensor> {
    let mut offsets = vec![0.0; masks.len()];
    apply(&mut offsets, masks);
    params + Tensor::from_vec(offsets, params.shape(), params.device())?
}

/// The row and choice of the first choice that has no legal alternative.
pub(super) fn first_without_alternative(alternatives: &[usize], masks: &[u8]) -> Option<(usize, usize)> {
    let mut rest = masks;
    let mut at = 0;
    while !rest.is_empty() {
        let (flags, after) = rest.split_at(alternatives[at % alternatives.len()]);
        // Without an early exit the pass vectorises.
        if flags.iter().fold(0, |any, flag| any | flag) == 0 {
            return Some((at / alternatives.len(), at % alternatives.len()));
        }
        rest = after;
        at += 1;
    }
    None
}
