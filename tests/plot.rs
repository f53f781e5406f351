//! `impresario plot`: pictures of real runs and of runs with known numbers, read back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use impresario_common::config::{RunConfig, RunFlags};
use support::{Ended, run};

/// Runs `plot` with a directory's names made absolute.
fn plot(folder: &Path, names: &[&str], output: &str, flags: &[&str]) -> Ended {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut args = vec!["plot".to_owned()];
    args.extend(names.iter().map(|name| path(name)));
    args.extend(["-o".to_owned(), path(output)]);
    args.extend(flags.iter().map(|flag| flag.to_string()));
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The same, which must succeed; the text of the SVG.
fn svg(folder: &Path, names: &[&str], flags: &[&str]) -> Svg {
    let ended = plot(folder, names, "curves.svg", flags);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    Svg(std::fs::read_to_string(folder.join("curves.svg")).unwrap())
}

/// A run directory with a curve of the given `(env_steps, mean_return_100)`, a second for every thousand steps.
fn write_run(folder: &Path, name: &str, config: &str, curve: &[(u32, f64)]) -> PathBuf {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), config).unwrap();
    let line = |&(steps, value): &(u32, f64)| {
        format!(
            "{{\"env_steps\":{steps},\"seconds\":{},\"mean_return_100\":{value},\"mean_return\":{value},\
             \"metrics\":{{\"entropy\":{}}},\"policy_lag\":{{\"mean\":null}}}}\n",
            f64::from(steps) / 1000.0,
            -value
        )
    };
    std::fs::write(dir.join("curve.jsonl"), curve.iter().map(line).collect::<String>()).unwrap();
    dir
}

fn config(environment: &str, seed: u32, learning_rate: f64) -> String {
    format!(
        "[run]\nseed = {seed}\n[environment]\nid = \"{environment}\"\n[algorithm]\nname = \"impala\"\n\
         [optimizer]\nlearning_rate = {learning_rate}\n"
    )
}

/// What stands in an SVG.
struct Svg(String);

/// A line of several points, in pixels.
type Polyline = Vec<(f64, f64)>;

impl Svg {
    fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
        element.split_once(&format!(" {name}=\"")).unwrap().1.split_once('"').unwrap().0
    }

    /// Texts with the place of each.
    fn texts(&self) -> Vec<(String, f64, f64)> {
        let elements = self.0.split("<text").skip(1);
        elements
            .map(|element| {
                let (head, rest) = element.split_once('>').unwrap();
                let text = rest.split_once("</text>").unwrap().0.trim().to_owned();
                let place = |name| Self::attribute(head, name).parse().unwrap();
                (text, place("x"), place("y"))
            })
            .collect()
    }

    fn has_text(&self, text: &str) -> bool {
        self.texts().iter().any(|(found, ..)| found == text)
    }

    /// Points of the elements called `kind` that have `text` in them.
    fn points(&self, kind: &str, text: &str) -> Vec<Polyline> {
        let tag = format!("<{kind} ");
        let elements = self.0.split(&tag).skip(1).map(|rest| rest.split_once('>').unwrap().0);
        let pair = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        elements
            .filter(|element| element.contains(text))
            .map(|element| {
                Self::attribute(&format!(" {element}"), "points").split_whitespace().map(pair).collect()
            })
            .collect()
    }

    /// Lines of a series in the n-th colour that are longer than those of the legend.
    fn lines(&self, color: usize) -> Vec<Polyline> {
        let color = ["#0072B2", "#D55E00"][color];
        self.points("polyline", color).into_iter().filter(|line| line.len() > 2).collect()
    }

    /// The value at a height in pixels, by the labels of two ticks of the vertical axis.
    fn value(&self, y: f64, ticks: [&str; 2]) -> f64 {
        let texts = self.texts();
        let [low, high] = ticks.map(|tick| {
            // The leftmost of that name belongs to the vertical axis.
            let named = texts.iter().filter(|(text, ..)| text == tick);
            let place =
                named.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_else(|| panic!("{tick}: {texts:?}")).2;
            (place, tick.parse::<f64>().unwrap())
        });
        low.1 + (y - low.0) / (high.0 - low.0) * (high.1 - low.1)
    }
}

