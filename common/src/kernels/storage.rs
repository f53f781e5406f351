//! Access to a CPU tensor's memory as a slice, for kernels that read it or update it in place.

use std::cell::Cell;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor, WithDType};

/// Calls `read` with the elements of a contiguous tensor in C order. Those of another device are copied here first.
///
/// The tensor's memory stays locked for reading during the call: do not update it from inside.
///
/// # Errors
/// If the tensor is not contiguous, or not of element type `T`.
pub fn with_slice<T: WithDType, R>(tensor: &Tensor, read: impl FnOnce(&[T]) -> R) -> Result<R> {
    if !tensor.device().is_cpu() {
        return with_slice(&tensor.detach().to_device(&Device::Cpu)?, read);
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!(
            "a slice of a tensor's memory needs a CPU tensor; this one is on {:?}",
            tensor.device()
        )
    };
    Ok(read(contiguous(storage, layout)?))
}

/// Calls `update` with the elements of a contiguous tensor in C order, to be changed in place. Those of another device are
/// copied here and back.
///
/// Every tensor that shares the memory sees the change (clones of a `Var` do, snapshots must copy), and no
/// graph records it. The memory stays locked for writing during the call.
///
/// # Errors
/// If the tensor is not contiguous, or not `f32`.
pub fn update_in_place<R>(tensor: &Tensor, update: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    if !tensor.device().is_cpu() {
        return update_elsewhere(tensor, update);
    }
    let op = Update { call: Cell::new(Some(update)), result: Cell::new(None) };
    tensor.inplace_op1(&op)?;
    match op.result.into_inner() {
        Some(result) => Ok(result),
        None => candle_core::bail!("an update in place needs a CPU tensor"),
    }
}

/// [`update_in_place`] where the memory is out of reach: a copy is changed and written back.
fn update_elsewhere<R>(tensor: &Tensor, update: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    if !tensor.is_contiguous() {
        candle_core::bail!("an update in place needs a contiguous tensor")
    }
    let there = tensor.detach().flatten_all()?;
    let mut values = there.to_vec1::<f32>()?;
    let result = update(&mut values);
    if !values.is_empty() {
        there.slice_set(&Tensor::from_vec(values, there.shape(), there.device())?, 0, 0)?;
    }
    Ok(result)
}

/// The elements of a contiguous CPU storage.
pub(super) fn contiguous<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a slice of a tensor's memory needs a contiguous tensor; call contiguous() first")
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

struct Update<F, R> {
    call: Cell<Option<F>>,
    result: Cell<Option<R>>,
}

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Update<F, R> {
    fn name(&self) -> &'static str {
        "update-in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("an update in place needs a contiguous tensor")
        };
        let CpuStorage::F32(numbers) = storage else {
            candle_core::bail!("an update in place needs an f32 tensor")
        };
        if let Some(update) = self.call.take() {
            self.result.set(Some(update(&mut numbers[start..end])));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;

    #[test]
    fn a_variable_is_read_and_changed_in_place() {
        let var = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], (2, 2), &Device::Cpu).unwrap();
        let sum = with_slice(&var, |x: &[f32]| x.iter().sum::<f32>()).unwrap();
        assert_eq!(sum, 10.0);
        let length = update_in_place(&var, |x| {
            x[3] = 9.0;
            x.len()
        })
        .unwrap();
        assert_eq!(length, 4);
        assert_eq!(var.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 9.0]]);
    }

    #[test]
    fn a_view_covers_its_own_elements_only() {
        let tensor = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let rows = tensor.narrow(0, 1, 2).unwrap();
        assert_eq!(with_slice(&rows, |x: &[f32]| x.to_vec()).unwrap(), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        update_in_place(&rows, |x| x.fill(0.0)).unwrap();
        assert_eq!(
            tensor.sum_all().unwrap().to_scalar::<f32>().unwrap(),
            0.0 + 1.0 + 2.0 + 9.0 + 10.0 + 11.0
        );
    }

    #[test]
    fn memory_out_of_reach_is_changed_through_a_copy() {
        let tensor = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let rows = tensor.narrow(0, 1, 2).unwrap();
        let sum = update_elsewhere(&rows, |x| {
            let sum: f32 = x.iter().sum();
            x.fill(0.0);
            sum
        });
        assert_eq!(sum.unwrap(), 33.0);
        let left = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(left, [0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 10.0, 11.0]);
        let scalar = Var::new(2f32, &Device::Cpu).unwrap();
        update_elsewhere(&scalar, |x| x[0] *= 2.0).unwrap();
        assert_eq!(scalar.to_scalar::<f32>().unwrap(), 4.0);
        assert!(update_elsewhere(&tensor.t().unwrap(), |_| ()).is_err());
    }

    #[test]
    fn what_cannot_be_a_slice_is_refused() {
        let tensor = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let transposed = tensor.t().unwrap();
        assert!(with_slice(&transposed, |_: &[f32]| ()).is_err());
        assert!(update_in_place(&transposed, |_| ()).is_err());
        assert!(with_slice(&tensor, |_: &[i64]| ()).is_err());
        let bytes = Tensor::zeros(3, DType::U8, &Device::Cpu).unwrap();
        assert!(update_in_place(&bytes, |_| ()).is_err());
    }
}
