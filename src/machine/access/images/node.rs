//! Commands for the node's containerd, through k3s's own `ctr`.

use tokio::io::AsyncRead;

use crate::{
    base::Size,
    guest::{Answer, Ssh},
    k3s::images::{Guest, Listed, PendingImage, listing},
    machine::{MachineError, access::images::source::last_line, error::ImagesError},
};

/// `ctr` in the namespace of the kubelet. The program that k3s has unpacked is called directly: `/usr/local/bin/k3s
/// ctr` starts it as a second large program, and an emulated guest needs seconds for each. Without it, k3s is called.
const CTR: &str = "ctr --namespace k8s.io";

/// The definition of [`CTR`].
const DEFINITION: &str = "ctr() { \
    if [ -x /var/lib/rancher/k3s/data/current/bin/ctr ]; then /var/lib/rancher/k3s/data/current/bin/ctr \"$@\"; \
    else k3s ctr \"$@\"; fi; }; ";

/// The prefix of an image's name until it is complete; a part that is used once follows.
pub(crate) const LOADING: &str = "k3s-vm.invalid/loading:";

/// The images and the free space of the node. In an emulated guest each `ctr` takes seconds to start, so the two that do
/// not wait for one another run at the same time.
pub(crate) async fn contents(ssh: &Ssh) -> Result<Guest, MachineError> {
    let digests = format!("{CTR} content ls --quiet");
    let (digests, images, room) = tokio::try_join!(output(ssh, &digests), images(ssh), room(ssh))?;
    Ok(Guest {
        digests: digests.split_whitespace().map(str::to_owned).collect(),
        images,
        room,
    })
}

/// The names that the node knows.
pub(crate) async fn images(ssh: &Ssh) -> Result<Vec<Listed>, MachineError> {
    Ok(listing::parse(
        &output(ssh, &format!("{CTR} images ls")).await?,
    ))
}

/// The free space of the guest's disk.
pub(crate) async fn room(ssh: &Ssh) -> Result<Size, MachineError> {
    let said = output(ssh, "df -Pk /var/lib/rancher").await?;
    Ok(free(&said).unwrap_or(Size::bytes(u64::MAX)))
}

/// The free space, the fourth column of the last line of `df -Pk` (POSIX), in KiB.
fn free(said: &str) -> Option<Size> {
    let column = said.lines().last()?.split_whitespace().nth(3)?;
    let kib: u64 = column.parse().ok()?;
    Some(Size::bytes(kib.saturating_mul(1024)))
}

/// Imports an archive into containerd, with its images named `loading` and a number. A failed or interrupted import
/// leaves nothing: containerd 1.7 keeps the names of images that it could not unpack, and collects their content only
/// when another image is deleted.
pub(crate) async fn import(
    ssh: &Ssh,
    archive: impl AsyncRead + Unpin,
    loading: &str,
) -> Result<Result<(), String>, MachineError> {
    let command = format!(
        "{DEFINITION}{CTR} images import --platform linux/amd64 - >/dev/null && exit; \
         {{ {CTR} images ls --quiet | grep -F '{loading}' | xargs -r k3s {CTR} images rm --sync; \
         {CTR} leases create --id '{loading}'; {CTR} leases rm --sync '{loading}'; }} >/dev/null 2>&1; exit 1"
    );
    let mut errors = Answer::default();
    let status = ssh
        .run(&command, archive, tokio::io::sink(), &mut errors)
        .await?;
    let errors = errors.0;
    Ok(match (status, errors.is_empty()) {
        (0, _) => Ok(()),
        (_, true) => Err("the connection to the guest ended".to_owned()),
        (_, false) => Err(reason(&errors)),
    })
}

/// The kernel limits a command line to 128 KiB (execve(2), MAX_ARG_STRLEN); a name has at most 255 bytes and occurs
/// twice.
const AT_ONCE: usize = 100;

/// Gives complete images their names, and removes their temporary names.
pub(crate) async fn name(
    ssh: &Ssh,
    arrivals: &[PendingImage],
) -> Result<Vec<Listed>, MachineError> {
    let mut named = Ok(());
    for some in arrivals.chunks(AT_ONCE) {
        if named.is_ok() {
            named = output(ssh, &naming(some)).await.map(drop);
        }
    }
    let loading: Vec<String> = arrivals.iter().map(|it| it.loading.clone()).collect();
    // A name that is left is removed by the next load.
    let (_, listed) = tokio::join!(remove(ssh, &loading), images(ssh));
    named?;
    listed
}

fn naming(arrivals: &[PendingImage]) -> String {
    let tag = |arrival: &PendingImage| {
        let (from, to) = (&arrival.loading, &arrival.name);
        format!("{CTR} images tag --force '{from}' '{to}' >/dev/null && ")
    };
    arrivals.iter().map(tag).collect::<String>() + "true"
}

/// Removes names, and the content that only they refer to.
pub(crate) async fn remove(ssh: &Ssh, names: &[String]) -> Result<(), MachineError> {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    for some in names.chunks(AT_ONCE) {
        let command = format!("{CTR} images rm --sync {} >/dev/null", some.join(" "));
        output(ssh, &command).await?;
    }
    Ok(())
}

async fn output(ssh: &Ssh, command: &str) -> Result<String, MachineError> {
    let (mut output, mut errors) = (Answer::default(), Answer::default());
    let input = tokio::io::empty();
    let command = format!("{DEFINITION}{command}");
    let status = ssh.run(&command, input, &mut output, &mut errors).await?;
    if status == 0 {
        Ok(String::from_utf8_lossy(&output.0).into_owned())
    } else {
        Err(ImagesError::Runtime(reason(&errors.0)).into())
    }
}

/// The error, among the warnings that `ctr` may print beside it.
fn reason(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let own = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("ctr: "));
    own.map_or_else(|| last_line(errors), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_space_of_a_disk() {
        let said = "Filesystem     1024-blocks    Used Available Capacity Mounted on\n\
                    /dev/vda1         20420432 3141592  16420432      17% /\n";
        assert_eq!(free(said), Some(Size::bytes(16_420_432 << 10)));
        assert_eq!(free(""), None);
        assert_eq!(
            free("df: /var/lib/rancher: No such file or directory"),
            None
        );
    }

    #[test]
    fn a_batch_fits_on_a_command_line() {
        let arrivals: Vec<PendingImage> = (0..AT_ONCE)
            .map(|number| PendingImage {
                name: format!("registry.example/{}:{number}", "a".repeat(220))
                    .parse()
                    .expect("a name"),
                loading: format!("{LOADING}{}-{number}", uuid::Uuid::nil().simple()),
                digest: String::new(),
            })
            .collect();
        assert!(naming(&arrivals).len() < 100 << 10);
    }
}
