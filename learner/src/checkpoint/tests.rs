use std::fs;
use std::path::Path;

use candle_core::Tensor;
use impresario_common::config::OptimizerKind;
use impresario_common::space::Space;
use impresario_common::unroll::Array;

use super::*;
use crate::testing;
use crate::trainer::Trainer;

const ACTION: Space = Space::Discrete { n: 3 };

fn newest(newest: usize) -> Retention {
    Retention { newest, best: 0, every_steps: 0 }
}

fn checkpoint(env_steps: u64) -> Checkpoint {
    let config = testing::config(OptimizerKind::Adam);
    let mut trainer = Trainer::new(&config, &testing::environment(ACTION)).unwrap();
    trainer.train(&testing::batch(&ACTION, env_steps), 0).unwrap();
    trainer.checkpoint(env_steps).unwrap()
}

fn sorted(weights: &Weights) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
    let mut all: Vec<_> =
        weights.0.iter().map(|(name, t)| (name.clone(), t.dims().to_vec(), values(t))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut original = checkpoint(640);
    let extra = Tensor::new(&[1f32, 2.0], &candle_core::Device::Cpu).unwrap();
    original.algorithm.0.push(("critic.bias".into(), extra));
    original.run_id = "a-run".into();
    original.skipped_in_a_row = 3;
    original.experience = vec![
        ("actions".into(), Array::I32(vec![-7, 8])),
        ("observations".into(), Array::U8(vec![1, 2, 255])),
        ("rewards".into(), Array::F32(vec![0.5])),
    ];
    let rollout = |state: &[u8]| Rollout { workers: 2, columns: 8, grant: u64::MAX, state: state.to_vec() };
    original.rollouts = vec![rollout(&[1, 2, 3]), rollout(&[]), rollout(&[4])];
    let mut experience = original.experience.clone();
    let path = save(folder.path(), &original, newest(3)).unwrap();
    assert_eq!(names(folder.path()), ["step-000000000640.safetensors"]);
    let back = load(&path).unwrap();
    assert_eq!((back.policy_version, back.env_steps), (1, 640));
    assert_eq!(back.environment, original.environment);
    assert_eq!(back.config, original.config);
    assert_eq!(back.optimizer.steps, 1);
    assert_eq!(sorted(&back.weights), sorted(&original.weights));
    assert_eq!(sorted(&back.optimizer.moments), sorted(&original.optimizer.moments));
    assert_eq!(sorted(&back.algorithm), sorted(&original.algorithm));
    assert_eq!((back.run_id.as_str(), back.skipped_in_a_row), ("a-run", 3));
    experience.sort_by(|a, b| a.0.cmp(&b.0));
    let mut came_back = back.experience;
    came_back.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(came_back, experience);
    assert_eq!(back.rollouts, original.rollouts);
    assert_eq!(back.actors, original.actors);
}

#[test]
fn any_flipped_bit_and_any_missing_end_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &checkpoint(1), newest(1)).unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(file::decode(&whole).is_ok());
    for at in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(file::decode(&flipped).is_err(), "byte {at} of {}", whole.len());
    }
    for length in (0..whole.len()).step_by(5) {
        assert!(file::decode(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
    }
}

#[test]
fn the_newest_whole_checkpoint_is_found_past_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    for env_steps in [9, 10, 200] {
        save(folder.path(), &checkpoint(env_steps), newest(9)).unwrap();
    }
    let name = |steps: u64| folder.path().join(format!("step-{steps:012}.safetensors"));
    assert_eq!(latest(folder.path()).unwrap().unwrap().1.env_steps, 200);

    let cut = fs::read(name(200)).unwrap();
    fs::write(name(200), &cut[..cut.len() / 2]).unwrap();
    let error = load(&name(200)).unwrap_err().to_string();
    assert!(error.contains("step-000000000200.safetensors is not a whole checkpoint"), "{error}");
    let (path, found) = latest(folder.path()).unwrap().unwrap();
    assert_eq!((path, found.env_steps), (name(10), 10));

    let mut flipped = fs::read(name(10)).unwrap();
    let last = flipped.len() - 1;
    flipped[last] ^= 0x40;
    fs::write(name(10), flipped).unwrap();
    assert!(load(&name(10)).unwrap_err().to_string().contains("its checksum is"));
    assert_eq!(latest(folder.path()).unwrap().unwrap().1.env_steps, 9);

    fs::write(name(9), []).unwrap();
    assert!(latest(folder.path()).unwrap().is_none());
    assert!(latest(&folder.path().join("absent")).unwrap().is_none());
}

