//! Polyak averaging: slow copies of weights that are being learned (Polyak and Juditsky 1992).

use impresario_common::kernels::{update_in_place, with_slice};
use impresario_common::policy::{PolicyError, Weights};

use crate::parameters::Parameters;

/// Moves every tensor of `slow`, in place, by the share `tau` of its way to the parameter of the same name. With 1 it is the
/// same afterwards, bit for bit.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub fn follow(slow: &Weights, parameters: &Parameters, tau: f32) -> Result<(), PolicyError> {
    for (name, var) in parameters.iter() {
        let to = slow.get(name, var.dims())?;
        with_slice(var, |from: &[f32]| {
            update_in_place(&to, |to| {
                if tau == 1.0 {
                    // A number and its distance to another one do not always add up to that.
                    return to.copy_from_slice(from);
                }
                to.iter_mut().zip(from).for_each(|(to, from)| *to += tau * (from - *to));
            })
        })??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn the_copy_goes_a_share_of_the_way() {
        let weights =
            |values: [f32; 2]| Weights(vec![("w".into(), Tensor::new(&values, &Device::Cpu).unwrap())]);
        let parameters = Parameters::new(&weights([1.0, -2.0])).unwrap();
        let slow = weights([0.0, 2.0]);
        follow(&slow, &parameters, 0.25).unwrap();
        assert_eq!(slow.0[0].1.to_vec1::<f32>().unwrap(), [0.25, 1.0]);
        follow(&slow, &parameters, 1.0).unwrap();
        assert_eq!(slow.0[0].1.to_vec1::<f32>().unwrap(), [1.0, -2.0]);
        // 1e8 + (0.1 - 1e8) is 0 in f32.
        let (small, slow) = (Parameters::new(&weights([0.1, 1e8])).unwrap(), weights([1e8, 0.1]));
        follow(&slow, &small, 1.0).unwrap();
        assert_eq!(slow.0[0].1.to_vec1::<f32>().unwrap(), [0.1, 1e8]);
    }
}
