//! Why pretrained weights could not be taken over.

use std::fmt;
use std::path::PathBuf;

/// How many tensors of a kind an error names.
const SHOWN: usize = 5;

/// Why pretrained weights could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file could not be read.
    #[error("{}: the weights cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is a pickle of PyTorch, which could run any program.
    #[error(
        "{}: is a pickle of PyTorch, which can run any program when it is read. Convert it once, where PyTorch is:\n  {}",
        path.display(),
        conversion(path)
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or damaged.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor's numbers cannot be used.
    #[error("{}: tensor {tensor:?}: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No tensor has a name that the model knows.
    #[error(
        "{}: none of its tensors has a name that the model's layers have{}: it holds {} …{}",
        path.display(),
        of_model(model),
        examples.join(", "),
        resembles(looks_like)
    )]
    OtherNames {
        /// The file.
        path: PathBuf,
        /// The architecture and whose names, where that is known.
        looks_like: Option<(String, String)>,
        /// The model's architecture; empty where it is not known.
        model: String,
        /// Some of the names.
        examples: Vec<String>,
    },
    /// Some tensors fit and some do not.
    #[error("{}: the weights do not fit the model{}: {mismatch}{}", path.display(), of_model(model), resembles(looks_like))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The architecture and whose names, where that is known.
        looks_like: Option<(String, String)>,
        /// The model's architecture; empty where it is not known.
        model: String,
        /// What does not fit.
        mismatch: Box<Mismatch>,
    },
}

/// The tensors that do not fit a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors that the model needs and the file lacks, with the parameters they are for.
    pub missing: Vec<String>,
    /// Tensors that the model has no use for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape, with what was expected and what was found.
    pub shapes: Vec<String>,
}

impl Mismatch {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: [(&Vec<String>, &str); 3] =
            [(&self.missing, "missing"), (&self.unexpected, "not expected"), (&self.shapes, "of another shape")];
        let present = || counts.iter().filter(|(names, _)| !names.is_empty());
        let totals: Vec<String> = present().map(|(names, what)| format!("{} {what}", names.len())).collect();
        write!(f, "{}", totals.join(", "))?;
        for (names, what) in present() {
            write!(f, "\n  {what}: {}", names[..names.len().min(SHOWN)].join(", "))?;
            if names.len() > SHOWN {
                write!(f, " and {} more", names.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

fn of_model(model: &str) -> String {
    if model.is_empty() { String::new() } else { format!(" ({model})") }
}

fn resembles(looks_like: &Option<(String, String)>) -> String {
    match looks_like {
        Some((architecture, origin)) => format!("\nThe file looks like {architecture} with the names of {origin}"),
        None => String::new(),
    }
}

/// A line for a shell that makes a safetensors file of a pickle.
fn conversion(path: &std::path::Path) -> String {
    let name = path.to_string_lossy().replace(['\'', '"', '\\', '\n', '$', '`'], "?");
    let target = path.with_extension("safetensors").to_string_lossy().replace(['\'', '"', '\\', '\n', '$', '`'], "?");
    format!(
        "python -c \"import torch; from safetensors.torch import save_file; \
         s = torch.load('{name}', map_location='cpu', weights_only=True); s = s.get('state_dict', s); \
         save_file({{k: v.clone().contiguous() for k, v in s.items()}}, '{target}')\""
    )
}