#[test]
fn real_runs_are_drawn_by_environment_with_their_seeds_together() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, env: &str, seed: &str| {
        let dir = folder.path().join(name);
        let fixed = ["train", "--actors", "1", "--steps", "60000", "--until-return", "never"];
        let ended =
            run(&[&fixed[..], &["--env", env, "--seed", seed, "--run-dir", dir.to_str().unwrap()]].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let curve = std::fs::read_to_string(dir.join("curve.jsonl")).unwrap();
        let steps: Vec<u64> = curve
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["env_steps"].as_u64().unwrap()
            })
            .collect();
        // An update trains on 640 steps, more than the 300 of a two-hundredth of the run: every one has a point.
        let expected: Vec<u64> = (1..=94).map(|update| 640 * update).collect();
        assert_eq!(steps, expected);
    };
    train("one", "CartPole-v1", "1");
    train("two", "CartPole-v1", "2");
    train("three", "Acrobot-v1", "1");

    let picture = svg(folder.path(), &["one", "two", "three"], &[]);
    for text in
        ["CartPole-v1", "Acrobot-v1", "impala (2 runs)", "impala", "20k", "solved: 475", "environment steps"]
    {
        assert!(picture.has_text(text), "{text} is not in {:?}", picture.texts());
    }
    let png = plot(folder.path(), &["one", "three"], "curves.png", &[]);
    assert_eq!(png.code(), 0, "{}", png.stderr);
    assert!(png.stdout.contains("curves.png: mean_return_100 of 2 runs in 2 lines"), "{}", png.stdout);
    let file = std::io::BufReader::new(std::fs::File::open(folder.path().join("curves.png")).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (3040, 960));
    // Left of the axis there is nothing but text: a picture without a font would be white there.
    let dark = |x: usize, y: usize| pixels[3 * (y * 3040 + x)] < 128;
    let text = (0..960).flat_map(|y| (0..140).map(move |x| (x, y))).filter(|&(x, y)| dark(x, y)).count();
    assert!(text > 500, "{text} dark pixels");

    for flags in
        [&["--x", "seconds"][..], &["--y", "entropy"], &["--y", "policy_lag"], &["--y", "steps_per_second"]]
    {
        assert!(svg(folder.path(), &["one", "two"], flags).has_text("impala (2 runs)"), "{flags:?}");
    }
    assert!(svg(folder.path(), &["one"], &["--x", "seconds"]).has_text("seconds of training"));
}

#[test]
fn the_line_is_the_median_of_the_seeds_and_the_band_their_range() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, value) in [(1, 100.0), (2, 300.0), (3, 400.0)] {
        let curve = [(1000, value), (100_000, value)];
        write_run(folder.path(), &seed.to_string(), &config("CartPole-v1", seed, 0.001), &curve);
    }
    // Another configuration is another line, in which a resumed run has left what it lost.
    let curve = [(1000, 200.0), (50_000, 200.0), (80_000, 450.0), (60_000, 200.0), (100_000, 200.0)];
    write_run(folder.path(), "other", &config("CartPole-v1", 1, 0.002), &curve);
    let picture = svg(folder.path(), &["1", "2", "3", "other"], &[]);
    assert!(picture.has_text("impala, optimizer.learning_rate = 0.001 (3 runs)"), "{:?}", picture.texts());
    assert!(picture.has_text("impala, optimizer.learning_rate = 0.002"), "{:?}", picture.texts());
    assert!(picture.has_text("100k"), "{:?}", picture.texts());

    let near = |line: &Polyline, value: f64| {
        // A pixel is 1.3 of return high; both ends are rounded to whole ones.
        line.iter().all(|&(_, y)| (picture.value(y, ["100", "400"]) - value).abs() < 3.0)
    };
    let median = picture.lines(0);
    assert!(median.len() == 1 && near(&median[0], 300.0), "{median:?}");
    let other = picture.lines(1);
    assert!(other.len() == 1 && near(&other[0], 200.0), "{other:?}");
    let bands = picture.points("polygon", "#0072B2");
    let (high, low) = bands[0].split_at(bands[0].len() / 2);
    assert!(near(&high.to_vec(), 400.0) && near(&low.to_vec(), 100.0), "{bands:?}");
}

