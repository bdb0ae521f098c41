//! The surroundings of a command: the project, the VM's given name, the shared cache.

use std::{
    env,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use crate::{
    base::{Name, files::expand_home, trust},
    cli::{error::CommandError, global::Global},
    machine::{self, Machine, MachineError},
    project::Project,
};

/// Requires a VM, so that a command creates nothing in a project without one.
pub(crate) fn require_machine(context: &Context) -> Result<(), CommandError> {
    match machine::State::observe(&context.project)? {
        machine::State::Absent => Err(machine::MachineError::absent(&context.project).into()),
        _ => Ok(()),
    }
}

/// The project, the cache and the choices that a command runs with.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) project: Project,
    pub(crate) cache: PathBuf,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self, CommandError> {
        let directory = global.directory.as_deref().unwrap_or(Path::new("."));
        let start = std::fs::canonicalize(directory).map_err(|error| {
            CommandError::new(format!(
                "the directory {} does not exist",
                directory.display()
            ))
            .because(&error)
        })?;
        let alias = global.machine.clone().and_then(|which| which.0);
        let home = env::home_dir().and_then(|it| it.canonicalize().ok());
        let project = Project::discover(&start, home.as_deref());
        // Checked before anything in it is read: another user may have created it above a shared directory.
        trust::require_own_dir(&project.own_directory())
            .map_err(|error| CommandError::from(MachineError::from(error)))?;
        Ok(Self {
            project: project.with(alias),
            cache: cache_root()?,
        })
    }

    /// The VM, locked for `verb`.
    pub(crate) async fn open(self, verb: &str) -> Result<Machine, CommandError> {
        let name = chosen_name()?;
        Ok(Machine::open(self.project, name, self.cache, verb).await?)
    }
}

/// The VM's name from `K3S_VM_NAME`, or from `VM_NAME`, which other programs may use as well.
pub(crate) fn chosen_name() -> Result<Option<Name>, CommandError> {
    let of = |variable: &'static str| {
        let value = env::var_os(variable).filter(|it| !it.is_empty())?;
        Some((variable, value))
    };
    let Some((variable, value)) = of("K3S_VM_NAME").or_else(|| of("VM_NAME")) else {
        return Ok(None);
    };
    let name = value.to_string_lossy().parse::<Name>();
    name.map(Some).map_err(|error| {
        CommandError::new(format!("{variable}: {error}"))
            .hint(format!("unset {variable}, or give it another value"))
    })
}

fn homeless() -> CommandError {
    CommandError::new("there is no home directory for the cache")
        .hint("set HOME, or K3S_VM_CACHE_DIR to a directory of yours")
}

/// `K3S_VM_CACHE_DIR`, else `k3s-vm` in the XDG cache directory. A relative `XDG_CACHE_HOME` counts as unset, as its
/// specification says. Without `HOME`, the user database has the home directory.
fn cache_root() -> Result<PathBuf, CommandError> {
    let absolute = |path: PathBuf| {
        std::path::absolute(expand_home(&path)).map_err(|error| {
            CommandError::new(format!("invalid cache directory {}", path.display())).because(&error)
        })
    };
    match env::var_os("K3S_VM_CACHE_DIR") {
        Some(path) if !path.is_empty() => absolute(path.into()),
        _ => match etcetera::choose_base_strategy() {
            Ok(strategy) if strategy.home_dir().is_absolute() => {
                Ok(strategy.cache_dir().join("k3s-vm"))
            }
            // A relative one would be another cache in each directory.
            Ok(strategy) => Err(homeless().because(&format!(
                "HOME is {:?}, which is not an absolute path",
                strategy.home_dir()
            ))),
            Err(error) => Err(homeless().because(&error)),
        },
    }
}
