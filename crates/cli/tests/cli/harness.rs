//! A temporary folder to run `ocellus` in, and what came of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ocellus::report::image_png;
use tempfile::TempDir;

/// A folder that is gone when the test is over.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("to make it");
        fs::write(path, bytes).expect("to write a file");
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// A grey image: bright above where `above`, else below.
    pub(crate) fn image(&self, name: &str, above: bool, noise: u8) {
        let bright = |at: usize| (at < 6 * 12) == above;
        let pixels: Vec<u8> =
            (0..12 * 12).map(|at| if bright(at) { 255 - noise } else { noise + (at % 5) as u8 }).collect();
        self.write(name, image_png(&pixels, [12, 12, 1]).expect("a grey image"));
    }

    /// A folder of two classes, so many images each.
    pub(crate) fn photos(&self, folder: &str, count: u8) {
        for number in 0..count {
            self.image(&format!("{folder}/above/{number}.png"), true, number * 3);
            self.image(&format!("{folder}/below/{number}.png"), false, number * 3);
        }
    }

    /// A model that was trained on `photos`, in `run/model.safetensors`.
    pub(crate) fn trained(&self) {
        self.photos("photos", 10);
        self.run("train photos --epochs 2 --batch-size 4 --learning-rate 0.01 --output run").succeeds();
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ocellus"));
        command.args(line.split_whitespace()).current_dir(self.folder.path()).env_remove("OCELLUS_DATA");
        command
    }

    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    /// As `run`, with these environment variables.
    pub(crate) fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Run {
        let output = self.command(line).envs(variables.iter().copied()).output().expect("to start ocellus");
        Run { line: line.into(), output }
    }
}

/// What came of a run.
pub(crate) struct Run {
    line: String,
    output: Output,
}

impl Run {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("text")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("text")
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        let Self { line, output } = &self;
        assert_eq!(output.status.code(), Some(code), "ocellus {line}\n{}{}", self.stdout(), self.stderr());
        assert!(!self.stderr().contains("panicked"), "ocellus {line}\n{}", self.stderr());
        self
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.code(0)
    }

    /// Ends with this code and one message that has all of these parts.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        let run = self.code(code);
        let stderr = run.stderr();
        assert_eq!(stderr.matches("error: ").count(), 1, "ocellus {}\n{stderr}", run.line);
        for part in parts {
            assert!(stderr.contains(part), "ocellus {}: expected {part:?}\n{stderr}", run.line);
        }
        run
    }

    /// The result for programs.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|error| panic!("{error}: {}", self.stdout()))
    }
}

/// The names of what is in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
