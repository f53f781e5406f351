//! How fast networks that see pixels learn and act.
//!
//! `cargo bench -p impresario-learner --bench pixels -- [nature|residual] [THREADS] [REPEATS] [LIBRARY]` times whole updates as a learner
//! makes them: a batch of T 20 x B 32 single frames of 84 x 84 bytes, stacked by four, V-trace over 21 rows, gradients clipped to norm 40,
//! RMSProp; and inference as actors do it. The networks are the Nature CNN (Mnih et al. 2015) and
//! IMPALA's residual network (Espeholt et al. 2018), with six actions. Without arguments it is both networks, two threads, nine updates.
//!
//! Rates are set beside the machine's product of 2048 x 2048 matrices in the same run: the faster of our own kernel and
//! candle's. With a fourth argument, a library that has BLAS's `sgemm_` (such as PyTorch's `libtorch_cpu.so`), its product of the same matrices
//! is timed before and after every update instead, and the medians of both rates and of their ratio are told, with quartiles: on a
//! machine whose speed changes from second to second nothing else can be compared. Set `OMP_NUM_THREADS` for it, and `OMP_WAIT_POLICY=passive`,
//! without which its threads would go on spinning. Products are counted as others count them: two operations each, backward twice as many as forward, no gradient of
//! the first layer's images. CPU time is that of all threads; it is less moved than wall time by what else runs on the machine.

use std::time::Instant;

use candle_core::{Device, Tensor};
use impresario_common::config::{
    AlgorithmConfig, EncoderKind, ImpalaConfig, LossReduction, OptimizerKind, RunConfig,
};
use impresario_common::kernels::{Activation, linear_into, set_threads};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use impresario_learner::batch::Batch;
use impresario_learner::trainer::Trainer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The binaries' allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// T: steps of a column.
const STEPS: usize = 20;
/// B.
const COLUMNS: usize = 32;
/// Frames that the network sees at once.
const STACK: usize = 4;
/// Height and width of a frame.
const SIDE: usize = 84;
const ACTIONS: usize = 6;
/// Sides of the matrices that rates are compared with.
const MATRIX: usize = 2048;

fn main() {
    // Cargo says `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let number = |at: usize, usual: usize| {
        arguments.get(at).map_or(usual, |text| match text.parse() {
            Ok(number) if number > 0 => number,
            _ => usage(),
        })
    };
    let networks = match arguments.first().map(String::as_str) {
        None => vec![EncoderKind::Nature, EncoderKind::Residual],
        Some("nature") => vec![EncoderKind::Nature],
        Some("residual") => vec![EncoderKind::Residual],
        Some(_) => usage(),
    };
    let (threads, repeats) = (number(1, 2), number(2, 9));
    impresario_common::process::limit_threads(threads);
    set_threads(threads);

    if let Some(library) = arguments.get(3) {
        return networks.into_iter().for_each(|network| compare(network, repeats, library));
    }
    let machine = product_rate();
    println!("{threads} threads; product of {MATRIX} x {MATRIX}: {machine:.0} GFLOP/s");
    for network in networks {
        update(network, repeats, machine);
        inference(network, repeats);
    }
}

fn usage() -> ! {
    eprintln!("usage: pixels [nature|residual] [THREADS] [REPEATS] [LIBRARY]");
    std::process::exit(64)
}

/// What runs of a piece of work took.
struct Times {
    /// Wall milliseconds, ascending.
    wall: Vec<f64>,
    /// Mean CPU milliseconds of all threads.
    cpu: f64,
}

impl Times {
    /// Does `work` three times, then `repeats` times against the clock.
    fn of(repeats: usize, mut work: impl FnMut()) -> Self {
        (0..3).for_each(|_| work());
        let before = cpu_seconds();
        let once = |_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64() * 1e3
        };
        let mut wall: Vec<f64> = (0..repeats).map(once).collect();
        wall.sort_by(f64::total_cmp);
        Self { cpu: (cpu_seconds() - before) * 1e3 / repeats as f64, wall }
    }

    fn median(&self) -> f64 {
        self.wall[self.wall.len() / 2]
    }
}

