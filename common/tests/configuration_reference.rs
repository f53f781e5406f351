//! docs/configuration.md is rendered from the comments of the configuration's fields, so that it is never behind.
//!
//! After a change run `UPDATE_DOCS=1 cargo test -p impresario-common --test configuration_reference`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use impresario_common::config::{AlgorithmConfig, RunConfig};

/// Where structures are looked for.
const SOURCE: &str = concat!(
    include_str!("../src/config/sections.rs"),
    include_str!("../src/config/environment.rs"),
    include_str!("../src/config/policy.rs"),
    include_str!("../src/config/algorithm/actor_critic.rs"),
    include_str!("../src/config/algorithm/appo.rs"),
    include_str!("../src/config/algorithm/impala.rs"),
    include_str!("../src/config/algorithm/ppo.rs"),
    include_str!("../src/config/algorithm/reinforce.rs"),
    include_str!("../src/config/algorithm/sac.rs"),
    include_str!("../src/config/algorithm/trpo.rs"),
);

/// The structure that holds each method's keys.
const METHODS: &[(&str, &str)] = &[
    ("impala", "ImpalaConfig"),
    ("a2c", "ActorCriticConfig"),
    ("a3c", "ActorCriticConfig"),
    ("ppo", "PpoConfig"),
    ("appo", "AppoConfig"),
    ("reinforce", "ReinforceConfig"),
    ("trpo", "TrpoConfig"),
    ("sac", "SacConfig"),
];

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

/// A field of a struct: name, type, comment.
struct Field {
    name: String,
    kind: String,
    comment: String,
}

/// The comment and fields of `pub struct name`.
fn structure(name: &str) -> (String, Vec<Field>) {
    let mut comment = String::new();
    let mut lines = SOURCE.lines();
    let head = format!("pub struct {name} {{");
    for line in lines.by_ref() {
        if line == head {
            break;
        }
        match line.trim().strip_prefix("///") {
            Some(text) => comment += text,
            None if line.starts_with("#[") => {}
            None => comment.clear(),
        }
    }
    let mut fields = vec![];
    let mut text = String::new();
    for line in lines.map(str::trim).take_while(|line| *line != "}") {
        if let Some(more) = line.strip_prefix("///") {
            text += more;
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")) {
            let comment = std::mem::take(&mut text).trim().to_owned();
            fields.push(Field { name: name.into(), kind: kind.trim_end_matches(',').into(), comment });
        }
    }
    assert!(!fields.is_empty(), "{name} has no fields in the source");
    (comment.trim().to_owned(), fields)
}

fn section(page: &mut String, title: &str, structure_name: &str, defaults: &toml::Value) {
    let (comment, fields) = structure(structure_name);
    writeln!(page, "\n## `[{title}]`\n\n{comment}\n\n| key | default | meaning |\n| --- | --- | --- |")
        .unwrap();
    // Sections inside the section have a table of their own.
    for field in fields.iter().filter(|field| !field.kind.ends_with("Section")) {
        let default = &defaults[field.name.as_str()];
        writeln!(page, "| `{}` | `{default}` | {} |", field.name, field.comment.replace('|', "\\|")).unwrap();
    }
}

/// Keys of the sections other than the algorithm's whose defaults differ, as code.
fn changes(defaults: &toml::Value, adapted: &toml::Value) -> Vec<String> {
    let mut changes = vec![];
    for (title, section) in adapted.as_table().unwrap().iter().filter(|(title, _)| *title != "algorithm") {
        for (key, value) in section.as_table().unwrap() {
            if defaults[title.as_str()][key.as_str()] != *value {
                changes.push(format!("`{title}.{key} = {value}`"));
            }
        }
    }
    changes
}

fn render() -> String {
    let defaults = toml::Value::try_from(RunConfig::default()).unwrap();
    let mut page = String::from(
        "# Configuration\n\n\
         Every key of a run's configuration, with its default. Set one with `--set section.key=value`, or several in a TOML file given \
         with `--config`; flags win over the file, `--set` wins over both. The learner owns the configuration: it writes the result to \
         the run directory and sends it to every actor. An unknown key, a wrong type or a value out of range is refused with what \
         would do.\n",
    );
    for field in structure("RunConfig").1 {
        if field.name != "algorithm" {
            section(&mut page, &field.name, &field.kind, &defaults[field.name.as_str()]);
        }
        if field.name == "environment" {
            section(&mut page, "environment.atari", "AtariSection", &defaults["environment"]["atari"]);
        }
    }
    page += "\n## `[algorithm]`\n\n`algorithm.name` (or `--algorithm`) chooses the method; `impala` is the default. Each has keys of \
             its own, and some change the defaults of the sections above.\n";
    let names = METHODS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(names, AlgorithmConfig::NAMES, "every method is documented");
    for (name, structure) in METHODS {
        let run = RunConfig::with_algorithm(AlgorithmConfig::by_name(name).unwrap());
        let adapted = toml::Value::try_from(&run).unwrap();
        section(&mut page, &format!("algorithm: {name}"), structure, &adapted["algorithm"]);
        let changes = changes(&defaults, &adapted);
        if !changes.is_empty() {
            writeln!(page, "\nDefaults of other sections with `{name}`: {}.", changes.join(", ")).unwrap();
        }
    }
    page
}

#[test]
fn the_reference_page_is_current() {
    let page = render();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(found == page, "docs/configuration.md is behind: run this test with UPDATE_DOCS=1");
}
