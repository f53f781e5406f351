//! `check-env` finds what is wrong with environments that break one promise each, and says what to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// Checks an environment: the exit code and what was said.
fn check(id: &str) -> (i32, String) {
    let args = ["check-env", id, "--steps", "200", "--seconds", "0"];
    let output = Command::new(env!("CARGO_BIN_EXE_broken-environments")).args(args).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The line of a check, without its mark.
fn line<'a>(told: &'a str, mark: &str, check: &str) -> &'a str {
    let begins = format!("  {mark:4}  {check:18}");
    told.lines()
        .find_map(|line| line.strip_prefix(begins.as_str()))
        .unwrap_or_else(|| panic!("{begins}: {told}"))
}

/// The environment fails one check, with all of `words` in what is said, and no other.
fn fails(id: &str, which: &str, words: &[&str]) {
    let (code, told) = check(id);
    assert_eq!(code, 1, "{told}");
    let line = line(&told, "FAIL", which);
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {told}");
    }
    assert!(told.ends_with("verdict: not fit for training: 1 check failed\n"), "{told}");
}

#[test]
fn an_environment_without_fault_is_fit() {
    let (code, told) = check("Whole-v0");
    assert_eq!(code, 0, "{told}");
    for which in [
        "spaces",
        "steps",
        "values",
        "episodes",
        "final observations",
        "determinism",
        "independence",
        "seeding",
    ] {
        line(&told, "ok", which);
    }
    assert!(line(&told, "ok", "speed").contains("steps a second"));
    assert!(told.ends_with("verdict: fit for training\n") && !told.contains("note"), "{told}");
}

#[test]
fn numbers_that_do_not_fit_are_found() {
    fails("NotANumber-v0", "values", &["in step 5, copy 0", "number 0 is NaN", "correct"]);
    fails("OutOfBounds-v0", "values", &["number 0 is 1.5", "within -1..1", "the observation or the space"]);
    fails("Unwritten-v0", "values", &["at the first reset", "number 1", "was not written", "write all 2"]);
    fails("InfiniteReward-v0", "values", &["in step 7", "reward is inf", "finite"]);
}

#[test]
fn panics_are_told_with_their_place() {
    fails("WrongLength-v0", "steps", &["at the first reset", "panicked", "main.rs"]);
    fails("WrongType-v0", "steps", &["at the first reset", "byte observation", "f32"]);
    fails("Brittle-v0", "steps", &["beyond the bounds", "the motor burns at", "clip actions"]);
}

#[test]
fn randomness_without_a_seed_is_found() {
    fails(
        "Unseeded-v0",
        "determinism",
        &["same seed", "random stream", "keep nothing outside the environment"],
    );
}

#[test]
fn episodes_that_do_not_start_anew_are_found() {
    fails("StaleReset-v0", "episodes", &["ended in their first step", "let reset put back"]);
}

#[test]
fn masks_without_a_legal_action_are_found() {
    fails("NothingLegal-v0", "masks", &["no alternative of choice 0 is legal", "leave at least one"]);
    fails("UnwrittenMask-v0", "masks", &["is 255 and should be 0 or 1", "write all 2"]);
}

#[test]
fn impossible_spaces_are_found_before_anything_is_played() {
    fails("CrossedBounds-v0", "spaces", &["the observation space", "1..-1 at number 0"]);
    let (_, told) = check("CrossedBounds-v0");
    assert!(!told.contains("determinism"), "{told}");
}

#[test]
fn what_may_be_meant_is_noted_and_no_failure() {
    let (code, told) = check("Deterministic-v0");
    assert_eq!(code, 0, "{told}");
    assert!(line(&told, "note", "seeding").contains("fine if nothing in the environment is random"));
    let (code, told) = check("Endless-v0");
    assert_eq!(code, 0, "{told}");
    assert!(line(&told, "note", "episodes").contains("none ended within 200 steps"));
    line(&told, "note", "final observations");
}

#[test]
fn an_unknown_name_is_a_mistake_of_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_broken-environments"))
        .args(["check-env", "Hole-v0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean \"Whole-v0\"?"));
}