/// CPU time of this process's threads so far, in seconds; NaN where the system doesn't tell.
fn cpu_seconds() -> f64 {
    // Ticks of a hundredth of a second in user and system mode are fields 14 and 15, the 12th and 13th behind the name.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    if ticks.len() == 2 { (ticks[0] + ticks[1]) / 100.0 } else { f64::NAN }
}

/// GFLOP/s of the faster of two products of large matrices.
fn product_rate() -> f64 {
    let numbers: Vec<f32> = (0..MATRIX * MATRIX).map(|i| (i % 1009) as f32 / 504.5 - 1.0).collect();
    let (bias, mut out) = (vec![0.0; MATRIX], vec![0.0; MATRIX * MATRIX]);
    let ours = Times::of(9, || {
        linear_into(&numbers, MATRIX, &numbers, &bias, Activation::Identity, &mut out);
    });
    let tensor = Tensor::from_slice(&numbers, (MATRIX, MATRIX), &Device::Cpu).expect("the shape fits");
    let candles = Times::of(9, || drop(tensor.matmul(&tensor).expect("the shapes fit")));
    let rate = |times: &Times| 2.0 * (MATRIX as f64).powi(3) / times.median() / 1e6;
    rate(&ours).max(rate(&candles))
}

/// The product of matrices of BLAS, as Fortran calls it: every argument by its address.
type Sgemm = unsafe extern "C" fn(
    *const u8,
    *const u8,
    *const i32,
    *const i32,
    *const i32,
    *const f32,
    *const f32,
    *const i32,
    *const f32,
    *const i32,
    *const f32,
    *mut f32,
    *const i32,
);

/// Times updates in turns with the product that `library` has.
fn compare(network: EncoderKind, repeats: usize, library: &str) {
    // SAFETY: whoever names a library wants what it does when it is loaded.
    let library = unsafe { libloading::Library::new(library) }.expect("the library can be loaded");
    // SAFETY: BLAS has had this function since 1990.
    let sgemm = unsafe { library.get::<Sgemm>(b"sgemm_") }.expect("the library has sgemm_");
    let numbers: Vec<f32> = (0..MATRIX * MATRIX).map(|i| (i % 1009) as f32 / 504.5 - 1.0).collect();
    let mut out = vec![0.0; MATRIX * MATRIX];
    let (side, as_it_is, one, zero) = (MATRIX as i32, b"N".as_ptr(), 1.0, 0.0);
    let mut product = || {
        let (a, c) = (numbers.as_ptr(), out.as_mut_ptr());
        let begun = Instant::now();
        // SAFETY: three square matrices of `side` rows, which lie without gaps.
        unsafe {
            sgemm(as_it_is, as_it_is, &side, &side, &side, &one, a, &side, a, &side, &zero, c, &side);
        }
        begun.elapsed().as_secs_f64()
    };
    let (mut trainer, batch) = (trainer(network), batch());
    let mut update = || {
        let begun = Instant::now();
        trainer.train(&batch, 0).expect("the batch fits");
        begun.elapsed().as_secs_f64()
    };
    for _ in 0..3 {
        product();
        update();
    }
    let of_products = 2.0 * (MATRIX as f64).powi(3) / 1e9;
    let turn = |_| {
        let (before, update, after) = (product(), update(), product());
        (gflop(network) / update, 2.0 * of_products / (before + after))
    };
    let turns: Vec<(f64, f64)> = (0..repeats).map(turn).collect();
    let told = |name: &str, of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut numbers: Vec<f64> = turns.iter().map(of).collect();
        numbers.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| numbers[(repeats - 1) * quarter / 4]);
        println!("{network}: {name} {median:.2} ({low:.2} to {high:.2})");
    };
    told("update, GFLOP/s", &|turn| turn.0);
    told("the library's product, GFLOP/s", &|turn| turn.1);
    told("ratio", &|turn| turn.0 / turn.1);
}

fn trainer(network: EncoderKind) -> Trainer {
    Trainer::new(&config(network), &environment()).expect("there is a policy for these spaces")
}

/// Billions of operations of an update.
fn gflop(network: EncoderKind) -> f64 {
    let rows = ((STEPS + 1) * COLUMNS) as f64;
    let (first, rest) = products(network);
    2.0 * rows * (2.0 * first + 3.0 * rest) / 1e9
}

