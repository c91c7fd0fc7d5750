//! What TLS may be spoken with, to Docker and to Cosmos alike.
//!
//! It is what rustls takes with ring, put together here without ChaCha20-Poly1305: whatever has that has AES-GCM too
//! (RFC 8446, section 9.1, makes it mandatory for TLS 1.3, and every server of Docker's or of a cloud has it for
//! TLS 1.2), and it is 50 KB of code. A processor without instructions for AES is slower by it, which answers of some
//! kilobytes do not show. Taken out of rustls's own provider it would be linked all the same.
//! Rules: the provider of ring in rustls, `src/crypto/ring/mod.rs`; a test compares.

use std::sync::Arc;

use ring::rand::SystemRandom;
use rustls::crypto::ring::{ALL_KX_GROUPS, cipher_suite as suite, sign};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme, SupportedCipherSuite};
use webpki::ring as signed;

/// Best first: ECDSA before RSA, and 256 bits before 128.
static SUITES: [SupportedCipherSuite; 6] = [
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// How certificates may be signed, and handshakes. In TLS 1.2 the scheme does not say the curve.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        signed::ECDSA_P256_SHA256,
        signed::ECDSA_P256_SHA384,
        signed::ECDSA_P384_SHA256,
        signed::ECDSA_P384_SHA384,
        signed::ED25519,
        signed::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        signed::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        signed::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        signed::RSA_PKCS1_2048_8192_SHA256,
        signed::RSA_PKCS1_2048_8192_SHA384,
        signed::RSA_PKCS1_2048_8192_SHA512,
        signed::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        signed::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        signed::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP384_SHA384,
            &[signed::ECDSA_P384_SHA384, signed::ECDSA_P256_SHA384],
        ),
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[signed::ECDSA_P256_SHA256, signed::ECDSA_P384_SHA256],
        ),
        (SignatureScheme::ED25519, &[signed::ED25519]),
        (
            SignatureScheme::RSA_PSS_SHA512,
            &[signed::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
        ),
        (
            SignatureScheme::RSA_PSS_SHA384,
            &[signed::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
        ),
        (
            SignatureScheme::RSA_PSS_SHA256,
            &[signed::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA512,
            &[signed::RSA_PKCS1_2048_8192_SHA512],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA384,
            &[signed::RSA_PKCS1_2048_8192_SHA384],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA256,
            &[signed::RSA_PKCS1_2048_8192_SHA256],
        ),
    ],
};

/// ring's random numbers, and its keys.
#[derive(Debug)]
struct Ring;

impl SecureRandom for Ring {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Ring {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        sign::any_supported_type(&key)
    }
}

/// What a TLS client here is made with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: ALL_KX_GROUPS.to_vec(),
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Ring,
        key_provider: &Ring,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_rustls_s_own_without_chacha20() {
        let ours = provider();
        let theirs = rustls::crypto::ring::default_provider();
        let aes = theirs.cipher_suites.into_iter().filter(|suite| {
            let name = format!("{:?}", suite.suite());
            !name.contains("CHACHA20")
        });
        assert_eq!(ours.cipher_suites, aes.collect::<Vec<_>>());
        assert_eq!(
            format!("{:?}", ours.kx_groups),
            format!("{:?}", theirs.kx_groups)
        );
        let (ours, theirs) = (
            ours.signature_verification_algorithms,
            theirs.signature_verification_algorithms,
        );
        assert_eq!(format!("{:?}", ours.all), format!("{:?}", theirs.all));
        assert_eq!(
            format!("{:?}", ours.mapping),
            format!("{:?}", theirs.mapping)
        );
    }
}
