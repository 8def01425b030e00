//! The control file, from both sides.

use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

/// Names the control file to the module.
const CONTROL: &str = "HSM_FAULTS";

/// A test's hand on the module.
#[derive(Debug)]
pub struct Faults {
    control: PathBuf,
}

impl Faults {
    /// Faults that are kept in `directory`. There are none yet.
    pub fn new(directory: &Path) -> Self {
        let faults = Self {
            control: directory.join("faults"),
        };
        faults.set("");
        faults
    }

    /// The module, as cargo has built it beside the test.
    pub fn module() -> PathBuf {
        let test = env::current_exe().expect("a test knows its own program");
        let directory = test.parent().expect("a program is in a directory");
        let here = directory.join("libhsm_faults.so");
        if here.exists() {
            here
        } else {
            directory.join("deps/libhsm_faults.so")
        }
    }

    /// What must be in the environment of the process that loads the module.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        (CONTROL, self.control.clone())
    }

    /// From now on, this goes wrong: a fault a line.
    pub fn set(&self, faults: &str) {
        let next = self.control.with_extension("next");
        fs::write(&next, faults).expect("the control file can be written");
        fs::rename(&next, &self.control).expect("the control file can be replaced");
    }

    /// How often a function was called, `login` or `sign`, and how often a fault has `struck`.
    pub fn calls(&self, function: &str) -> usize {
        let noted = fs::read_to_string(notes(&self.control)).unwrap_or_default();
        noted.lines().filter(|line| *line == function).count()
    }
}

fn notes(control: &Path) -> PathBuf {
    control.with_extension("calls")
}

/// What goes wrong in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Hang,
    Crash,
    Wrong,
    Logout,
    Locked,
    FinalTry,
    Slow(u64),
    Return(u64),
}

/// How often each line of each version of the file has struck in this process.
static STRUCK: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

/// Notes a call.
pub(crate) fn note(function: &str) {
    let Some(control) = env::var_os(CONTROL) else { return };
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(notes(Path::new(&control)));
    if let Ok(mut file) = file {
        let _ = file.write_all(format!("{function}\n").as_bytes());
    }
}

/// What goes wrong in this call of `function`, with the key of this identifier. A fault that strikes a number of times is counted only if
/// it `wanted`.
pub(crate) fn fault(function: &str, id: &[u8], wanted: impl Fn(Fault) -> bool) -> Option<Fault> {
    let control = env::var_os(CONTROL)?;
    let mut file = fs::File::open(control).ok()?;
    let metadata = file.metadata().ok()?;
    // Each time that faults are set, they are counted anew.
    let version = format!("{} {} {}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let fault = text
        .lines()
        .find_map(|line| strikes(line, &version, function, id, &wanted))?;
    note("struck");
    Some(fault)
}

fn strikes(line: &str, version: &str, function: &str, id: &[u8], wanted: impl Fn(Fault) -> bool) -> Option<Fault> {
    let mut words = line.split_whitespace();
    if words.next() != Some(function) {
        return None;
    }
    let fault = parse(words.next()?)?;
    if !wanted(fault) {
        return None;
    }
    let mut times = None;
    for word in words {
        match word.split_once('=')? {
            ("id", wanted) if wanted != hexadecimal(id) => return None,
            ("id", _) => {}
            ("times", number) => times = Some(number.parse::<u64>().ok()?),
            _ => return None,
        }
    }
    let mut struck = STRUCK.lock().unwrap_or_else(PoisonError::into_inner);
    let count = struck.entry(format!("{version} {line}")).or_default();
    if times.is_some_and(|times| *count >= times) {
        return None;
    }
    *count += 1;
    Some(fault)
}

fn parse(word: &str) -> Option<Fault> {
    Some(match word {
        "hang" => Fault::Hang,
        "crash" => Fault::Crash,
        "wrong" => Fault::Wrong,
        "logout" => Fault::Logout,
        "locked" => Fault::Locked,
        "final-try" => Fault::FinalTry,
        _ => match word.split_once('=')? {
            ("slow", milliseconds) => Fault::Slow(milliseconds.parse().ok()?),
            ("return", value) => Fault::Return(u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()?),
            _ => return None,
        },
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_strikes_its_function_its_key_and_so_often() {
        let line = "sign return=0x30 id=01ff times=2";
        let strikes = |function, id: &[u8]| strikes(line, "1", function, id, |_| true);
        assert_eq!(strikes("login", &[1, 255]), None);
        assert_eq!(strikes("sign", &[1]), None);
        assert_eq!(strikes("sign", &[1, 255]), Some(Fault::Return(0x30)));
        assert_eq!(strikes("sign", &[1, 255]), Some(Fault::Return(0x30)));
        assert_eq!(strikes("sign", &[1, 255]), None);
    }
}