fn update(network: EncoderKind, repeats: usize, machine: f64) {
    let (mut trainer, batch, gflop) = (trainer(network), batch(), gflop(network));
    let times = Times::of(repeats, || {
        trainer.train(&batch, 0).expect("the batch fits");
    });
    let rate = gflop / times.median() * 1e3;
    println!(
        "{network}: update {:.1} ms (least {:.1}; CPU {:.0}), {gflop:.1} GFLOP at {rate:.0} GFLOP/s, {:.0}% of the product",
        times.median(),
        times.wall[0],
        times.cpu,
        100.0 * rate / machine
    );
}

fn inference(network: EncoderKind, repeats: usize) {
    let config = config(network);
    let spec = PolicySpec::of_run(&config, &environment()).expect("there is a policy for these spaces");
    let weights = spec.initialise(1).expect("weights fit into memory");
    let policy = Policy::new(&spec, &weights).and_then(Policy::packed).expect("the weights are the policy's");
    for copies in [1, 16, 64] {
        let bytes = bytes(copies * STACK * SIDE * SIDE);
        let times = Times::of(10 * repeats, || {
            let seen = Tensor::from_slice(&bytes, (copies, STACK, SIDE, SIDE), &Device::Cpu)
                .expect("the shape fits");
            drop(policy.act(&seen, &mut []).expect("the observations fit"));
        });
        println!(
            "{network}: inference of {copies}: {:.3} ms (least {:.3}; CPU {:.3})",
            times.median(),
            times.wall[0],
            times.cpu
        );
    }
}

/// Multiplications for a row, of the layer that sees the image and of all others.
fn products(network: EncoderKind) -> (f64, f64) {
    let spec =
        PolicySpec::of_run(&config(network), &environment()).expect("there is a policy for these spaces");
    let first = match network {
        EncoderKind::Nature => 20 * 20 * 32 * 8 * 8 * STACK,
        _ => SIDE * SIDE * 16 * 3 * 3 * STACK,
    };
    let heads = spec.encoder().outputs() * (ACTIONS + 1);
    (first as f64, (spec.encoder().products() as usize + heads - first) as f64)
}

fn config(network: EncoderKind) -> RunConfig {
    let mut config = RunConfig::default();
    config.environment.frame_stack = STACK;
    config.policy.encoder = network;
    let impala = ImpalaConfig { loss_reduction: LossReduction::Sum, ..ImpalaConfig::default() };
    config.algorithm = AlgorithmConfig::Impala(impala);
    config.optimizer.kind = OptimizerKind::RmsProp;
    config.optimizer.learning_rate = 4.8e-4;
    config.optimizer.epsilon = 0.01;
    config.optimizer.max_grad_norm = 40.0;
    config
}

fn environment() -> EnvironmentSpec {
    let (low, high) = (vec![0.0; SIDE * SIDE], vec![255.0; SIDE * SIDE]);
    let frame = Space::Box { low, high, shape: vec![SIDE, SIDE], dtype: ElementType::U8 };
    EnvironmentSpec::new("Benchmark-v0", frame, Space::Discrete { n: ACTIONS as u32 })
}

fn bytes(count: usize) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..count).map(|_| random.random()).collect()
}

fn batch() -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let steps = STEPS * COLUMNS;
    Batch {
        length: STEPS,
        columns: COLUMNS,
        observations: Array::U8(bytes((STEPS + 1) * COLUMNS * SIDE * SIDE)),
        frame_stack: STACK,
        history: Array::U8(bytes((STACK - 1) * COLUMNS * SIDE * SIDE)),
        actions: Array::I32((0..steps).map(|_| random.random_range(0..ACTIONS as i32)).collect()),
        rewards: (0..steps).map(|_| random.random::<f32>() * 2.0 - 1.0).collect(),
        terminated: vec![0; steps],
        truncated: vec![0; steps],
        behaviour_log_probs: vec![-1.8; steps],
        final_steps: vec![],
        action_masks: vec![],
        core_states: vec![],
        policy_versions: vec![0; COLUMNS],
    }
}
