//! Checks of single values: each names the key, its value and what it must be.

use std::fmt::Display;

use super::ConfigError;

/// Refuses `value` unless `holds`.
pub(super) fn check(
    key: &'static str,
    value: &dyn Display,
    holds: bool,
    requirement: &'static str,
) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError::Range { key, value: value.to_string(), requirement }),
    }
}

/// A count.
pub(super) fn at_least_1(key: &'static str, value: usize) -> Result<(), ConfigError> {
    check(key, &value, value > 0, "must be at least 1")
}

/// A finite number from 0 up.
pub(super) fn not_negative(key: &'static str, value: f64) -> Result<(), ConfigError> {
    check(key, &value, value.is_finite() && value >= 0.0, "must be 0 or more")
}

/// A finite number above 0.
pub(super) fn positive(key: &'static str, value: f64) -> Result<(), ConfigError> {
    check(key, &value, value.is_finite() && value > 0.0, "must be above 0")
}

/// A number from 0 to 1.
pub(super) fn fraction(key: &'static str, value: f64) -> Result<(), ConfigError> {
    check(key, &value, (0.0..=1.0).contains(&value), "must lie between 0 and 1")
}
