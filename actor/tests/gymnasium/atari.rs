//! Atari games as the literature prepares them, against Gymnasium's own `AtariPreprocessing`.

use impresario_common::config::{AtariSection, EnvironmentSection};
use impresario_common::random::{Purpose, stream};
use impresario_common::space::{ElementType, Space};
use serde_json::json;

use super::trajectories::same_as_gymnasium;
use super::{Driver, find, random_actions};

/// A game without random starts, which each implementation draws in its own way.
fn breakout(life_loss: bool) -> EnvironmentSection {
    let atari = AtariSection { noop_max: 0, life_loss, ..AtariSection::default() };
    EnvironmentSection { atari, ..EnvironmentSection::new("ALE/Breakout-v5") }
}

#[test]
fn frames_rewards_and_ends_are_those_of_ataripreprocessing() {
    let plain = json!({
        "kwargs": {"frameskip": 1, "repeat_action_probability": 0.0},
        "atari": {"noop_max": 0, "frame_skip": 4, "screen_size": 84},
    });
    let (terminated, _) = same_as_gymnasium(&breakout(false), plain, 2, 400);
    assert!(terminated >= 2, "{terminated} games ended");
}

#[test]
fn a_lost_life_ends_an_episode_for_learning_while_the_game_goes_on() {
    let wrapped =
        EnvironmentSection { wrappers: vec!["impresario_test_envs:Scaled".into()], ..breakout(true) };
    for (section, scale) in [(breakout(true), 1.0), (wrapped, 10.0)] {
        let (lives, games) = (find(&section).unwrap(), find(&breakout(false)).unwrap());
        let (mut life, mut game) = (Driver::new(&lives, 2), Driver::new(&games, 2));
        life.reset().unwrap();
        game.reset().unwrap();
        let (mut random, mut lost, mut over) = (stream(8, Purpose::Actions, [0; 3]), 0, 0);
        for step in 0..400 {
            let actions = random_actions(&games, 2, &mut random);
            life.step(&actions).unwrap();
            game.step(&actions).unwrap();
            for copy in 0..2 {
                assert_eq!(life.observed(copy), game.observed(copy), "copy {copy} after step {step}");
                assert_eq!(life.rewards[copy], scale * game.rewards[copy]);
                let goes_on = life.vector.goes_on()[copy];
                assert_eq!(
                    life.terminated[copy] - goes_on,
                    game.terminated[copy],
                    "copy {copy} after step {step}"
                );
                lost += u32::from(goes_on);
                over += u32::from(game.terminated[copy]);
            }
        }
        // Five lives, of which the last one ends the game.
        assert!(over >= 2 && lost >= 4 * over && lost < 4 * over + 10, "{lost} lives and {over} games");
    }
}

#[test]
fn the_options_reach_the_emulator() {
    let spec = |section: &EnvironmentSection| find(section).unwrap().spec().clone();
    let grey = spec(&EnvironmentSection::new("ALE/Pong-v5"));
    assert_eq!((grey.observation.shape(), grey.observation.dtype()), (vec![84, 84], ElementType::U8));
    assert_eq!(grey.action, Space::Discrete { n: 6 });
    let atari =
        AtariSection { full_action_set: true, grayscale: false, screen_size: 64, ..AtariSection::default() };
    let coloured = spec(&EnvironmentSection { atari, ..EnvironmentSection::new("ALE/Pong-v5") });
    assert_eq!((coloured.observation.shape(), coloured.action), (vec![64, 64, 3], Space::Discrete { n: 18 }));
    let atari = AtariSection { preprocess: false, ..AtariSection::default() };
    let raw = spec(&EnvironmentSection { atari, ..EnvironmentSection::new("ALE/Pong-v5") });
    assert_eq!(raw.observation.shape(), [210, 160, 3]);
}
