//! TLS as a k3s server does it: any client may connect, and who it is decides the answer.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::Failure;
use crate::certs::Certs;

/// The server's side of every connection.
pub(crate) fn config(certs: &Certs, verifier: Arc<Lenient>) -> Result<ServerConfig, Failure> {
    let chain = [&certs.serving.cert, &certs.server_ca.cert]
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certs.serving.key.as_bytes())?;
    let mut tls = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Takes any client certificate, or none, like k3s: who does not belong here gets a 401, not a broken handshake.
#[derive(Debug)]
pub(crate) struct Lenient(Arc<dyn ClientCertVerifier>);

impl Lenient {
    /// Knows the client authority of this cluster.
    pub(crate) fn new(certs: &Certs) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            certs.client_ca.cert.as_bytes(),
        )?)?;
        Ok(Self(
            WebPkiClientVerifier::builder(Arc::new(roots)).build()?,
        ))
    }

    /// Whether this cluster signed the certificate that a client showed.
    pub(crate) fn trusts(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        chain
            .and_then(|chain| chain.split_first())
            .is_some_and(|(leaf, rest)| {
                self.0
                    .verify_client_cert(leaf, rest, UnixTime::now())
                    .is_ok()
            })
    }
}

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
