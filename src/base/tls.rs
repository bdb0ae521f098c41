//! The cryptographic library for TLS.

use std::sync::Once;

/// Makes ring the process's provider for TLS; a client that is built before there is one panics.
pub fn provide() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that there is one already, which a program that uses this library may have chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
