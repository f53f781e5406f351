//! [`Parameters`]: the variables being learned, by name and in a fixed order.
//!
//! They start from a policy's initial weights or a checkpoint; the optimiser changes them in place;
//! snapshots and checkpoints are copies of them.

use candle_core::Var;
use impresario_common::kernels::{update_in_place, with_slice};
use impresario_common::policy::{PolicyError, Weights};

/// Named variables in an order that never changes: nothing depends on the order of a hash map.
///
/// Clones share the variables.
#[derive(Debug, Clone)]
pub struct Parameters {
    named: Vec<(String, Var)>,
}

impl Parameters {
    /// Variables that start as copies of `weights`.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(weights: &Weights) -> Result<Self, PolicyError> {
        let copy = |(name, tensor): &(String, _)| Ok((name.clone(), Var::from_tensor(tensor)?));
        Ok(Self { named: weights.0.iter().map(copy).collect::<Result<_, PolicyError>>()? })
    }

    /// Names and variables in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Var)> {
        self.named.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The variables themselves as weights: a policy over them records a graph and sees every later update.
    pub fn shared(&self) -> Weights {
        Weights(self.named.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
    }

    /// A deep copy of what the variables hold now.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn copied(&self) -> Result<Weights, PolicyError> {
        self.shared().copied()
    }

    /// Overwrites the variables with `weights`: all of them, or none if one does not fit.
    ///
    /// # Errors
    /// If a tensor is missing, unknown or has another shape.
    pub fn load(&self, weights: &Weights) -> Result<(), PolicyError> {
        self.check(weights)?;
        for (name, var) in &self.named {
            let from = weights.get(name, var.dims())?.contiguous()?;
            with_slice(&from, |from: &[f32]| update_in_place(var, |to| to.copy_from_slice(from)))??;
        }
        Ok(())
    }

    /// Whether `weights` has exactly these parameters.
    ///
    /// # Errors
    /// If a tensor is missing, unknown or has another shape.
    pub fn check(&self, weights: &Weights) -> Result<(), PolicyError> {
        for (name, var) in &self.named {
            weights.get(name, var.dims())?;
        }
        match weights.0.iter().find(|(name, _)| !self.named.iter().any(|(known, _)| known == name)) {
            Some((name, _)) => Err(PolicyError::Weights(format!("there is no parameter {name}"))),
            None => Ok(()),
        }
    }
}
