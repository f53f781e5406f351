//! A plain loop in the worker can be timed for every way in which copies are stepped, and leaves copies that work.

use impresario_common::config::EnvironmentSection;
use impresario_common::random::{Purpose, stream};

use super::{Driver, find, odd, random_actions};

fn alone(section: &EnvironmentSection) {
    let source = find(section).unwrap();
    let mut driver = Driver::new(&source, 3);
    assert!(driver.vector.seconds_alone(1).is_err(), "there are no copies before the first reset");
    driver.reset().unwrap();
    let seconds = driver.vector.seconds_alone(40).unwrap().expect("they step in another process");
    assert!(seconds > 0.0 && seconds.is_finite(), "{}: {seconds}", section.id);
    driver.reset().unwrap();
    let mut random = stream(2, Purpose::Actions, [0; 3]);
    for _ in 0..20 {
        driver.step(&random_actions(&source, 3, &mut random)).unwrap();
    }
}

#[test]
fn copies_are_timed_however_they_are_stepped() {
    for name in ["Counter", "VectorNEXT_STEP", "VectorSAME_STEP", "VectorDISABLED"] {
        alone(&odd(name, ""));
    }
    alone(&EnvironmentSection::new("ALE/Pong-v5"));
    for action in ["shifted", "choices", "bit field", "double", "choice dict", "box tuple"] {
        alone(&odd("Echo", &format!("action = {action:?}")));
    }
}
