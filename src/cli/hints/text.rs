//! Parts of hints.

use std::{fmt::Display, path::Path};

use crate::base::files;

/// A file system can also run out of files, which `df` alone does not show.
pub(crate) fn make_room(path: &Path) -> String {
    let directory = path.ancestors().find(|path| path.is_dir()).unwrap_or(path);
    let inodes = files::free_space(path).is_ok_and(|space| space.no_more_files);
    let see = if inodes {
        format!(" (it has no free inodes: df -i {})", directory.display())
    } else {
        String::new()
    };
    format!(
        "free space on the file system of {}{see}, then run the same command again",
        directory.display()
    )
}

pub(crate) fn move_away(path: &Path) -> String {
    let path = path.display();
    format!("mv {} {}", word(&path), word(&format_args!("{path}.bak")))
}

/// A path as one quoted word of a shell.
pub(crate) fn word(path: &dyn Display) -> String {
    let text = path.to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%=,".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
