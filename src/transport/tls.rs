//! TLS to Docker by rustls, with the certificates that Docker's own clients use.
//!
//! Docker's certificates are made by hand more often than not, and rustls refuses some that OpenSSL takes:
//! each refusal is turned into a line that says how to make the certificate again.
//! Rules: Docker documentation, "Protect the Docker daemon socket"; what rustls takes was tried with certificates
//! of every kind that openssl and docker-machine make.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    InconsistentKeys, RootCertStore, SignatureScheme, StreamOwned,
};

use super::{Plain, Timed, Tls};
use crate::error::{Error, Kind};

/// Longest PEM file; a system's bundle of authorities has 250 KB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Where systems keep the authorities that they trust, for contexts without a ca.pem.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why no TLS connection came about.
#[derive(Debug)]
pub(super) enum Failure {
    /// The certificates on disk cannot be used.
    Files(Error),
    /// The server and we did not agree.
    Handshake(io::Error),
}

/// An established TLS connection.
#[derive(Debug)]
pub(super) struct Session(StreamOwned<ClientConnection, Timed>);

impl Session {
    /// Shakes hands over `timed` until `deadline`.
    pub(super) fn start(
        tls: &Tls,
        host: &str,
        mut timed: Timed,
        deadline: Instant,
    ) -> Result<Session, Failure> {
        let config = config(tls).map_err(Failure::Files)?;
        let refused = |error: rustls::Error| {
            Failure::Handshake(io::Error::new(io::ErrorKind::InvalidData, error))
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Failure::Handshake(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{host} is no name that a certificate could have"),
            ))
        })?;
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(refused)?;
        timed.deadline = Some(deadline);
        while connection.is_handshaking() {
            connection
                .complete_io(&mut timed)
                .map_err(Failure::Handshake)?;
        }
        timed.deadline = None;
        Ok(Session(StreamOwned::new(connection, timed)))
    }

    pub(super) fn timed(&self) -> &Timed {
        &self.0.sock
    }

    pub(super) fn timed_mut(&mut self) -> &mut Timed {
        &mut self.0.sock
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new("cannot set up TLS", error))?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(tls.ca.as_deref())?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    Ok(match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_cert_resolver(Arc::new(Identity(identity(certificate, key)?)))
        }
    })
}

/// The authorities of `ca`, or of the system.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let system = || {
        SYSTEM_BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    let Some(path) = ca.map(Path::to_path_buf).or_else(system) else {
        return Err(Error::new(
            "cannot verify Docker's certificate",
            "there is no ca.pem, and the system has no bundle of authorities",
        )
        .hint("put the certificate of the authority that signed the daemon's beside cert.pem, as ca.pem"));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path)? {
        let added = roots.add(certificate);
        // A system's bundle may hold a relic or two; a ca.pem is there for the one certificate in it.
        if let (Err(error), Some(_)) = (added, ca) {
            return Err(unusable(&path, error)
                .hint("it must be the X.509 certificate of an authority, in PEM"));
        }
    }
    Ok(roots)
}

/// Our certificate chain and its key.
fn identity(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates(certificate)?;
    let pem = read(key)?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        if encrypted(&pem) {
            unusable(key, "the key is encrypted").hint(format!(
                "nobody is there to type its password; take it off: openssl pkey -in {} -out plain.pem",
                key.display()
            ))
        } else {
            unusable(key, error)
                .hint("it must hold a private key in PEM: PKCS#8, PKCS#1 (RSA) or SEC1 (EC)")
        }
    })?;
    let signing = ring::sign::any_supported_type(&der).map_err(|_| {
        unusable(key, "this kind of key is not supported").hint(
            "RSA from 2048 bits, P-256, P-384 and Ed25519 are; make key and certificate again, e.g. openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        )
    })?;
    let certified = CertifiedKey::new(chain, signing);
    // For an X.509 v1 certificate rustls cannot tell; dockerd and its clients take those, so we do.
    if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
        certified.keys_match()
    {
        return Err(unusable(
            key,
            format!("it is not the key of {}", certificate.display()),
        )
        .hint("key.pem and cert.pem must have been made together"));
    }
    Ok(Arc::new(certified))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, error).hint("it must hold certificates in PEM"))?;
    if certificates.is_empty() {
        return Err(unusable(path, "there is no certificate in it")
            .hint("it must hold certificates in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut pem))
        .map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Failed,
            };
            Error::new(format!("cannot read {}", path.display()), Plain(&error))
                .kind(kind)
                .hint("TLS to Docker takes ca.pem, cert.pem and key.pem from the folder in DOCKER_CERT_PATH, or from the context")
        })?;
    Ok(pem)
}

/// rustls only says that it finds no key, or no base64, in these.
fn encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn unusable(path: &Path, cause: impl fmt::Display) -> Error {
    Error::new(format!("cannot use {}", path.display()), cause)
}

/// Our certificate, offered without looking at it.
///
/// rustls's own way refuses X.509 v1, which is what `openssl x509 -req` makes without `-extfile`.
#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate, for a context that says `SkipTLSVerify`; the peer must still hold its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What to do about a failure of TLS, if that is what `error` is.
pub(super) fn mend(error: &io::Error, host: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::InvalidCertificate(wrong) => Some(mend_certificate(wrong, host)),
        // Our own certificate was refused; with TLS 1.3 that comes with the first answer.
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure,
        ) => Some(
            "the daemon refused our cert.pem, or misses it: it must be signed by the daemon's --tlscacert, not be expired, and allow extendedKeyUsage=clientAuth"
                .to_owned(),
        ),
        rustls::Error::InvalidMessage(_) => Some(
            "no TLS is spoken on that port: unset DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, or name the daemon's TLS port (usually 2376)"
                .to_owned(),
        ),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Some("the daemon must speak TLS 1.2 or 1.3".to_owned())
        }
        _ => None,
    }
}

fn mend_certificate(wrong: &CertificateError, host: &str) -> String {
    let san = if host.parse::<std::net::IpAddr>().is_ok() {
        format!("subjectAltName=IP:{host}")
    } else {
        format!("subjectAltName=DNS:{host}")
    };
    match wrong {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the daemon's certificate is not for {host}: make it again with {san} (a CN alone does not count), or use a name that it has"
            )
        }
        CertificateError::UnknownIssuer => {
            "ca.pem is not the authority that signed the daemon's certificate".to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "make the daemon's certificate again (or is a clock wrong?)".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "make the daemon's certificate again with extendedKeyUsage=serverAuth".to_owned()
        }
        // The names of webpki's errors, which rustls hands on without a type of its own.
        other => match format!("{other:?}") {
            name if name.contains("UnsupportedCertVersion") => format!(
                "the daemon's certificate is X.509 v1: make it again as v3, with {san} (openssl x509 -req ... -extfile FILE)"
            ),
            name if name.contains("CaUsedAsEndEntity") => format!(
                "the daemon's certificate is an authority's own: make one for the daemon, signed by that authority, with basicConstraints=CA:FALSE and {san}"
            ),
            name if name.contains("UnsupportedCriticalExtension") => {
                "the daemon's certificate has a critical extension that nobody knows: make it again without".to_owned()
            }
            name if name.contains("UnsupportedSignatureAlgorithm") => {
                "the daemon's certificate is signed by an outdated method: make it again with -sha256".to_owned()
            }
            _ => format!("make the daemon's certificate again: X.509 v3, {san}, signed by ca.pem"),
        },
    }
}

#[cfg(test)]
mod tests;
