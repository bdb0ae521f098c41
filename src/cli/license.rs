//! The license texts, which are part of the program: the repository has no license file.

/// The flag that prints them.
pub(crate) const FLAG: &str = "--license";

const MIT: &str = include_str!("license/MIT.txt");
const APACHE: &str = include_str!("license/Apache-2.0.txt");

/// Both licenses, of which the user may choose one.
pub(crate) fn text() -> String {
    let rule = "-".repeat(78);
    format!(
        "k3s-vm is licensed under MIT or Apache-2.0, at your choice. The texts of both follow.\n\n\
         {rule}\n\n{MIT}\n{rule}\n\n{}",
        APACHE.trim_start_matches('\n')
    )
}
