//! Certificates of every kind against a rustls server in this process. `tests/data/tls/make.sh` made them.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::{DistinguishedName, ServerConfig, ServerConnection};

use super::super::{Address, Connection, connect, mend};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/tls")
        .join(name)
}

/// What the server wants of the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wants {
    Nothing,
    /// Any certificate whose key the client holds, as dockerd takes X.509 v1 too.
    Any,
    Refuses,
}

#[derive(Debug)]
struct Judge(Wants, Arc<CryptoProvider>);

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn offer_client_auth(&self) -> bool {
        self.0 != Wants::Nothing
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0 != Wants::Nothing
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.0 {
            Wants::Refuses => Err(CertificateError::BadEncoding.into()),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // An X.509 v1 certificate cannot be parsed here; the handshake is what matters.
        match rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.1.signature_verification_algorithms,
        ) {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            other => other,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Presented(Arc<CertifiedKey>);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A server for one connection: answers one request and closes without a farewell, as dockerd ends its streams.
fn server(certificate: &str, wants: Wants) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let key = PrivateKeyDer::from_pem_file(data(&format!("{certificate}.key"))).expect("a key");
    let presented = CertifiedKey::new(
        certificates(&data(&format!("{certificate}.pem"))).expect("a certificate"),
        ring::sign::any_supported_type(&key).expect("a key"),
    );
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(Arc::new(Judge(wants, provider)))
        .with_cert_resolver(Arc::new(Presented(Arc::new(presented))));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a connection");
        let connection = ServerConnection::new(Arc::new(config)).expect("a server");
        let mut stream = StreamOwned::new(connection, socket);
        let mut request = Vec::new();
        let mut byte = [0];
        // A client that refuses us is what half of the tests are about.
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => {
                    let _ = stream.flush();
                    return;
                }
            }
        }
        let _ = stream.write_all(ANSWER);
    });
    port
}

fn address(
    host: &str,
    port: u16,
    ca: &str,
    identity: Option<(&str, &str)>,
    verify: bool,
) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port,
        tls: Some(Tls {
            ca: Some(data(ca)),
            identity: identity.map(|(certificate, key)| (data(certificate), data(key))),
            verify,
        }),
    }
}