#[test]
fn a_run_that_is_being_written_or_was_killed_can_be_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let curve: Vec<(u32, f64)> = (1..=10).map(|i| (1000 * i, f64::from(i))).collect();
    let dir = write_run(folder.path(), "run", &config("Pendulum-v1", 1, 0.001), &curve);
    let path = dir.join("curve.jsonl");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();
    let line = &svg(folder.path(), &["run"], &[]).lines(0)[0];
    assert_eq!(line.len(), 9);

    let mut damaged = whole.clone();
    damaged[3] = b'\n';
    std::fs::write(&path, &damaged).unwrap();
    let ended = plot(folder.path(), &["run"], "curves.svg", &[]);
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("curve.jsonl: line 1 cannot be read"), "{}", ended.stderr);
}

#[test]
fn a_users_mistakes_are_answered_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let setting = config("CartPole-v1", 1, 0.001);
    write_run(folder, "good", &setting, &[(1000, 20.0), (2000, 21.0)]);
    write_run(folder, "empty", &setting, &[]);
    let young = write_run(folder, "young", &setting, &[]);
    std::fs::write(
        young.join("curve.jsonl"),
        "{\"env_steps\":1000,\"seconds\":1,\"mean_return_100\":null,\"mean_return\":3.5}\n",
    )
    .unwrap();
    let says = |names: &[&str], output: &str, flags: &[&str], code: i32, expected: &[&str]| {
        let ended = plot(folder, names, output, flags);
        assert_eq!(ended.code(), code, "{names:?} {output} {flags:?}: {}", ended.stderr);
        for expected in expected {
            assert!(ended.stderr.contains(expected), "{:?} does not say {expected:?}", ended.stderr);
        }
    };
    says(&["nowhere"], "a.svg", &[], 1, &["nowhere holds no run: it has no config.toml"]);
    says(&["empty"], "a.svg", &[], 1, &["empty has no metrics yet"]);
    says(&["young"], "a.svg", &[], 1, &["young has no value of mean_return_100 yet", "--y mean_return"]);
    says(&["young"], "a.svg", &["--y", "mean_return"], 0, &[]);
    says(&["good", "young"], "a.svg", &[], 0, &["young has no value of mean_return_100 yet: left out"]);
    let known = "env_steps, mean_return, mean_return_100, policy_lag.mean, seconds";
    says(&["good"], "a.svg", &["--y", "fun"], 64, &["no metric is called \"fun\"", "entropy, ", known]);
    says(&["good"], "a.gif", &[], 64, &["a.gif", "must end in .svg or .png"]);
    says(&["good"], "missing/a.svg", &[], 1, &["cannot write", "missing/a.svg"]);
    says(&[], "a.svg", &[], 64, &["RUN_DIR"]);
    std::fs::write(folder.join("good/config.toml"), "[run").unwrap();
    says(&["good"], "a.svg", &[], 1, &["config.toml is no configuration"]);
}

/// The recipes of `benchmarks/` are valid, are named after what they train, and have a target.
#[test]
fn every_benchmark_recipe_is_a_valid_configuration_with_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks");
    let targets: toml::Table = std::fs::read_to_string(folder.join("targets.toml")).unwrap().parse().unwrap();
    let mut names = vec![];
    for file in std::fs::read_dir(folder.join("recipes")).unwrap() {
        let path = file.unwrap().path();
        let flags = RunFlags { config: Some(path.clone()), ..RunFlags::default() };
        let config = RunConfig::from_flags(&flags).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let environment = config.environment.id.replace('/', "_");
        assert!(name.starts_with(&format!("{}-", config.algorithm.name())), "{name}");
        assert!(name.ends_with(&environment), "{name} does not train in {environment}");
        assert!(!config.run.until_return.is_a_goal(), "{name} would not use its whole budget");
        let target = targets.get(&name).and_then(|entry| entry.get("target"));
        assert!(target.is_some_and(|t| t.is_integer() || t.is_float()), "{name} has no target");
        names.push(name);
    }
    let without: Vec<&String> = targets.keys().filter(|name| !names.contains(name)).collect();
    assert!(without.is_empty(), "targets of recipes that do not exist: {without:?}");
}
