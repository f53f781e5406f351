//! [`Critic`]: an estimate of the return of an action, `Q(x, a)`; SAC has two, and a slow copy of each.
//!
//! It looks at images with a trunk of its own, of the policy's kind. Fully connected layers of rectified linear units see
//! what the trunk gives (or the observation's numbers) and the action side by side.

use candle_core::Tensor;
use impresario_common::config::{PolicySection, SacConfig};
use impresario_common::kernels::Activation;
use impresario_common::policy::encoder::{EncoderSpec, Mlp, MlpSpec, Trunk, TrunkSpec};
use impresario_common::policy::layers::Linear;
use impresario_common::policy::parameters::{self, ParameterSpec};
use impresario_common::policy::{PolicyError, Weights};
use impresario_common::random::Stream;

/// A critic's architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct CriticSpec {
    trunk: TrunkSpec,
    hidden: MlpSpec,
    outputs: usize,
}

impl CriticSpec {
    /// Critics that look at what `encoder` does, and at `actions` numbers of an action, and give `outputs` estimates.
    pub fn new(
        encoder: &EncoderSpec,
        policy: &PolicySection,
        config: &SacConfig,
        actions: usize,
        outputs: usize,
    ) -> Self {
        let hidden = MlpSpec {
            inputs: encoder.trunk.outputs() + actions,
            widths: config.critic_hidden.clone(),
            activation: Activation::Relu,
            layer_norm: policy.layer_norm,
        };
        Self { trunk: encoder.trunk.clone(), hidden, outputs }
    }

    /// Name of the last layer of the critic called `name`.
    fn last(&self, name: &str) -> String {
        format!("{name}.{}", self.hidden.widths.len())
    }

    /// Weights that a critic called `name` may start from.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn initialise(&self, name: &str, random: &mut Stream) -> Result<Weights, PolicyError> {
        let mut all = self.trunk.parameters(name);
        all.extend(self.hidden.parameters(name));
        let shape = vec![self.outputs, self.hidden.outputs()];
        all.extend(ParameterSpec::layer(&self.last(name), shape, 1.0, 0.0));
        parameters::initialise(all, random)
    }
}

/// A critic with its weights in place.
#[derive(Debug, Clone)]
pub struct Critic {
    trunk: Trunk,
    hidden: Mlp,
    last: Linear,
}

impl Critic {
    /// The critic called `name` over `weights`, sharing their storage: with variables it records a graph.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &CriticSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        Ok(Self {
            trunk: Trunk::new(&spec.trunk, name, weights)?,
            hidden: Mlp::new(&spec.hidden, name, weights)?,
            last: Linear::new(weights, &spec.last(name), spec.hidden.outputs(), spec.outputs)?,
        })
    }

    /// Estimates `[N, outputs]` for what the first layer sees of N observations, and the actions `[N, D]` where they are
    /// no choices.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, input: &Tensor, actions: Option<&Tensor>) -> Result<Tensor, PolicyError> {
        let features = self.trunk.forward(input)?;
        let seen = match actions {
            Some(actions) => Tensor::cat(&[&features, actions], 1)?,
            None => features,
        };
        self.last.forward(&self.hidden.forward(&seen)?)
    }
}
