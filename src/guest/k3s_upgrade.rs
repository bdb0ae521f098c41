//! Another k3s in the guest, in the place of the one that it has: k3s's own way to upgrade is a new program and a restart of
//! its service. All is laid beside its place first, so that the change itself is two renames.

use std::{path::Path, sync::Arc};

use super::{CopyError, Ssh, SshError, copy::script};
use crate::base::{Digest, Progress};

/// The files of a release, on the host.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// Like `v1.34.1+k3s1`.
    pub version: &'a str,
    /// The program, and its SHA-256.
    pub binary: (&'a Path, Digest),
    /// The images that it starts, if they come with it, and their SHA-256.
    pub images: Option<(&'a Path, Digest)>,
}

const PROGRAMS: &str = "/usr/local/bin";
const PROGRAM: &str = "/usr/local/bin/k3s.new";
/// Not in the directory of the images: k3s looks at all that is in it.
const AGENT: &str = "/var/lib/rancher/k3s/agent";
const IMAGES: &str = "/var/lib/rancher/k3s/agent/images.new";

/// The digests are $1 and $2, the latter empty without images; the version is $3. What is not the release goes.
const VERIFY: &str = r#"
set -eu
trap '[ $? -eq 0 ] || rm -f /usr/local/bin/k3s.new /var/lib/rancher/k3s/agent/images.new' EXIT
same() {
    echo "$1  $2" | sha256sum --check --status || { echo "$2 is not what was sent" >&2; exit 1; }
}
same "$1" /usr/local/bin/k3s.new
images=/var/lib/rancher/k3s/agent/images.new
if [ -n "$2" ]; then same "$2" "$images"; else rm -f "$images"; fi
chmod 0755 /usr/local/bin/k3s.new
# k3s calls itself what its file is called.
said=$(/usr/local/bin/k3s.new --version)
said=${said#* version }
case $said in
    "$3 "*) ;;
    *) echo "it says that it is $(echo "$said" | head -n 1)" >&2; exit 1 ;;
esac
"#;

/// The images come first: without the new program they are only more than is needed.
const REPLACE: &str = r#"
set -eu
cd /var/lib/rancher/k3s/agent
if [ -e images.new ]; then
    mkdir -p images
    [ -e images/.cache.json ] || touch images/.cache.json
    chmod 0600 images.new
    sync images.new
    mv -f images.new images/k3s-airgap-images-amd64.tar.zst
    sync images
fi
cd /usr/local/bin
sync k3s.new
mv -f k3s.new k3s
sync .
exec systemctl restart --no-block k3s.service
"#;

const CLEAR: &str = "rm -f /usr/local/bin/k3s.new /var/lib/rancher/k3s/agent/images.new";

/// The end of k3s's own log: that explains its end, and systemd's lines about it do not.
const LAST_WORDS: &str =
    "journalctl --quiet --no-pager --output=cat --lines=10 _SYSTEMD_UNIT=k3s.service";

impl Ssh {
    /// The release of the guest's k3s, as that says; it need not be the one that runs.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub async fn k3s_version(&self) -> Result<String, SshError> {
        let said = self.output("/usr/local/bin/k3s --version").await?;
        let said = String::from_utf8_lossy(&said);
        Ok(said
            .split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .to_owned())
    }

    /// Lays a release beside the one that the guest has. The guest is as before when that fails.
    ///
    /// # Errors
    ///
    /// When the guest has no space for it.
    pub async fn stage_k3s(
        &self,
        release: &Release<'_>,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), CopyError> {
        let staged = self.try_to_stage(release, progress).await;
        if staged.is_err()
            && let Err(error) = self.output(CLEAR).await
        {
            tracing::debug!(%error, "what was copied stays in the guest");
        }
        staged
    }

    async fn try_to_stage(
        &self,
        release: &Release<'_>,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), CopyError> {
        let what = format!("k3s {} into the guest", release.version);
        let (binary, _) = release.binary;
        self.send(binary, (PROGRAMS, PROGRAM), &what, progress)
            .await?;
        if let Some((images, _)) = release.images {
            let what = format!("images of {what}");
            self.send(images, (AGENT, IMAGES), &what, progress).await?;
        }
        Ok(())
    }

    /// Verifies that the staged files are the release, and run in the guest. The guest is unchanged when they are not.
    ///
    /// # Errors
    ///
    /// [`SshError::Failed`] says in which way it is not.
    pub async fn verify_k3s(&self, release: &Release<'_>) -> Result<(), SshError> {
        let [binary, images] = [Some(release.binary), release.images]
            .map(|it| it.map_or_else(String::new, |(_, digest)| digest.to_string()));
        let command = script(VERIFY, &[&binary, &images, release.version]);
        self.output(&command).await.map(drop)
    }

    /// Replaces the installed files by the staged ones and restarts k3s, which is not waited for.
    ///
    /// # Errors
    ///
    /// When the guest does not do it; it may have begun to.
    pub async fn replace_k3s(&self) -> Result<(), SshError> {
        self.output(&script(REPLACE, &[])).await.map(drop)
    }

    /// Restarts k3s, which is not waited for.
    ///
    /// # Errors
    ///
    /// When the guest does not do it.
    pub async fn restart_k3s(&self) -> Result<(), SshError> {
        let restart = "systemctl restart --no-block k3s.service";
        self.output(restart).await.map(drop)
    }

    /// The last lines of k3s's journal.
    ///
    /// # Errors
    ///
    /// When the guest does not tell.
    pub async fn k3s_log_tail(&self) -> Result<String, SshError> {
        let said = self.output(LAST_WORDS).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
