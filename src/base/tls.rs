//! The cryptographic library for TLS.

use std::sync::Once;

/// Makes ring the process's provider for TLS. A client that is built without a provider panics.
pub fn provide() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that a program that uses this library has chosen another one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
