//! Running the tools, each in a directory of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A directory in which tools are run and leave their files.
pub struct Workshop(TempDir);

impl Workshop {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn write(&self, file: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(file), contents).expect("a file in the temporary directory");
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Runs a command line (split at spaces) and gives what it wrote to standard output. Panics with everything it said if it failed.
    pub fn run(&self, line: &str) -> String {
        self.run_with(line, &[])
    }

    /// The same, with more arguments that may have spaces.
    pub fn run_with(&self, line: &str, more: &[&str]) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        let output = Command::new(program)
            .args(words)
            .args(more)
            .current_dir(self.0.path())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program} is missing ({error}): run tests/run"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{line} {more:?}\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a Python program with the interpreter of the tests' own environment.
    pub fn python(&self, program: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python =
            std::env::var_os("BULKHEAD_PYTHON").map_or_else(|| root.join("tests/.venv/bin/python"), PathBuf::from);
        assert!(python.exists(), "{} is missing: run tests/run", python.display());
        self.write("program.py", program);
        self.run(&format!("{} program.py", python.display()))
    }
}
