//! The releases that may replace another one: k3s is upgraded by one minor version at a time, as Kubernetes is.

use crate::k3s::release::Version;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The release is installed.
    None,
    /// It is a later one of the same minor version, or of the next.
    Up,
}

/// The reason why a release cannot replace another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionSkewError {
    /// An older release cannot read the datastore of a newer one.
    #[error("cannot upgrade k3s {from} to {to}: it is older, and k3s cannot be downgraded")]
    Older {
        /// The installed release.
        from: Version,
        /// The requested release.
        to: Version,
    },
    /// Minor versions are skipped.
    #[error("cannot upgrade k3s {from} to {to}: k3s is upgraded one minor version at a time")]
    TooFar {
        /// The installed release.
        from: Version,
        /// The requested release.
        to: Version,
        /// The channel of the next minor version.
        next: String,
    },
    /// The effect of a new major version on the datastore is unknown.
    #[error("cannot upgrade k3s {from} to {to}: it is another major version")]
    Major {
        /// The installed release.
        from: Version,
        /// The requested release.
        to: Version,
    },
}

/// Checks that `to` may replace `from`.
///
/// # Errors
///
/// Says why not.
pub fn check(from: &Version, to: &Version) -> Result<Step, VersionSkewError> {
    let ((major, minor), (new_major, new_minor)) = (from.minor(), to.minor());
    let (from, to) = (from.clone(), to.clone());
    if to == from {
        Ok(Step::None)
    } else if to < from {
        Err(VersionSkewError::Older { from, to })
    } else if new_major != major {
        Err(VersionSkewError::Major { from, to })
    } else if new_minor > minor + 1 {
        let next = format!("v{major}.{}", minor + 1);
        Err(VersionSkewError::TooFar { from, to, next })
    } else {
        Ok(Step::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_one_minor_version_up_and_none_down() {
        let from: Version = "v1.33.5+k3s1".parse().expect("a version");
        let to = |text: &str| check(&from, &text.parse().expect(text));
        assert_eq!(to("v1.33.5+k3s1"), Ok(Step::None));
        for next in [
            "v1.33.5+k3s2",
            "v1.33.6+k3s1",
            "v1.34.0-rc1+k3s1",
            "v1.34.9+k3s1",
        ] {
            assert_eq!(to(next), Ok(Step::Up), "{next}");
        }
        for older in [
            "v1.33.5-rc1+k3s1",
            "v1.33.4+k3s2",
            "v1.32.9+k3s1",
            "v0.99.0+k3s1",
        ] {
            assert!(
                matches!(to(older), Err(VersionSkewError::Older { .. })),
                "{older}"
            );
        }
        assert!(matches!(
            to("v2.0.0+k3s1"),
            Err(VersionSkewError::Major { .. })
        ));
        match to("v1.36.0+k3s1") {
            Err(VersionSkewError::TooFar { next, .. }) => assert_eq!(next, "v1.34"),
            other => panic!("{other:?}"),
        }
    }
}
