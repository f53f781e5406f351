//! What cannot be made is answered with what to do, and workers that fail are ended and replaced.

use std::time::Duration;

use impresario_actor::env::Recovery;
use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::Environments;
use impresario_common::config::{EnvironmentSection, Wrapper};
use impresario_common::unroll::Array;

use super::{Driver, environments, find, odd, python};

fn refusal(section: &EnvironmentSection) -> String {
    find(section).unwrap_err().to_string()
}

#[test]
fn a_missing_package_is_answered_with_the_line_that_installs_it() {
    let python = python::interpreter().display();
    for (package, requirement) in
        [("surely_missing", "surely_missing"), ("mujoco.surely_missing", "\"gymnasium[mujoco]\"")]
    {
        let said = refusal(&odd("Missing", &format!("package = {package:?}")));
        assert!(said.contains(&format!("{python} -m pip install {requirement}")), "{said}");
    }
    let said = refusal(&EnvironmentSection::new("surely_missing.module:Thing-v0"));
    assert!(said.contains("pip install surely_missing"), "{said}");
}

#[test]
fn a_python_without_gymnasium_is_told_how_to_get_it() {
    let bare = tempfile::tempdir().unwrap();
    python::run(std::process::Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(bare.path()))
        .unwrap();
    let flag = PythonFlag { python: Some(bare.path().join("bin/python")) };
    let bare = Environments::new(Registry::native(), &flag);
    let said = bare.find(&EnvironmentSection::new("gym:CartPole-v1")).unwrap_err().to_string();
    assert!(said.contains("bin/python -m pip install gymnasium"), "{said}");
    assert!(
        bare.find(&EnvironmentSection::new("CartPole-v1")).is_ok(),
        "a native environment needs no Python"
    );
}

#[test]
fn an_interpreter_that_is_not_there_is_named_with_who_chose_it() {
    let flag = PythonFlag { python: Some("/no/such/python".into()) };
    let nowhere = Environments::new(Registry::native(), &flag);
    let said = nowhere.find(&EnvironmentSection::new("LunarLander-v3")).unwrap_err().to_string();
    assert!(said.contains("/no/such/python (chosen by --python or IMPRESARIO_PYTHON)"), "{said}");
    assert!(said.contains("there is no environment \"LunarLander-v3\""), "{said}");
}

#[test]
fn names_that_are_nearly_right_are_put_right() {
    let flag = PythonFlag { python: Some(python::interpreter().into()) };
    let all = Environments::new(Registry::native(), &flag);
    let said = |id: &str| all.find(&EnvironmentSection::new(id)).unwrap_err().to_string();
    assert!(said("CartPoleX-v1").contains("did you mean \"CartPole-v1\"?"), "{}", said("CartPoleX-v1"));
    assert!(said("LunarLandr-v3").contains("did you mean \"LunarLander-v3\"?"), "{}", said("LunarLandr-v3"));
    assert!(said("ALE/Pongg-v5").contains("did you mean \"ALE/Pong-v5\"?"), "{}", said("ALE/Pongg-v5"));
    let twin = EnvironmentSection { max_episode_steps: 9, ..EnvironmentSection::new("CartPole-v1") };
    let said = all.find(&twin).unwrap_err().to_string();
    assert!(
        said.contains("takes no environment.max_episode_steps; gym:CartPole-v1 is Gymnasium's"),
        "{said}"
    );
}

#[test]
fn names_of_old_are_answered_with_those_of_now() {
    let said = |id: &str| refusal(&EnvironmentSection::new(id));
    let pong = said("PongNoFrameskip-v4");
    assert!(pong.contains("`PongNoFrameskip` doesn't exist"), "{pong}");
    assert!(pong.contains("It is ALE/Pong-v5 now; environment.atari says how"), "{pong}");
    assert!(said("Pong-ram-v0").contains("It is ALE/Pong-v5 now, with environment.atari.preprocess=false"));
    // Gymnasium says it itself.
    let lander = said("LunarLander-v2");
    assert!(lander.contains("v2 for `LunarLander` is deprecated. Please use `LunarLander-v3`"), "{lander}");
    assert!(!lander.contains("Traceback") && lander.matches("LunarLander-v3").count() == 1, "{lander}");
    assert!(said("LunarLander-v9").contains("It provides versioned environments: [ `v3` ]"));
    let cheetah = said("HalfCheetah-v2");
    assert!(
        cheetah.contains("HalfCheetah-v5 is its newest version") && !cheetah.contains("Traceback"),
        "{cheetah}"
    );
}

