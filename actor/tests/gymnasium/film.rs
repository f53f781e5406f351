//! Environments that draw themselves are filmed, and those that do not are refused.

use impresario_actor::env::picture::Picture;
use impresario_common::config::EnvironmentSection;
use impresario_common::random::{Purpose, stream};

use super::{Driver, find, odd, random_actions};

/// Films the first of two copies to the end of an episode of either: pictures at the reset, and after each step.
fn filmed(id: &str, steps: usize) -> Vec<Vec<Picture>> {
    let source = find(&EnvironmentSection::new(id)).unwrap();
    let (mut driver, mut random) = (Driver::new(&source, 2), stream(3, Purpose::Actions, [0; 3]));
    driver.vector.film().unwrap();
    driver.reset().unwrap();
    let mut taken = vec![driver.vector.take_pictures()];
    for _ in 0..steps {
        driver.step(&random_actions(&source, 2, &mut random)).unwrap();
        taken.push(driver.vector.take_pictures());
        let ended = driver.terminated[0] | driver.truncated[0] == 1;
        assert_eq!(taken[taken.len() - 1].len(), 1 + usize::from(ended));
    }
    taken
}

#[test]
fn an_episode_is_filmed_from_its_first_state_to_its_last() {
    let taken = filmed("gym:CartPole-v1", 60);
    assert_eq!(taken[0].len(), 1, "the reset");
    assert!(
        taken.iter().any(|pictures| pictures.len() == 2),
        "an end, and the beginning of the next episode"
    );
    let all: Vec<&Picture> = taken.iter().flatten().collect();
    assert_eq!((all[0].width(), all[0].height(), all[0].seconds()), (600, 400, 0.02));
    assert!(all.windows(2).any(|pair| pair[0].pixels() != pair[1].pixels()), "nothing moves");
}

#[test]
fn a_game_of_the_emulator_is_filmed_as_it_looks_not_as_it_is_seen() {
    let taken = filmed("ALE/Breakout-v5", 5);
    let picture = &taken[5][0];
    assert_eq!((picture.width(), picture.height()), (160, 210));
    assert!((picture.seconds() - 4.0 / 60.0).abs() < 1e-9);
    assert!(picture.pixels().chunks_exact(3).any(|pixel| pixel[0] != pixel[1]), "it has colours");
}

#[test]
fn an_environment_that_does_not_draw_itself_is_refused() {
    for (name, expected) in [
        ("Counter", "does not draw itself: its render_modes are [], without rgb_array"),
        ("VectorNEXT_STEP", "comes as a vector of copies only, which does not draw itself"),
    ] {
        let mut driver = Driver::new(&find(&odd(name, "")).unwrap(), 1);
        let said = driver.vector.film().unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}
