//! `impresario envs`: the environments that can be trained in.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use impresario_actor::env::registry::Registry;

/// Prints one line an environment: name, spaces, time limit, and the return that counts as solved.
pub(crate) fn run(registry: &Registry) -> anyhow::Result<ExitCode> {
    let mut rows = vec![["ID", "OBSERVATION", "ACTION", "EPISODE STEPS", "SOLVED AT"].map(String::from)];
    for id in registry.ids() {
        let spec = registry.spec(id)?;
        rows.push([
            spec.id.clone(),
            spec.observation.to_string(),
            spec.action.to_string(),
            spec.max_episode_steps.map_or("unlimited".into(), |n| n.to_string()),
            spec.solved_return.map_or("-".into(), |r| r.to_string()),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = std::io::stdout().lock();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).context("cannot write to standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}
