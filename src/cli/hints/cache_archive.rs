//! Hints about archives of the cache.

use crate::{cli::hints::text, machine::error::CacheArchiveError};

pub(crate) fn of_cache_archive(error: &CacheArchiveError) -> Vec<String> {
    let hint = match error {
        CacheArchiveError::NoArchive => {
            "create one on a host with internet: k3s-vm cache export FILE"
        }
        CacheArchiveError::Schema(_) => "use the same k3s-vm on both hosts",
        CacheArchiveError::Empty(_) => {
            "remove --all to fetch what a setup needs: k3s-vm cache export FILE"
        }
        CacheArchiveError::Changed(path) => {
            let path = text::word(&path.display());
            return vec![format!(
                "remove it, then run the same command again to fetch it: rm -f {path}"
            )];
        }
        CacheArchiveError::Conflict { path, .. } => {
            let path = text::word(&path.display());
            return vec![
                "nothing was imported; check where the archive is from".to_owned(),
                format!(
                    "to trust the archive instead, remove this, then import it again: rm {path}"
                ),
            ];
        }
        CacheArchiveError::Read(_) | CacheArchiveError::Write(_) => return Vec::new(),
        _ => "nothing was imported; export the archive again: k3s-vm cache export FILE",
    };
    vec![hint.to_owned()]
}
