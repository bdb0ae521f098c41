//! `env`: shell code that selects the VM's cluster.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        terminal::output::Output,
    },
    machine::{MachineError, State, access::kubeconfig},
    project::Project,
};

/// For which shell, and which way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eval \"$(k3s-vm env)\"\n  \
    eval \"$(k3s-vm env --unset)\"\n  \
    k3s-vm env --shell fish | source\n\n\
    When it fails:\n  \
    It prints nothing, so the shell is unchanged. The path of the project must not contain a colon, which separates \
    the parts of KUBECONFIG and PATH.")]
pub struct Args {
    /// Shell that reads the output [default: that of SHELL]
    #[arg(long, value_enum)]
    shell: Option<Shell>,
    /// Undo the settings of any project
    #[arg(long)]
    unset: bool,
}

/// The supported shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    /// Other POSIX shells: sh, dash, ksh
    Sh,
}

impl Shell {
    /// The user's own shell.
    fn detect() -> Result<Self, CommandError> {
        let shell = env::var_os("SHELL").unwrap_or_default();
        let name = Path::new(&shell).file_name().unwrap_or_default();
        match name.to_string_lossy().as_ref() {
            "bash" => Ok(Self::Bash),
            "zsh" => Ok(Self::Zsh),
            "fish" => Ok(Self::Fish),
            "" | "sh" | "dash" | "ash" | "ksh" | "mksh" | "busybox" => Ok(Self::Sh),
            other => Err(CommandError::new(format!("unknown shell {other} in SHELL"))
                .hint("in a shell that understands export: eval \"$(k3s-vm env --shell sh)\"")
                .with_code(code::USAGE)),
        }
    }

    /// A quoted word.
    fn quoted(self, text: &str) -> String {
        match self {
            Self::Fish => format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")),
            _ => format!("'{}'", text.replace('\'', r"'\''")),
        }
    }

    fn set(self, variable: &str, value: &str) -> String {
        let value = self.quoted(value);
        match self {
            Self::Fish => format!("set -gx {variable} {value};\n"),
            _ => format!("export {variable}={value};\n"),
        }
    }

    fn unset(self, variable: &str) -> String {
        match self {
            Self::Fish => format!("set -e {variable};\n"),
            _ => format!("unset {variable};\n"),
        }
    }

    /// fish has lists.
    fn set_path(self, directories: &[PathBuf]) -> Result<String, CommandError> {
        let unusable = |error: &dyn std::fmt::Display| {
            CommandError::new("PATH cannot be written for the shell").because(error)
        };
        let path = env::join_paths(directories).map_err(|error| unusable(&error))?;
        let path = path.to_str().ok_or_else(|| unusable(&"it is not UTF-8"))?;
        Ok(match self {
            Self::Fish => {
                let words: Vec<String> = path.split(':').map(|it| self.quoted(it)).collect();
                format!("set -gx PATH {};\n", words.join(" "))
            }
            _ => self.set("PATH", path),
        })
    }
}

pub(crate) fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let shell = args.shell.map_or_else(Shell::detect, Ok)?;
    let bin = context.project.bin();
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    // A shell uses one VM at a time.
    let (former, others): (Vec<PathBuf>, Vec<PathBuf>) =
        env::split_paths(&path).partition(|it| *it == bin || Project::of_bin(it).is_some());
    if args.unset {
        output.data(&unset_script(shell, &context.project, &former, &others)?);
        return Ok(ExitCode::SUCCESS);
    }
    let state = State::observe(&context.project)?;
    let record = state
        .record()
        .ok_or_else(|| MachineError::absent(&context.project))?;
    kubeconfig::of(record)?;
    let kubeconfig = record.kubeconfig.to_str().unwrap_or_default();
    for place in [kubeconfig, bin.to_str().unwrap_or_default()] {
        if place.is_empty() || place.contains(':') {
            let what =
                format!("{place} has a colon, which KUBECONFIG and PATH cannot have in a path");
            return Err(CommandError::new(what).hint("use k3s-vm kubectl, which needs neither"));
        }
    }
    let directories: Vec<PathBuf> = std::iter::once(bin).chain(others).collect();
    let script = shell.set("KUBECONFIG", kubeconfig) + &shell.set_path(&directories)?;
    output.data(&script);
    if !matches!(state, State::Running(..)) {
        output.warning(&MachineError::not_running(&context.project, record).to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// The code that removes the `former` directories from PATH, and a KUBECONFIG that this command has set.
fn unset_script(
    shell: Shell,
    project: &Project,
    former: &[PathBuf],
    others: &[PathBuf],
) -> Result<String, CommandError> {
    let formers = former.iter().filter_map(|it| Project::of_bin(it));
    let mut projects = formers.chain([project.clone()]);
    let kubeconfig = PathBuf::from(env::var_os("KUBECONFIG").unwrap_or_default());
    let mut script = String::new();
    if projects.any(|it| is_of(&kubeconfig, &it)) {
        script += &shell.unset("KUBECONFIG");
    }
    if !former.is_empty() {
        script += &shell.set_path(others)?;
    }
    Ok(script)
}

/// Returns `true` when KUBECONFIG was set by this command: it is the record's, or after a reset the usual one.
fn is_of(kubeconfig: &Path, project: &Project) -> bool {
    let state = State::observe(project).ok();
    let recorded = state.as_ref().and_then(State::record);
    recorded.is_some_and(|record| record.kubeconfig == kubeconfig)
        || kubeconfig == project.default_kubeconfig()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_breaks_out_of_its_quotes() {
        let odd = r#"/home/a'b\c "$(d)" `e`!"#;
        assert_eq!(
            Shell::Bash.set("A", odd),
            r#"export A='/home/a'\''b\c "$(d)" `e`!';"#.to_owned() + "\n"
        );
        assert_eq!(
            Shell::Fish.set("A", odd),
            r#"set -gx A '/home/a\'b\\c "$(d)" `e`!';"#.to_owned() + "\n"
        );
        let directories = ["/a b".into(), PathBuf::new(), "/c".into()];
        let path = |shell: Shell| shell.set_path(&directories).ok();
        assert_eq!(
            path(Shell::Sh).as_deref(),
            Some("export PATH='/a b::/c';\n")
        );
        assert_eq!(
            path(Shell::Fish).as_deref(),
            Some("set -gx PATH '/a b' '' '/c';\n")
        );
        assert_eq!(
            Shell::Fish.unset("A") + &Shell::Zsh.unset("A"),
            "set -e A;\nunset A;\n"
        );
    }
}
