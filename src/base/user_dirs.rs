//! Directories of the user.

use std::path::PathBuf;

use etcetera::BaseStrategy;

/// `$XDG_CONFIG_HOME`, else `~/.config`; `None` without a home.
pub fn config_home() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.config_dir()).filter(|it| it.is_absolute())
}
