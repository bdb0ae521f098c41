//! What to do about an archive of the cache.

use crate::{cli::hints::text, machine::error::CacheArchiveError};

pub(crate) fn of_carried(error: &CacheArchiveError) -> Vec<String> {
    let hint = match error {
        CacheArchiveError::NoArchive => {
            "write one, on a host with internet: k3s-vm cache export FILE"
        }
        CacheArchiveError::Schema(_) => "have the same k3s-vm on both hosts",
        CacheArchiveError::Empty(_) => {
            "leave --all away; then what a setup needs is fetched: k3s-vm cache export FILE"
        }
        CacheArchiveError::Changed(path) => {
            let path = text::word(&path.display());
            return vec![format!(
                "remove it, and run the same command again, which fetches it anew: rm -f {path}"
            )];
        }
        CacheArchiveError::Read(_) | CacheArchiveError::Write(_) => return Vec::new(),
        _ => {
            "nothing was taken; write the archive once more, and carry that: k3s-vm cache export FILE"
        }
    };
    vec![hint.to_owned()]
}
