//! TLS to the broker: rustls with ring, the broker's name checked against its certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsConfig;

/// A client configuration that trusts the authorities of `ca_file`, or the system's, and shows the client certificate,
/// if there is one. Reads the files anew each time.
pub(super) fn client_config(tls: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &tls.ca_file {
        Some(path) => roots_of(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_root_certificates(roots);
    let config =
        match &tls.client {
            None => config.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                config.with_client_auth_cert(chain_of(cert_file)?, key_of(key_file)?).map_err(|error| {
                    TlsError::Pair { cert: cert_file.clone(), key: key_file.clone(), reason: error.to_string() }
                })?
            }
        };
    Ok(Arc::new(config))
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |reason: String| TlsError::CertFile { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(chain)
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| TlsError::KeyFile { path: path.to_owned(), reason: error.to_string() })
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let unusable = |reason: String| TlsError::CaFile { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::Setup("the system has no certificate authorities; set mqtt.tls.ca_file".to_owned()));
    }
    Ok(roots)
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA file is not usable.
    #[error("mqtt.tls.ca_file {path}: {reason}; it must be the PEM certificate of the broker's authority")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client certificate's file is not usable.
    #[error("mqtt.tls.cert_file {path}: {reason}; it must be this vehicle's PEM certificate, with its chain")]
    CertFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key's file is not usable.
    #[error("mqtt.tls.key_file {path}: {reason}; it must be the PEM private key of mqtt.tls.cert_file, unencrypted")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The two do not go together.
    #[error("mqtt.tls.cert_file {cert} and key_file {key} do not go together: {reason}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What rustls said.
        reason: String,
    },
    /// Anything else.
    #[error("TLS: {0}")]
    Setup(String),
}
