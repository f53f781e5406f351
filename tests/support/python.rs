//! The Python environments of the tests: made once under target/ from files in `tests/python`, then shared by all.
//!
//! The packages in `tests/python` can be imported there, too.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What an environment is made from: a file in `tests/python` with packages and their versions, and its text. A change of it
/// makes a new environment.
struct Requirements {
    file: &'static str,
    text: &'static str,
}

/// For environments of Gymnasium.
const GYMNASIUM: Requirements =
    Requirements { file: "requirements.txt", text: include_str!("../python/requirements.txt") };

/// For the check of what is in deploy/.
const DEPLOY: Requirements =
    Requirements { file: "deploy-requirements.txt", text: include_str!("../python/deploy-requirements.txt") };

/// The interpreter for environments of Gymnasium.
///
/// # Panics
/// If it cannot be made; the message says what the machine lacks.
pub fn interpreter() -> &'static Path {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    INTERPRETER.get_or_init(|| made(&GYMNASIUM))
}

/// The interpreter for the check of what is in deploy/.
///
/// # Panics
/// As [`interpreter`].
pub fn deploy_interpreter() -> &'static Path {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    INTERPRETER.get_or_init(|| made(&DEPLOY))
}

fn made(requirements: &Requirements) -> PathBuf {
    make(requirements).unwrap_or_else(|problem| panic!("no Python for the tests: {problem}"))
}

/// Makes the environment unless it is there.
fn make(requirements: &Requirements) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = target.join(format!("python-{:08x}", fingerprint(requirements.text)));
    fs::create_dir_all(target).map_err(|e| format!("{}: {e}", target.display()))?;
    let lock = File::create(root.with_extension("lock")).map_err(|e| e.to_string())?;
    // Tests of several files and processes come here at once: one makes it, the others wait.
    lock.lock().map_err(|e| e.to_string())?;
    let (python, done) = (root.join("bin/python"), root.join("complete"));
    if !done.exists() {
        let _ = fs::remove_dir_all(&root);
        let hint = "install python3 and its venv module (Debian and Ubuntu: apt-get install python3-venv)";
        run(Command::new("python3").args(["-m", "venv"]).arg(&root)).map_err(|e| format!("{e}\n{hint}"))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(repository().join("tests/python").join(requirements.file)))?;
        fs::write(&done, "").map_err(|e| e.to_string())?;
    }
    let paths = [repository().join("tests/python"), repository().join("examples/python-environment")];
    let paths: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let site =
        run(Command::new(&python).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))?;
    let link = Path::new(site.trim()).join("impresario_tests.pth");
    if fs::read_to_string(&link).ok().as_ref() != Some(&paths) {
        fs::write(&link, paths).map_err(|e| format!("{}: {e}", link.display()))?;
    }
    Ok(python)
}

/// The repository's root: two packages use this file.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|path| path.join("tests/python/requirements.txt").exists());
    root.expect("the tests lie in the repository").into()
}

/// Runs a command to its end; what it printed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(stdout.into_owned()),
        false => Err(format!("{shown}: {}\n{stdout}{stderr}", output.status)),
    }
}

/// Tells one text from another (FNV-1a).
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
