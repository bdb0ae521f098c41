//! Ed25519 key pairs: one that opens the guest, one by which the guest is known.

use russh::keys::{Algorithm, PrivateKey, PublicKey, ssh_key::LineEnding};

/// A private key with the texts that the seed and the project's directory hold.
#[derive(Clone)]
pub struct KeyPair(PrivateKey);

/// The reason why a text is not a private key.
#[derive(Debug, thiserror::Error)]
#[error("invalid private key in OpenSSH's format: {0}")]
pub struct KeyError(#[from] russh::keys::ssh_key::Error);

impl KeyPair {
    /// A new key, from the system's random numbers; `comment` says what it is for.
    ///
    /// # Errors
    ///
    /// Only where the crypto library refuses its own key.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
        key.set_comment(comment);
        Ok(Self(key))
    }

    /// Reads a private key in OpenSSH's PEM format.
    ///
    /// # Errors
    ///
    /// When the text is something else.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        Ok(Self(PrivateKey::from_openssh(pem)?))
    }

    /// The private key in OpenSSH's PEM format.
    ///
    /// # Errors
    ///
    /// Only where the crypto library refuses its own key.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        Ok(self.0.to_openssh(LineEnding::LF)?.to_string())
    }

    /// The public key as one line of an `authorized_keys` file.
    ///
    /// # Errors
    ///
    /// Only where the crypto library refuses its own key.
    pub fn public_line(&self) -> Result<String, KeyError> {
        Ok(self.0.public_key().to_openssh()?)
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.0
    }

    pub(super) fn public(&self) -> &PublicKey {
        self.0.public_key()
    }
}

/// Never the key itself.
impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = KeyPair::generate("k3s-vm").expect("made");
        let pem = key.to_pem().expect("written");
        let again = KeyPair::parse(&pem).expect("read");
        assert_eq!(
            again.public_line().expect("shown"),
            key.public_line().expect("shown")
        );
        assert!(
            key.public_line()
                .expect("shown")
                .starts_with("ssh-ed25519 ")
        );
        assert!(key.public_line().expect("shown").ends_with(" k3s-vm"));
        assert!(KeyPair::parse("").is_err());
        assert!(KeyPair::parse(&pem[..pem.len() / 2]).is_err());
    }
}
