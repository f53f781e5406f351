//! The device that the learner's network is on.

use std::sync::Mutex;

use candle_core::Device;
use impresario_common::config::LearnerDevice;
use impresario_common::policy::PolicyError;

/// Opened once: tensors of one device opened twice do not know each other.
static CUDA: Mutex<Option<Device>> = Mutex::new(None);

/// The device that `choice` names.
///
/// # Errors
/// If the program was built without it, or there is none.
pub fn open(choice: LearnerDevice) -> Result<Device, PolicyError> {
    match choice {
        LearnerDevice::Cpu => Ok(Device::Cpu),
        LearnerDevice::Cuda => {
            let refuse = |reason: String| PolicyError::Device { name: "cuda", reason };
            if !cfg!(feature = "cuda") {
                return Err(refuse(
                    "this program was built without CUDA; build it with --features cuda, or set learner.device = \"cpu\""
                        .into(),
                ));
            }
            let mut opened = CUDA.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(device) = &*opened {
                return Ok(device.clone());
            }
            let device = Device::new_cuda(0).map_err(|e| {
                refuse(format!("it cannot be used ({e}); check the driver, or set learner.device = \"cpu\""))
            })?;
            *opened = Some(device.clone());
            Ok(device)
        }
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_cuda_says_how_to_get_it() {
        assert!(open(LearnerDevice::Cpu).unwrap().is_cpu());
        let error = open(LearnerDevice::Cuda).unwrap_err().to_string();
        assert!(error.contains("build it with --features cuda"), "{error}");
    }
}
