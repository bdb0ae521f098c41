//! The two certificate authorities of a k3s server and what they sign, under k3s's file names. The authorities and the
//! admin's certificate are made once and kept; the serving certificate follows names and addresses at each start.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::Failure;
use crate::state::write_atomically;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) cert: String,
    /// Its private key.
    pub(crate) key: String,
}

/// All that the server needs.
pub(crate) struct Certs {
    /// Signs the serving certificate; clients trust it.
    pub(crate) server_ca: Pair,
    /// Signs client certificates; the server trusts it.
    pub(crate) client_ca: Pair,
    /// The certificate of the API.
    pub(crate) serving: Pair,
    /// The certificate in the admin's kubeconfig.
    pub(crate) admin: Pair,
}

/// Loads what `dir` holds and makes the rest.
pub(crate) fn ensure(dir: &Path, names: Vec<String>) -> Result<Certs, Failure> {
    std::fs::create_dir_all(dir)?;
    let server_ca = load_or(dir, "server-ca", || authority("k3s-server-ca"))?;
    let client_ca = load_or(dir, "client-ca", || authority("k3s-client-ca"))?;
    let admin = load_or(dir, "client-admin", || {
        leaf(
            &client_ca,
            "system:admin",
            "system:masters",
            ExtendedKeyUsagePurpose::ClientAuth,
            vec![],
        )
    })?;
    let serving = leaf(
        &server_ca,
        "k3s",
        "k3s",
        ExtendedKeyUsagePurpose::ServerAuth,
        names,
    )?;
    save(dir, "serving-kube-apiserver", &serving)?;
    Ok(Certs {
        server_ca,
        client_ca,
        serving,
        admin,
    })
}

fn load_or(
    dir: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Pair, Failure>,
) -> Result<Pair, Failure> {
    let read = |extension| std::fs::read_to_string(dir.join(format!("{name}.{extension}")));
    // The certificate is written last: where it is, its key is.
    if let Ok(cert) = read("crt") {
        return Ok(Pair {
            cert,
            key: read("key")?,
        });
    }
    let pair = make()?;
    save(dir, name, &pair)?;
    Ok(pair)
}

fn save(dir: &Path, name: &str, pair: &Pair) -> Result<(), Failure> {
    write_atomically(&dir.join(format!("{name}.key")), pair.key.as_bytes(), 0o600)?;
    write_atomically(
        &dir.join(format!("{name}.crt")),
        pair.cert.as_bytes(),
        0o644,
    )
}

fn authority(name: &str) -> Result<Pair, Failure> {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let mut params = params(vec![], YEAR * 10)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name}@{seconds}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

fn leaf(
    ca: &Pair,
    name: &str,
    organization: &str,
    purpose: ExtendedKeyUsagePurpose,
    names: Vec<String>,
) -> Result<Pair, Failure> {
    let mut params = params(names, YEAR)?;
    params
        .distinguished_name
        .push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![purpose];
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn params(names: Vec<String>, validity: Duration) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + validity).into();
    Ok(params)
}
