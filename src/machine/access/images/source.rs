//! The source of an image archive: a file, standard input, or a tool that has the image and saves it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    task::JoinHandle,
};

use crate::machine::error::ImagesError;

/// The tools that are asked for an image, in this order. All of them accept these arguments.
pub(crate) const TOOLS: [&str; 3] = ["docker", "podman", "nerdctl"];

/// A source of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `-`.
    Input,
    /// An archive.
    File(PathBuf),
    /// An image of a tool.
    Image(String),
}

impl Source {
    /// Parses a source: an existing file is a file, and so is everything that looks like a path.
    pub fn of(text: &str) -> Self {
        let path = Path::new(text);
        let looks = text.starts_with(['/', '.', '~'])
            || [".tar", ".tgz", ".gz", ".zst"]
                .iter()
                .any(|end| text.ends_with(end));
        match text {
            "-" => Self::Input,
            _ if looks || path.is_file() => Self::File(path.to_owned()),
            _ => Self::Image(text.to_owned()),
        }
    }

    /// The source in messages.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Input => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Image(reference) => reference.clone(),
        }
    }

    /// Opens the source.
    pub(crate) async fn open(&self) -> Result<Opened, ImagesError> {
        match self {
            Self::Input => Ok(Opened::of(io::stdin(), None)),
            Self::File(path) => file(path).await,
            Self::Image(reference) => saved(reference).await,
        }
    }
}

/// An archive that is being read.
pub(crate) struct Opened {
    pub(crate) reader: Box<dyn Read + Send>,
    /// The size in bytes, if known.
    pub(crate) size: Option<u64>,
    saving: Saving,
}

impl Opened {
    fn of(reader: impl Read + Send + 'static, size: Option<u64>) -> Self {
        Self {
            reader: Box::new(reader),
            size,
            saving: Saving(None),
        }
    }

    /// Takes the tool that saves the image, to check its exit code after reading.
    pub(crate) fn tool(&mut self) -> Saving {
        std::mem::replace(&mut self.saving, Saving(None))
    }
}

/// A running tool and its messages. Dropping it ends the tool.
pub(crate) struct Saving(Option<(&'static str, Child, JoinHandle<Vec<u8>>)>);

impl Saving {
    /// Waits for the tool to end.
    pub(crate) async fn ended(self) -> Result<(), ImagesError> {
        let Some((tool, mut child, said)) = self.0 else {
            return Ok(());
        };
        match child.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(ImagesError::Save {
                tool,
                said: last_line(&said.await.unwrap_or_default()),
            }),
            Err(source) => Err(ImagesError::Unreadable {
                what: tool.to_owned(),
                source,
            }),
        }
    }
}

async fn file(path: &Path) -> Result<Opened, ImagesError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImagesError::NoFile(path.to_owned()),
        _ => ImagesError::Unreadable {
            what: path.display().to_string(),
            source,
        },
    };
    // Opening a named pipe waits for its writer; signals are handled meanwhile.
    let named = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || File::open(named)).await;
    let file = opened
        .expect("neither panics nor is cancelled")
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(ImagesError::Directory(path.to_owned()));
    }
    // A named pipe has no size.
    let size = metadata.is_file().then_some(metadata.len());
    Ok(Opened::of(file, size))
}

/// The image from the first tool that has it.
async fn saved(reference: &str) -> Result<Opened, ImagesError> {
    let mut said = Vec::new();
    for tool in TOOLS {
        let asked = Command::new(tool)
            .args(["image", "inspect", "--", reference])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match asked {
            Ok(output) if output.status.success() => return save(tool, reference),
            Ok(output) => said.push(format!("{tool}: {}", last_line(&output.stderr))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => said.push(format!("{tool}: {error}")),
        }
    }
    let reference = reference.to_owned();
    Err(match said.is_empty() {
        true => ImagesError::NoTool { reference },
        false => ImagesError::Unknown { reference, said },
    })
}

fn save(tool: &'static str, reference: &str) -> Result<Opened, ImagesError> {
    let unreadable = |source| ImagesError::Unreadable {
        what: format!("{reference} from {tool}"),
        source,
    };
    let mut child = Command::new(tool)
        .args(["save", "--", reference])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(unreadable)?;
    let output = child.stdout.take().expect("piped");
    let output = output.into_owned_fd().map_err(unreadable)?;
    let mut errors = child.stderr.take().expect("piped");
    // Read at once, or a tool that prints much would block.
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = errors.read_to_end(&mut said).await;
        said
    });
    let mut opened = Opened::of(File::from(output), None);
    opened.saving = Saving(Some((tool, child, said)));
    Ok(opened)
}

pub(crate) fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("without a word").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_distinguished() {
        assert_eq!(Source::of("-"), Source::Input);
        assert_eq!(Source::of("Cargo.toml"), Source::File("Cargo.toml".into()));
        for path in ["./app", "/tmp/app", "app.tar", "app.tar.gz", "app.tar.zst"] {
            assert_eq!(Source::of(path), Source::File(path.into()));
        }
        // A directory of that name is not meant.
        for name in ["src", "app:1.2", "registry.example.org/team/app"] {
            assert_eq!(Source::of(name), Source::Image(name.to_owned()));
        }
    }
}
