//! Which runs are repetitions of one another, and what to call them.

use std::collections::BTreeSet;

use super::runs::Run;

/// Settings that a label may name; groups that differ in more are called by the directory of their first run.
const MOST_NAMED: usize = 3;

/// Runs that differ in nothing but their seed.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    /// Environment's name with version.
    pub(super) environment: String,
    /// The algorithm, and what sets it apart from other groups of the same algorithm and environment.
    pub(super) label: String,
    /// Indices of its runs.
    pub(super) members: Vec<usize>,
}

/// Groups `runs` by all settings, in the order of their first members.
pub(super) fn group(runs: &[&Run]) -> Vec<Group> {
    let mut groups: Vec<Vec<usize>> = vec![];
    for (i, run) in runs.iter().enumerate() {
        match groups.iter_mut().find(|group| runs[group[0]].settings == run.settings) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    let firsts: Vec<&Run> = groups.iter().map(|group| runs[group[0]]).collect();
    let named = |(members, first): (Vec<usize>, &&Run)| {
        let environment = first.environment.clone();
        Group { environment, label: label(first, &firsts), members }
    };
    groups.into_iter().zip(&firsts).map(named).collect()
}

/// What to call the group of `run`, among those of `firsts`.
fn label(run: &Run, firsts: &[&Run]) -> String {
    let rivals = firsts
        .iter()
        .filter(|other| (&other.environment, &other.algorithm) == (&run.environment, &run.algorithm));
    let differing: BTreeSet<&String> = rivals
        .flat_map(|other| {
            let keys = other.settings.keys().chain(run.settings.keys());
            keys.filter(|key| other.settings.get(*key) != run.settings.get(*key))
        })
        .collect();
    if differing.len() > MOST_NAMED {
        let dir = run.dir.file_name().unwrap_or(run.dir.as_os_str());
        return format!("{}: {}", run.algorithm, dir.to_string_lossy());
    }
    let setting = |key: &String| match run.settings.get(key) {
        Some(value) => format!(", {key} = {value}"),
        None => format!(", no {key}"),
    };
    differing.into_iter().map(setting).fold(run.algorithm.clone(), |label, setting| label + &setting)
}
