//! TLS settings of an endpoint, and the rustls configurations made of them.
//!
//! Contract: certificates are files named in configuration that people already
//! have; their contents come through [`Files`], so this crate touches no disk. A
//! configuration is made once for each distinct set of settings. Server names are
//! always checked, unless the settings say `skip_verify`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Reads a whole file; a closure over `std::fs::read` is one.
pub trait Files: Send + Sync {
    /// The content of the file at `path`.
    ///
    /// # Errors
    /// Errors of reading.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

impl<F: Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync> Files for F {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self(path)
    }
}

/// Files that a TLS connection to one host needs, in PEM form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Certificates of authorities that are trusted besides the machine's own.
    pub ca: Vec<PathBuf>,
    /// Client certificate chain and its key; without a key the first file has both.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Accept any certificate.
    pub skip_verify: bool,
}

impl TlsSettings {
    /// What of these settings counts for another place that the host sends us to: on
    /// another host its authorities only, neither who we are nor any waiver.
    pub(crate) fn for_other_place(&self, same_host: bool) -> Self {
        match same_host {
            true => self.clone(),
            false => Self {
                ca: self.ca.clone(),
                ..Self::default()
            },
        }
    }
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the settings cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has no usable certificate or key.
    #[error("{} has no {what} in PEM form", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("the TLS settings do not work")]
    Rustls(#[source] rustls::Error),
}

/// Makes and keeps rustls configurations.
pub(crate) struct TlsConfigs {
    files: Arc<dyn Files>,
    system_roots: Vec<u8>,
    provider: Arc<CryptoProvider>,
    made: Mutex<HashMap<TlsSettings, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    /// `system_roots` is the machine's own bundle; when it has no certificate, the
    /// built-in list of the Mozilla authorities stands in.
    pub(crate) fn new(files: Arc<dyn Files>, system_roots: Vec<u8>) -> Self {
        Self {
            files,
            system_roots,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            made: Mutex::default(),
        }
    }

    /// The configuration for these settings.
    pub(crate) fn get(&self, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
        let mut made = crate::locked(&self.made);
        if let Some(config) = made.get(settings) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(settings)?);
        made.insert(settings.clone(), Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rustls)?;
        let builder = if settings.skip_verify {
            let verifier = Arc::new(AnyCertificate(Arc::clone(&self.provider)));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let roots = Arc::new(self.roots(settings)?);
            let provider = Arc::clone(&self.provider);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| TlsError::Rustls(rustls::Error::General(e.to_string())))?;
            builder.with_webpki_verifier(verifier)
        };
        // More than one pair: rustls offers the first, as curl and docker do.
        match settings.client.first() {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                let certificates = self.certificates(chain)?;
                let key = self.key(key.as_ref().unwrap_or(chain))?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(TlsError::Rustls)
            }
        }
    }

    fn roots(&self, settings: &TlsSettings) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::pem_slice_iter(&self.system_roots).filter_map(Result::ok);
        let (added, _) = roots.add_parsable_certificates(own);
        if added == 0 {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for path in &settings.ca {
            let (added, _) = roots.add_parsable_certificates(self.certificates(path)?);
            if added == 0 {
                return Err(empty(path, "certificate"));
            }
        }
        Ok(roots)
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read(path)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .filter_map(Result::ok)
            .collect();
        match found.is_empty() {
            true => Err(empty(path, "certificate")),
            false => Ok(found),
        }
    }

    fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.read(path)?).map_err(|_| empty(path, "private key"))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, TlsError> {
        self.files.read(path).map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
    }
}

fn empty(path: &Path, what: &'static str) -> TlsError {
    TlsError::Empty {
        path: path.to_owned(),
        what,
    }
}

/// Accepts every certificate; signatures are still checked, so the connection is
/// with whoever holds the certificate's key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
