//! The files that a new VM needs in the shared cache: base image, k3s, air-gap images. Each is verified. Cached files
//! need no network.

use std::path::PathBuf;

use futures_util::future::try_join;
use url::Url;

use crate::{
    base::{Progress, address::shown, files::PROGRAM},
    image::{self, BaseImage, Cache, Catalog, Download, ImageError, RetryPolicy},
    k3s::release::{self, AIRGAP, BINARY, Checksums, Mirror, ReleaseUrls, Version},
    machine::{MachineError, Spec, error::UpgradeError},
    project::{Record, record::Release},
};

/// The files of a new VM, all in the cache.
#[derive(Debug)]
pub struct Assets {
    /// The base image.
    pub image: BaseImage,
    /// The release.
    pub version: Version,
    /// The k3s binary.
    pub binary: PathBuf,
    /// The air-gap images, where the mirror has them.
    pub airgap: Option<PathBuf>,
}

/// Checksum files and the channel list are a few KiB.
const TEXT_LIMIT: usize = 1 << 20;

/// Readable, like all cached files that are not programs.
pub(crate) const DATA: u32 = 0o444;

/// The cache's directory for releases.
pub(crate) const BUCKET: &str = "k3s";

/// Downloads missing files, image and release side by side. An unfinished VM keeps the files that it started with.
///
/// # Errors
///
/// When something cannot be fetched or does not verify.
pub async fn ensure(
    root: &std::path::Path,
    spec: &Spec,
    unfinished: Option<&Record>,
    progress: &dyn Progress,
) -> Result<Assets, MachineError> {
    let cache = Cache::new(root.to_owned()).unverified(spec.insecure_no_checksum);
    let image = async {
        match unfinished.and_then(|record| cache.find_image(record.image.digest)) {
            Some(image) => Ok(image),
            None => cache
                .ensure_image(&spec.image_source, spec.image_sha256, progress)
                .await
                .map_err(MachineError::from),
        }
    };
    let release = async {
        let version = match unfinished {
            Some(record) => parse(&record.release.version)?,
            None => choose_version(&cache, spec).await?,
        };
        let (binary, airgap) = ensure_release(&cache, &spec.mirror, &version, progress).await?;
        Ok((version, binary, airgap))
    };
    let (image, (version, binary, airgap)): (BaseImage, _) = try_join(image, release).await?;
    Ok(Assets {
        image,
        version,
        binary,
        airgap,
    })
}

fn parse(version: &str) -> Result<Version, MachineError> {
    version
        .parse()
        .map_err(|error: release::ReleaseError| MachineError::Choice(error.to_string()))
}

/// The URL of the channels, and the key of the last answer for the stable one.
pub(crate) fn channels() -> Url {
    Url::parse(release::CHANNELS).expect("a constant")
}

/// The chosen release, else that of the stable channel, else the last known one, else the catalogue's.
pub(crate) async fn choose_version(cache: &Cache, spec: &Spec) -> Result<Version, MachineError> {
    if let Some(version) = &spec.k3s_version {
        return Ok(version.clone());
    }
    let channels = channels();
    let stable = match image::fetch_text(&channels, TEXT_LIMIT, &RetryPolicy::BRIEF).await {
        Ok(json) => release::stable_channel(&json).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let last = cache.recall_text(&channels).ok().flatten();
    match stable {
        Ok(version) => {
            if last.as_deref() != Some(version.as_str())
                && let Err(error) = cache.remember_text(&channels, version.as_str())
            {
                tracing::debug!(%error, "the stable version is not remembered");
            }
            Ok(version)
        }
        Err(reason) => {
            tracing::debug!(reason, "the channel");
            let last = last.and_then(|it| it.parse().ok());
            let version = match last {
                Some(version) => version,
                None => parse(Catalog::builtin().k3s_version())?,
            };
            tracing::info!("cannot read the stable channel of k3s; using {version}");
            Ok(version)
        }
    }
}

/// The release that a channel names now.
///
/// # Errors
///
/// When the server does not answer, or does not have the channel.
pub(crate) async fn newest(channel: &str) -> Result<Version, MachineError> {
    let json = image::fetch_text(&channels(), TEXT_LIMIT, &RetryPolicy::BRIEF)
        .await
        .map_err(|source| UpgradeError::Channel {
            channel: channel.to_owned(),
            source,
        })?;
    Ok(release::channel(&json, channel).map_err(UpgradeError::from)?)
}

/// The files of a release, in the cache.
///
/// # Errors
///
/// When something cannot be fetched or does not verify.
pub(crate) async fn ensure_one(
    root: &std::path::Path,
    spec: &Spec,
    version: &Version,
    progress: &dyn Progress,
) -> Result<Release, MachineError> {
    let cache = Cache::new(root.to_owned()).unverified(spec.insecure_no_checksum);
    let (binary, airgap) = ensure_release(&cache, &spec.mirror, version, progress).await?;
    Ok(Release {
        version: version.to_string(),
        binary,
        airgap,
    })
}

/// The files of a release, with the air-gap images if the mirror has them.
pub(crate) async fn ensure_release(
    cache: &Cache,
    mirror: &Mirror,
    version: &Version,
    progress: &dyn Progress,
) -> Result<(PathBuf, Option<PathBuf>), MachineError> {
    let urls = release::plan(mirror, version);
    let known = cache.recall_text(&urls.checksums)?;
    let text = match &known {
        Some(text) => Ok(text.clone()),
        None => image::fetch_text(&urls.checksums, TEXT_LIMIT, &RetryPolicy::default()).await,
    };
    let sums = text.and_then(|text| {
        let sums = release::parse_checksums(&text).map_err(|_| ImageError::NoChecksum {
            url: shown(&urls.checksums),
            file: BINARY.to_owned(),
        })?;
        Ok((sums, text))
    });
    let verified = cache.or_unverified(sums)?;
    let sums = verified.as_ref().map(|(sums, _)| sums);
    let files = try_join(
        fetch_binary(cache, version, &urls, sums, progress),
        fetch_airgap(cache, version, &urls, sums, progress),
    )
    .await?;
    if let (None, Some((_, text))) = (&known, &verified) {
        cache.remember_text(&urls.checksums, text)?;
    }
    Ok(files)
}

async fn fetch_binary(
    cache: &Cache,
    version: &Version,
    urls: &ReleaseUrls,
    sums: Option<&Checksums>,
    progress: &dyn Progress,
) -> Result<PathBuf, MachineError> {
    let wanted = Download {
        name: format!("k3s {version}"),
        url: urls.binary.clone(),
        expected: sums.map(|sums| sums.binary),
        file_name: BINARY.to_owned(),
        mode: PROGRAM,
    };
    Ok(cache.ensure_file(BUCKET, &wanted, progress).await?)
}

/// A mirror may lack them; then the guest pulls its images from registries.
async fn fetch_airgap(
    cache: &Cache,
    version: &Version,
    urls: &ReleaseUrls,
    sums: Option<&Checksums>,
    progress: &dyn Progress,
) -> Result<Option<PathBuf>, MachineError> {
    let expected = sums.and_then(|sums| sums.airgap);
    if sums.is_some() && expected.is_none() {
        return Ok(None);
    }
    let wanted = Download {
        name: format!("images of k3s {version}"),
        url: urls.airgap.clone(),
        expected,
        file_name: AIRGAP.to_owned(),
        mode: DATA,
    };
    match cache.ensure_file(BUCKET, &wanted, progress).await {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.is_not_found() => {
            tracing::info!(
                "{} does not exist; the guest pulls its images",
                shown(&urls.airgap)
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