#[test]
fn arguments_that_a_wrapper_does_not_take_are_told_by_python() {
    let mut scaled = Wrapper::from("impresario_test_envs:Scaled");
    scaled.kwargs = "by = 3".parse().unwrap();
    let said = refusal(&EnvironmentSection { wrappers: vec![scaled], ..odd("Counter", "") });
    assert!(said.contains("unexpected keyword argument 'by'"), "{said}");
}

#[test]
fn what_no_policy_can_see_or_do_is_refused_with_the_reason() {
    let said = refusal(&odd("Echo", "observation = \"text\""));
    assert!(said.contains("Text") && said.contains("environment.wrappers"), "{said}");
    let said = refusal(&odd("Echo", "action = \"mixed\""));
    assert!(said.contains("mix choices with real numbers"), "{said}");
    let wrapped =
        EnvironmentSection { wrappers: vec!["impresario_test_envs:Nothing".into()], ..odd("Counter", "") };
    assert!(refusal(&wrapped).contains("has no Nothing"), "{}", refusal(&wrapped));
    let said = refusal(&odd("Counter", "wheels = 4"));
    assert!(said.contains("unexpected keyword argument 'wheels'") && said.contains("Traceback"), "{said}");
}

/// Steps a vector until it fails; what it says, and whether it recovers.
fn fail(section: &EnvironmentSection) -> (String, Driver) {
    let source = find(section).unwrap();
    let mut driver = Driver::new(&source, 2);
    driver.reset().unwrap();
    for _ in 0..10 {
        if let Err(error) = driver.step(&Array::I32(vec![0, 1])) {
            return (error.to_string(), driver);
        }
    }
    panic!("it did not fail")
}

#[test]
fn every_way_to_fail_is_told_with_the_last_words_and_recovered_from() {
    for (how, expected) in [
        ("raise", "RuntimeError: the wheel came off"),
        ("exit", "ended with status 7"),
        ("crash", "was killed by signal 6"),
        ("hang", "did not answer within 0.5 s (environment.step_timeout_seconds)"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("failed");
        let trouble = EnvironmentSection {
            step_timeout_seconds: if how == "hang" { 0.5 } else { 60.0 },
            ..odd("Trouble", &format!("how = {how:?}\nmark = {:?}", mark.display().to_string()))
        };
        let (said, mut driver) = fail(&trouble);
        assert!(said.contains(expected), "{said}");
        assert!(how == "raise" || said.contains(&format!("about to fail: {how}")), "{said}");
        assert!(how != "crash" || said.contains("Fatal Python error"), "{said}");
        assert!(driver.step(&Array::I32(vec![0, 1])).is_err(), "it is of no use before a reset");
        assert_eq!(driver.vector.recover(), Recovery::Possible);
        driver.reset().unwrap();
        for _ in 0..10 {
            driver.step(&Array::I32(vec![0, 1])).unwrap();
        }
    }
}

#[test]
fn a_worker_that_takes_too_long_to_start_is_ended() {
    let hasty = EnvironmentSection { start_timeout_seconds: 0.001, ..odd("Counter", "") };
    let said = refusal(&hasty);
    assert!(said.contains("environment.start_timeout_seconds"), "{said}");
}

/// The Python process of a vector that this test alone has started, by what it runs.
fn workers() -> Vec<u32> {
    let children = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    children
        .flat_map(|task| {
            of_task(task).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[test]
fn a_vector_that_is_dropped_takes_its_process_along() {
    let source = environments().find(&odd("Counter", "")).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut driver = Driver::new(&source, 1);
        driver.reset().unwrap();
        let task = std::fs::read_link("/proc/thread-self").unwrap();
        let mine =
            std::fs::read_to_string(std::path::Path::new("/proc").join(task).join("children")).unwrap();
        drop(driver);
        tell.send(mine.trim().parse::<u32>().unwrap()).unwrap();
    });
    let pid = told.recv_timeout(Duration::from_secs(120)).unwrap();
    assert!(!workers().contains(&pid), "process {pid} is still there");
}
