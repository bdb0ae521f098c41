//! Lists and removes the images of the node.

use crate::{
    k3s::images::{Listed, Reference},
    machine::{
        MachineError,
        access::{images::node, shell},
        error::ImagesError,
    },
    project::Project,
};

/// The images of the node that have a name, by name.
///
/// # Errors
///
/// When the VM does not run or its containerd does not answer.
pub async fn list(project: &Project) -> Result<Vec<Listed>, MachineError> {
    let ssh = shell::connect(project).await?;
    let images = node::images(&ssh).await;
    ssh.close().await;
    let mut images: Vec<Listed> = images?.into_iter().filter(is_shown).collect();
    images.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(images)
}

/// Removes the images called `names`, all of them or none. Returns their complete names.
///
/// # Errors
///
/// When the VM does not run, its containerd does not answer, or one of them is not there.
pub async fn remove(project: &Project, names: &[String]) -> Result<Vec<String>, MachineError> {
    let ssh = shell::connect(project).await?;
    let images = node::images(&ssh).await?;
    let wanted = names
        .iter()
        .map(|name| found(&images, name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut going: Vec<String> = wanted.iter().map(|image| image.name.clone()).collect();
    // The runtime's own names would keep images that no name refers to.
    for image in &wanted {
        let same = || images.iter().filter(|it| it.digest == image.digest);
        if same().all(|it| !it.is_named() || going.contains(&it.name)) {
            going.extend(same().map(|it| it.name.clone()));
        }
    }
    going.sort();
    going.dedup();
    let removed = node::remove(&ssh, &going).await;
    ssh.close().await;
    removed?;
    Ok(wanted.into_iter().map(|it| it.name.clone()).collect())
}

fn is_shown(image: &Listed) -> bool {
    image.is_named() && !image.name.starts_with(node::LOADING)
}

fn found<'a>(images: &'a [Listed], name: &str) -> Result<&'a Listed, ImagesError> {
    let whole: Option<Reference> = name.parse().ok();
    let is_it = |image: &&Listed| {
        let whole = whole.as_ref().is_some_and(|it| it.as_str() == image.name);
        whole || image.name == name
    };
    images
        .iter()
        .find(is_it)
        .ok_or_else(|| ImagesError::NotThere {
            name: name.to_owned(),
            similar: similar(images, name),
        })
}

/// The images with the same last part, whatever their registry and tag.
fn similar(images: &[Listed], name: &str) -> Vec<String> {
    let last = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or_default();
        name.split([':', '@']).next().unwrap_or_default().to_owned()
    };
    let shown = images.iter().filter(|it| is_shown(it));
    shown
        .filter(|it| last(&it.name) == last(name))
        .map(|it| it.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Size;

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.to_owned(),
            digest: "sha256:1".to_owned(),
            size: Size::mib(1),
        }
    }

    #[test]
    fn short_names_are_found_and_typos_get_suggestions() {
        let images = [listed("docker.io/library/app:1"), listed("localhost/app:2")];
        let name = |name| found(&images, name).map(|it| it.name.clone());
        assert_eq!(
            name("app:1").ok().as_deref(),
            Some("docker.io/library/app:1")
        );
        let unknown = name("app:3").expect_err("it has another tag").to_string();
        assert_eq!(
            unknown,
            "the node has no image app:3; it has docker.io/library/app:1, localhost/app:2"
        );
    }
}