/// Connects, asks, and reads the answer.
fn ask(address: &Address) -> Result<Vec<u8>, Error> {
    let mut connection: Connection = connect(address, LIMIT)?;
    connection.set_deadline(Some(Instant::now() + LIMIT));
    let mut answer = Vec::new();
    let result = connection
        .write_all(b"GET /_ping HTTP/1.1\r\n\r\n")
        .and_then(|()| {
            let mut piece = [0; 64];
            while answer.len() < ANSWER.len() {
                let bytes = connection.read(&mut piece)?;
                if bytes == 0 {
                    break;
                }
                answer.extend_from_slice(&piece[..bytes]);
            }
            Ok(())
        });
    match result {
        Ok(()) => {
            let end = connection.read(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(end, Err(io::ErrorKind::UnexpectedEof), "no farewell");
            Ok(answer)
        }
        Err(error) => {
            let said = Error::new("cannot ask", Plain(&error));
            Err(match mend(&error, address) {
                Some(mend) => said.hint(mend),
                None => said,
            })
        }
    }
}

fn refused(address: &Address, parts: &[&str]) {
    let error = ask(address).expect_err("a refusal");
    let said = format!("{error} | {}", error.hint_text().unwrap_or_default());
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn our_certificate_may_have_a_key_of_any_usual_kind() {
    for name in ["pkcs1", "pkcs8", "sec1", "ed25519", "v1"] {
        let port = server("server", Wants::Any);
        let (certificate, key) = (format!("client-{name}.pem"), format!("client-{name}.key"));
        let address = address(
            "127.0.0.1",
            port,
            "ca.pem",
            Some((&certificate, &key)),
            true,
        );
        assert_eq!(ask(&address).expect(name), ANSWER, "{name}");
    }
}

#[test]
fn servers_are_known_by_name_and_by_address() {
    for host in ["127.0.0.1", "localhost"] {
        let address = address(host, server("server", Wants::Nothing), "ca.pem", None, true);
        assert_eq!(ask(&address).expect(host), ANSWER);
    }
}

#[test]
fn what_rustls_refuses_is_explained() {
    for (certificate, host, ca, parts) in [
        (
            "server",
            "127.0.0.1",
            "other-ca.pem",
            ["UnknownIssuer", "ca.pem is not the authority"],
        ),
        (
            "server-dns-only",
            "127.0.0.1",
            "ca.pem",
            ["not valid for name", "subjectAltName=IP:127.0.0.1"],
        ),
        (
            "server-no-san",
            "localhost",
            "ca.pem",
            ["not valid for", "subjectAltName=DNS:localhost"],
        ),
        (
            "server-v1",
            "localhost",
            "ca.pem",
            ["UnsupportedCertVersion", "-extfile"],
        ),
        (
            "server-is-ca",
            "localhost",
            "server-is-ca.pem",
            ["CaUsedAsEndEntity", "basicConstraints=CA:FALSE"],
        ),
        (
            "server-client-only",
            "localhost",
            "ca.pem",
            ["server authentication", "extendedKeyUsage=serverAuth"],
        ),
        (
            "server-expired",
            "localhost",
            "ca.pem",
            ["expired", "is a clock wrong?"],
        ),
    ] {
        let port = server(certificate, Wants::Nothing);
        let address = address(host, port, ca, None, true);
        refused(&address, &["cannot connect to tcp://", parts[0], parts[1]]);
    }
}

#[test]
fn only_a_context_skips_the_proof() {
    for certificate in ["server-expired", "server-is-ca", "server-dns-only"] {
        let port = server(certificate, Wants::Nothing);
        let address = address("127.0.0.1", port, "other-ca.pem", None, false);
        assert_eq!(ask(&address).expect(certificate), ANSWER);
    }
}

#[test]
fn a_refused_or_missing_certificate_of_ours_is_explained() {
    let ours = Some(("client-pkcs8.pem", "client-pkcs8.key"));
    for (wants, identity) in [(Wants::Refuses, ours), (Wants::Any, None)] {
        let port = server("server", wants);
        let address = address("127.0.0.1", port, "ca.pem", identity, true);
        let error = ask(&address).expect_err("a refusal");
        let hint = error.hint_text().unwrap_or_default();
        assert!(hint.contains("cert.pem"), "{error} | {hint}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    for (ca, identity, parts) in [
        ("none.pem", None, ["none.pem", "no such file"]),
        ("make.sh", None, ["make.sh", "no certificate in it"]),
        (
            "client-v1.key",
            None,
            ["client-v1.key", "no certificate in it"],
        ),
        (
            "ca.pem",
            Some(("client-pkcs1.pem", "client-encrypted-pkcs1.key")),
            ["is encrypted", "openssl pkey -in"],
        ),
        (
            "ca.pem",
            Some(("client-pkcs8.pem", "client-encrypted-pkcs8.key")),
            ["is encrypted", "openssl pkey -in"],
        ),
        (
            "ca.pem",
            Some(("client-p521.pem", "client-p521.key")),
            ["not supported", "P-384"],
        ),
        (
            "ca.pem",
            Some(("client-sec1.pem", "client-ed25519.key")),
            ["not the key of", "client-sec1.pem"],
        ),
        (
            "ca.pem",
            Some(("client-sec1.pem", "client-sec1.pem")),
            ["client-sec1.pem", "private key in PEM"],
        ),
        (
            "ca.pem",
            Some(("gone.pem", "client-sec1.key")),
            ["gone.pem", "DOCKER_CERT_PATH"],
        ),
    ] {
        refused(&address("127.0.0.1", port, ca, identity, true), &parts);
    }
}

#[test]
fn plain_http_and_silence_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let _ = socket.read(&mut [0; 16]);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = socket.read(&mut [0; 1024]);
    });
    refused(
        &address("127.0.0.1", port, "ca.pem", None, true),
        &["no TLS is spoken on that port"],
    );

    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let begun = Instant::now();
    let address = address("127.0.0.1", port, "ca.pem", None, true);
    let error = connect(&address, Duration::from_millis(100)).expect_err("no handshake");
    assert!(error.is(Kind::TimedOut), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn another_thread_hangs_up() {
    let port = server("server", Wants::Nothing);
    let mut connection =
        connect(&address("127.0.0.1", port, "ca.pem", None, true), LIMIT).expect("a connection");
    let hangup = connection.hangup().expect("a handle");
    let reader = thread::spawn(move || connection.read(&mut [0; 8]).map_err(|error| error.kind()));
    thread::sleep(Duration::from_millis(20));
    hangup.hang_up();
    let end = reader.join().expect("the reader");
    assert!(
        matches!(end, Ok(0) | Err(io::ErrorKind::UnexpectedEof)),
        "{end:?}"
    );
}
