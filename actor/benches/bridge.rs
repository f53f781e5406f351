//! What the bridge to Gymnasium adds to a step of the environment: copies stepped through it and by a plain loop in Python, in turns.
//!
//! `cargo bench --workspace --bench bridge`, with a Python that has gymnasium and ale-py (`IMPRESARIO_PYTHON`, an active virtual
//! environment, or `python3`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use impresario_actor::env::gymnasium::interpreter::{Interpreter, PythonFlag};
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::{Environments, Source};
use impresario_actor::env::{Action, FinalObservations, ObservationMut, VectorStep};
use impresario_common::config::EnvironmentSection;
use impresario_common::random::{Purpose, stream};
use impresario_common::unroll::Array;
use rand::RngExt;

/// Turns of each; medians are told.
const TURNS: usize = 15;
/// Actions that are drawn ahead.
const ROWS: usize = 1000;

fn main() {
    // `cargo test` and `cargo bench` call every bench; the former only wants to know that it starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let flag = PythonFlag { python: std::env::var_os("IMPRESARIO_PYTHON").map(Into::into) };
    let environments = Environments::new(Registry::native(), &flag);
    let interpreter = Interpreter::choose(&flag);
    for (id, copies, steps) in
        [("gym:CartPole-v1", 16, 1000), ("gym:CartPole-v1", 1, 4000), ("ALE/Pong-v5", 16, 50)]
    {
        let options = EnvironmentSection::new(id);
        let source = match environments.find(&options) {
            Ok(source) => source,
            Err(error) => {
                eprintln!("{id} is left out: {error}");
                continue;
            }
        };
        let mut bare = Bare::start(&interpreter, id.trim_start_matches("gym:"), copies);
        let mut bridge = Bridge::new(&source, copies);
        let (mut alone, mut through, mut added) = (vec![], vec![], vec![]);
        for turn in 0..TURNS + 2 {
            let (a, b) = (bare.seconds(steps), bridge.seconds(steps));
            // The first turns warm up.
            if turn >= 2 {
                let per_step = 1e6 / (steps * copies) as f64;
                alone.push(a * per_step);
                through.push(b * per_step);
                added.push((b - a) * per_step);
            }
        }
        let (alone, through, added) = (spread(alone), spread(through), spread(added));
        println!(
            "{id} x {copies}, microseconds an environment step, median (quartiles): plain loop {alone}, through the bridge \
             {through}, added {added}"
        );
    }
}

/// Median and quartiles.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 4];
    format!("{:.2} ({:.2} to {:.2})", at(2), at(1), at(3))
}

/// The plain loop.
struct Bare {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Bare {
    fn start(interpreter: &Interpreter, id: &str, copies: usize) -> Self {
        let mut child = Command::new(interpreter.path())
            .args(["-c", include_str!("bare.py"), id, &copies.to_string()])
            .envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter has just been used");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, answers }
    }

    fn seconds(&mut self, steps: usize) -> f64 {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{steps}").expect("the loop listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the loop answers");
        line.trim().parse().expect("the loop answers with seconds")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same copies through the bridge.
struct Bridge {
    vector: Box<dyn impresario_actor::env::VectorEnvironment>,
    observations: Array,
    actions: Vec<i32>,
    finals: Finals,
}

#[derive(Debug)]
struct Finals(Array);

impl FinalObservations for Finals {
    fn slot(&mut self, _: usize) -> ObservationMut<'_> {
        whole(&mut self.0)
    }
}

fn whole(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(values) => ObservationMut::I32(values),
    }
}

impl Bridge {
    fn new(source: &Source, copies: usize) -> Self {
        let (observation, alternatives) = (&source.spec().observation, source.spec().action.choices()[0]);
        let streams = (0..copies).map(|copy| stream(1, Purpose::Environment, [0, 0, copy as u32]));
        let mut random = stream(1, Purpose::Actions, [0; 3]);
        let mut bridge = Self {
            vector: source.make_vector(streams.collect()).expect("copies that play alone"),
            observations: Array::zeros(observation.dtype(), copies * observation.len()),
            actions: (0..ROWS * copies).map(|_| random.random_range(0..alternatives as i32)).collect(),
            finals: Finals(Array::zeros(observation.dtype(), observation.len())),
        };
        bridge.vector.reset(whole(&mut bridge.observations)).expect("the environment works");
        bridge
    }

    fn seconds(&mut self, steps: usize) -> f64 {
        let copies = self.vector.copies();
        let (mut rewards, mut terminated, mut truncated) =
            (vec![0.0; copies], vec![0; copies], vec![0; copies]);
        let start = Instant::now();
        for step in 0..steps {
            let row = step % ROWS * copies;
            let out = VectorStep {
                observations: whole(&mut self.observations),
                rewards: &mut rewards,
                terminated: &mut terminated,
                truncated: &mut truncated,
                final_observations: &mut self.finals,
            };
            let actions = Action::Discrete(&self.actions[row..row + copies]);
            self.vector.step(actions, out).expect("the environment works");
        }
        start.elapsed().as_secs_f64()
    }
}
