//! The certificate authorities of a private Cosmos, from the PEM file of `--cosmos-ca`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::error::{Error, Kind, Result};

/// Largest CA file, in bytes: the bundle of all web roots is 220 KB.
const CA_BYTES_MAX: u64 = 4 << 20;

/// Reads a PEM file of certificates.
///
/// # Errors
/// A file that cannot be read, is too large, or holds no certificate.
pub fn read(path: &Path) -> Result<RootCerts> {
    let tried = || format!("cannot read the authorities in {}", path.display());
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CA_BYTES_MAX + 1).read_to_end(&mut pem))
        .map_err(|cause| {
            let denied = cause.kind() == io::ErrorKind::PermissionDenied;
            let error = Error::new(tried(), cause).hint("--cosmos-ca names a PEM file");
            if denied {
                error.kind(Kind::Denied)
            } else {
                error
            }
        })?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(Error::new(
            tried(),
            format!("it is larger than {CA_BYTES_MAX} bytes"),
        ));
    }
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(cause) => return Err(Error::new(tried(), cause)),
        }
    }
    if certificates.is_empty() {
        return Err(Error::new(tried(), "it holds no certificate")
            .hint("it must be PEM, with -----BEGIN CERTIFICATE----- lines"));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
