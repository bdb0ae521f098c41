//! The images of the node, as containerd's `ctr` lists them.

use crate::base::Size;

/// A name that the node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The whole name, or the digest that the runtime calls it by.
    pub name: String,
    /// Of the manifest, or of the list of manifests.
    pub digest: String,
    /// What its layers take, compressed; one decimal of it is known.
    pub size: Size,
}

impl Listed {
    /// Whether it is a user's name for the image, and not one that the runtime keeps for itself.
    pub fn is_named(&self) -> bool {
        !self.name.starts_with("sha256:") && !self.name.contains("@sha256:")
    }
}

/// Reads the table of `ctr images list`; other lines are passed over.
pub fn parse(table: &str) -> Vec<Listed> {
    table.lines().filter_map(line).collect()
}

/// `NAME TYPE DIGEST 1.0 MiB PLATFORMS LABELS`.
fn line(line: &str) -> Option<Listed> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let digest = words.nth(1).filter(|it| it.starts_with("sha256:"))?;
    let size = format!("{} {}", words.next()?, words.next()?);
    Some(Listed {
        name,
        digest: digest.to_owned(),
        size: size.parse().unwrap_or(Size::bytes(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_table() {
        let digest = format!("sha256:{}", "4a".repeat(32));
        let table = format!(
            "REF TYPE DIGEST SIZE PLATFORMS LABELS \n\
             docker.io/library/a:1 application/vnd.oci.image.index.v1+json {digest} 1.5 MiB linux/amd64,linux/arm64 -\n\
             {digest} application/vnd.oci.image.index.v1+json {digest} 1.5 MiB linux/amd64 io.cri-containerd.image=managed\n\
             torn\n"
        );
        let listed = parse(&table);
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].name, "docker.io/library/a:1");
        assert_eq!(listed[0].size, Size::bytes(3 << 19));
        assert_eq!(
            listed.iter().map(Listed::is_named).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