#[test]
fn what_a_crash_left_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &checkpoint(5), newest(3)).unwrap();
    fs::write(folder.path().join("step-000000000006.safetensors.unfinished"), b"half").unwrap();
    fs::write(folder.path().join("notes.txt"), b"mine").unwrap();
    assert_eq!(latest(folder.path()).unwrap().unwrap().1.env_steps, 5);
    // The interrupted step comes again, and writes over the remains.
    save(folder.path(), &checkpoint(6), newest(3)).unwrap();
    assert_eq!(
        names(folder.path()),
        ["notes.txt", "step-000000000005.safetensors", "step-000000000006.safetensors"]
    );
}

#[test]
fn the_newest_checkpoints_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for env_steps in [8, 9, 10, 11] {
        save(folder.path(), &checkpoint(env_steps), newest(2)).unwrap();
    }
    assert_eq!(names(folder.path()), ["step-000000000010.safetensors", "step-000000000011.safetensors"]);
}

#[test]
fn the_best_and_those_at_multiples_of_steps_are_kept_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { newest: 1, best: 1, every_steps: 100 };
    let original = checkpoint(0);
    for (env_steps, mean) in [(0, 1.0), (60, 9.0), (110, 3.0), (150, 9.0), (190, 2.0), (230, 4.0), (260, 5.0)]
    {
        let mut here = Checkpoint { env_steps, ..original.clone() };
        (0..100).for_each(|_| here.totals.recent.push((mean, 1)));
        save(folder.path(), &here, retention).unwrap();
    }
    let steps: Vec<u64> =
        paths(folder.path()).unwrap().iter().map(|path| load(path).unwrap().env_steps).collect();
    // 0, 110 and 230 are the first ones in their hundred, 150 is the newer one of the best, 260 the newest.
    assert_eq!(steps, [0, 110, 150, 230, 260]);
}

#[test]
fn a_failed_write_leaves_older_checkpoints_alone() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &checkpoint(1), newest(1)).unwrap();
    // A folder in the way stands for a full disk.
    fs::create_dir(folder.path().join("step-000000000002.safetensors.unfinished")).unwrap();
    let error = save(folder.path(), &checkpoint(2), newest(1)).unwrap_err().to_string();
    assert!(error.starts_with("cannot write"), "{error}");
    assert_eq!(latest(folder.path()).unwrap().unwrap().1.env_steps, 1);
}

#[test]
fn the_writer_writes_what_it_is_handed_before_it_ends() {
    let run_dir = tempfile::tempdir().unwrap();
    let writer = CheckpointWriter::start(run_dir.path(), newest(2)).unwrap();
    for env_steps in [1, 2, 3, 4] {
        writer.submit(checkpoint(env_steps));
    }
    writer.submit_skipped(7, testing::batch(&ACTION, 1));
    assert_eq!(writer.failures(), 0);
    writer.finish().unwrap();
    let newest = latest(&run_dir.path().join("checkpoints")).unwrap().unwrap().1;
    assert_eq!(newest.env_steps, 4);

    let bytes = fs::read(run_dir.path().join("skipped-7.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 11);
    assert_eq!(tensors.tensor("rewards").unwrap().shape(), [4, 3]);
    let final_steps: Vec<u8> = [4i64, 11].iter().flat_map(|step| step.to_le_bytes()).collect();
    assert_eq!(tensors.tensor("final_steps").unwrap().data(), final_steps);
}

#[test]
fn no_milestone_is_left_out_however_many_are_handed_over_at_once() {
    let run_dir = tempfile::tempdir().unwrap();
    let writer = CheckpointWriter::start(run_dir.path(), newest(100)).unwrap();
    let original = checkpoint(0);
    for env_steps in 0..40 {
        writer.submit_milestone(Checkpoint { env_steps, ..original.clone() });
    }
    writer.submit(Checkpoint { env_steps: 40, ..original });
    writer.finish().unwrap();
    let found = paths(&run_dir.path().join("checkpoints")).unwrap();
    let steps: Vec<u64> = found.iter().map(|path| load(path).unwrap().env_steps).collect();
    assert_eq!(steps, (0..=40).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_refuses_is_counted_and_reported_at_the_end() {
    let run_dir = tempfile::tempdir().unwrap();
    fs::write(run_dir.path().join("checkpoints"), b"a file where the folder should be").unwrap();
    let writer = CheckpointWriter::start(run_dir.path(), newest(2)).unwrap();
    writer.submit(checkpoint(1));
    while writer.failures() == 0 {
        std::thread::yield_now();
    }
    // It is still at work.
    fs::remove_file(run_dir.path().join("checkpoints")).unwrap();
    writer.submit(checkpoint(2));
    writer.finish().unwrap();

    fs::remove_dir_all(run_dir.path()).unwrap();
    fs::write(run_dir.path(), b"in the way").unwrap();
    let writer = CheckpointWriter::start(run_dir.path(), newest(2)).unwrap();
    writer.submit(checkpoint(3));
    assert!(writer.finish().unwrap_err().to_string().starts_with("cannot create"));
    fs::remove_file(run_dir.path()).unwrap();
}
