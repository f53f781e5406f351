//! Compares `impresario_learner::returns` with rlax 0.1.9, case by case.
//!
//! The fixture comes from `tests/oracles/rlax_returns.py`, which ran rlax in float64 on inputs that are
//! exact in float32: what differs is the rounding of our float32 arithmetic and nothing else.

use std::path::Path;

use impresario_learner::returns::{
    VTrace, VTraceParams, discounted_returns, gae, lambda_returns, n_step_returns, vtrace,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    rlax: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    log_rhos: Vec<f32>,
    discounts: Vec<f32>,
    rewards: Vec<f32>,
    values: Vec<f32>,
    vtrace: Vec<VTraceCase>,
    gae: Vec<GaeCase>,
    lambda_returns: Vec<LambdaCase>,
    n_step_returns: Vec<NStepCase>,
    discounted_returns: Vec<DiscountedCase>,
}

#[derive(Deserialize)]
struct VTraceCase {
    lambda: f32,
    clip_rho: f32,
    clip_pg_rho: f32,
    clip_c: f32,
    errors: Vec<f64>,
    vs: Vec<f64>,
    pg_advantages: Vec<f64>,
}

#[derive(Deserialize)]
struct GaeCase {
    lambda: f32,
    advantages: Vec<f64>,
}

#[derive(Deserialize)]
struct LambdaCase {
    lambda: f32,
    returns: Vec<f64>,
}

#[derive(Deserialize)]
struct NStepCase {
    n: usize,
    returns: Vec<f64>,
}

#[derive(Deserialize)]
struct DiscountedCase {
    bootstrap: f32,
    returns: Vec<f64>,
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rlax_returns.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let fixture: Fixture = serde_json::from_str(&text).expect("the layout of the oracle script");
    assert_eq!(fixture.rlax, "0.1.9");
    assert_eq!(fixture.cases.len(), 20);
    fixture
}

/// Equal up to `tolerance` times the largest entry, or times 1 where all are smaller.
#[track_caller]
fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(1.0, |scale, e| e.abs().max(scale));
    for (t, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        assert!(error <= tolerance * scale, "{what}: {actual} at {t}, where rlax has {expected}");
    }
}

#[test]
fn vtrace_agrees_with_rlax() {
    for case in fixture().cases {
        for (i, v) in case.vtrace.iter().enumerate() {
            let params = VTraceParams {
                lambda: v.lambda,
                clip_rho: v.clip_rho,
                clip_pg_rho: v.clip_pg_rho,
                clip_c: v.clip_c,
            };
            let VTrace { vs, pg_advantages } =
                vtrace(&case.log_rhos, &case.discounts, &case.rewards, &case.values, &params);
            let errors: Vec<f32> = vs.iter().zip(&case.values).map(|(vs, v)| vs - v).collect();
            let what = |output: &str| format!("{output} of vtrace {i} ({params:?}), {}", case.name);
            assert_close(&what("vs"), &vs, &v.vs, 1e-6);
            assert_close(&what("errors"), &errors, &v.errors, 3e-6);
            assert_close(&what("pg_advantages"), &pg_advantages, &v.pg_advantages, 3e-6);
        }
    }
}

#[test]
fn gae_agrees_with_rlax() {
    for case in fixture().cases {
        for g in &case.gae {
            let advantages = gae(&case.discounts, &case.rewards, &case.values, g.lambda);
            let what = format!("gae({}), {}", g.lambda, case.name);
            assert_close(&what, &advantages, &g.advantages, 1e-6);
        }
    }
}

#[test]
fn lambda_returns_agree_with_rlax() {
    for case in fixture().cases {
        for l in &case.lambda_returns {
            let returns = lambda_returns(&case.discounts, &case.rewards, &case.values, l.lambda);
            let what = format!("lambda_returns({}), {}", l.lambda, case.name);
            assert_close(&what, &returns, &l.returns, 1e-6);
        }
    }
}

#[test]
fn n_step_returns_agree_with_rlax() {
    for case in fixture().cases {
        for s in &case.n_step_returns {
            let returns = n_step_returns(&case.discounts, &case.rewards, &case.values, s.n);
            assert_close(&format!("n_step_returns({}), {}", s.n, case.name), &returns, &s.returns, 1e-6);
        }
    }
}

#[test]
fn discounted_returns_agree_with_rlax() {
    for case in fixture().cases {
        for d in &case.discounted_returns {
            let returns = discounted_returns(&case.discounts, &case.rewards, d.bootstrap);
            let what = format!("discounted_returns({}), {}", d.bootstrap, case.name);
            assert_close(&what, &returns, &d.returns, 1e-6);
        }
    }
}
