//! `impresario envs`: the environments that can be trained in, native ones and Gymnasium's.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use impresario_actor::env::gymnasium::PREFIX;
use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::gymnasium::listing::Listed;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::Environments;

/// Flags of `impresario envs`.
#[derive(Debug, clap::Args)]
pub(crate) struct EnvsCommand {
    #[command(flatten)]
    python: PythonFlag,
}

impl EnvsCommand {
    /// Prints one line an environment: name, spaces, time limit, and the return that counts as solved. The native ones come
    /// first, then those of Gymnasium, by where they come from; or a line that says why these are missing.
    pub(crate) fn run(self, registry: &Registry) -> anyhow::Result<ExitCode> {
        let environments = Environments::new(registry.clone(), &self.python);
        let mut out = io::stdout().lock();
        let native = native(registry)?;
        // They are there at once; Python takes a second.
        print_table(&mut out, &native).context(UNWRITABLE)?;
        let listed = environments.of_gymnasium();
        match listed {
            Ok(listed) => print_gymnasium(&mut out, registry, listed),
            Err(failure) => {
                let why = failure.to_string().replace('\n', "; ");
                writeln!(out, "\nGymnasium's environments are not listed: {why}")
            }
        }
        .context(UNWRITABLE)?;
        Ok(ExitCode::SUCCESS)
    }
}

const UNWRITABLE: &str = "cannot write to standard output";

fn native(registry: &Registry) -> anyhow::Result<Vec<[String; 5]>> {
    let mut rows = vec![["ID", "OBSERVATION", "ACTION", "EPISODE STEPS", "SOLVED AT"].map(String::from)];
    for id in registry.ids() {
        let spec = registry.spec(id)?;
        rows.push([
            spec.id.clone(),
            spec.observation.to_string(),
            spec.action.to_string(),
            limit(spec.max_episode_steps),
            threshold(spec.solved_return),
        ]);
    }
    Ok(rows)
}

/// A table for each group, with a heading.
fn print_gymnasium(out: &mut impl Write, native: &Registry, listed: Vec<Listed>) -> io::Result<()> {
    let mut groups: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for environment in listed {
        groups.entry(environment.group.clone()).or_default().push(environment);
    }
    for (group, environments) in groups {
        writeln!(out, "\nGymnasium: {group}")?;
        let mut rows = vec![["ID", "EPISODE STEPS", "SOLVED AT", ""].map(String::from)];
        rows.extend(environments.into_iter().map(|environment| {
            let note = note(native, &environment);
            let Listed { id, max_episode_steps, reward_threshold, .. } = environment;
            [id, limit(max_episode_steps), threshold(reward_threshold), note]
        }));
        print_table(out, &rows)?;
    }
    writeln!(
        out,
        "\nSpaces are told by `impresario check-env ID`. Environments of other packages are named with the module that registers \
         them: module:Name-v0."
    )
}

/// What else there is to say.
fn note(native: &Registry, environment: &Listed) -> String {
    match &environment.newer {
        _ if native.spec(&environment.id).is_ok() => {
            format!("has a native twin, above; {PREFIX}{} is this one", environment.id)
        }
        Some(newer) => format!("{newer} is newer"),
        None => String::new(),
    }
}

fn limit(steps: Option<u32>) -> String {
    told(steps, "unlimited")
}

fn threshold(value: Option<f64>) -> String {
    told(value, "-")
}

fn told(value: Option<impl Display>, otherwise: &str) -> String {
    value.map_or(otherwise.into(), |value| value.to_string())
}

/// Prints rows in columns.
fn print_table<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
