//! TLS 1.3 with libp2p identities on both ends.
//!
//! The provider is always named, because two are linked and rustls refuses to choose. AES-GCM stands first:
//! servers follow the client's order, and ChaCha20 costs three times as much on processors with AES. There is no
//! resumption: all peers go by the same server name, so sessions would be kept for the wrong ones.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use libp2p_tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, NoKeyLog, OtherError,
    ServerConfig, SignatureScheme, version,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Error;
use super::ahead::Ahead;
use crate::peer::{DialError, Keypair, PeerId};

/// The protocol that both ends must name.
const ALPN: &[u8] = b"casd/1";

/// Label of the exported value (RFC 8446, section 7.5).
const EXPORTER: &[u8] = b"EXPORTER-casd-session-1";

/// The node's side of every handshake.
pub(super) struct Tls {
    server: TlsAcceptor,
    /// What all dials share; each gets a verifier for its peer.
    client: ClientConfig,
}

impl Tls {
    pub(super) fn new(identity: &Keypair) -> Result<Self, Error> {
        let wrong = |error: &dyn std::error::Error| Error::Certificate(error.to_string());
        let (cert, key) = certificate::generate(identity).map_err(|error| wrong(&error))?;
        // Not by the builders that take a key: they ask webpki whether it fits the certificate, and webpki refuses
        // the identity extension, which is critical.
        let signer = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(|error| wrong(&error))?;
        let ours = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![cert], signer)));
        let provider = provider();
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| wrong(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { wanted: None }))
            .with_client_cert_resolver(ours.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.key_log = Arc::new(NoKeyLog);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(Arc::new(Verifier { wanted: None }))
            .with_cert_resolver(ours);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.key_log = Arc::new(NoKeyLog);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { server: TlsAcceptor::from(Arc::new(server)), client })
    }

    /// Shakes hands with whoever has connected; gives who it is.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<(TlsStream<Ahead>, PeerId)> {
        let stream = TlsStream::Server(self.server.accept(Ahead::new(socket)).await?);
        let peer = identify(&stream).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((stream, peer))
    }

    /// Shakes hands with `peer` and nobody else.
    pub(super) async fn connect(
        &self,
        peer: PeerId,
        at: SocketAddr,
        socket: TcpStream,
    ) -> Result<TlsStream<Ahead>, DialError> {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::new(Verifier { wanted: Some(peer) }));
        // Names nobody: an address is never sent as a server name.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let connected = TlsConnector::from(Arc::new(config)).connect(name, Ahead::new(socket)).await;
        let stream = TlsStream::Client(connected.map_err(|error| dial_error(at, peer, &error))?);
        match identify(&stream) {
            Ok(found) if found == peer => Ok(stream),
            Ok(found) => Err(DialError::WrongPeer { at, wanted: peer, found }),
            Err(error) => Err(handshake_error(at, &error)),
        }
    }
}

/// Who is at the other end. Its certificate has been verified; both ends must have named the protocol.
fn identify(stream: &TlsStream<Ahead>) -> Result<PeerId, rustls::Error> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(rustls::Error::NoApplicationProtocol);
    }
    match session.peer_certificates() {
        Some([cert]) => Ok(certificate::parse(cert)?.peer_id()),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

/// A value that only the two ends of this connection have.
pub(super) fn binding(stream: &TlsStream<Ahead>) -> Result<[u8; 32], rustls::Error> {
    match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
    }
}

pub(super) fn handshake_error(at: SocketAddr, error: &dyn std::error::Error) -> DialError {
    DialError::Handshake { at, why: error.to_string() }
}

/// Finds in a failed handshake whether another peer answered.
fn dial_error(at: SocketAddr, wanted: PeerId, error: &io::Error) -> DialError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) = inner
        && let Some(Stranger(found)) = other.downcast_ref()
    {
        return DialError::WrongPeer { at, wanted, found: *found };
    }
    handshake_error(at, error)
}

/// Ciphers in the order that clients offer and servers follow.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

/// Another peer than the one that was dialled.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is of {0}")]
struct Stranger(PeerId);

/// Checks that a certificate is one libp2p certificate, of the wanted peer if there is one.
#[derive(Debug)]
struct Verifier {
    wanted: Option<PeerId>,
}

impl Verifier {
    fn check(&self, cert: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !more.is_empty() {
            return Err(rustls::Error::General(
                "a certificate chain, where one certificate is due".to_owned(),
            ));
        }
        let found = certificate::parse(cert)?.peer_id();
        match self.wanted {
            // Before our own certificate is sent: a stranger does not learn who we are.
            Some(wanted) if wanted != found => {
                Err(CertificateError::Other(OtherError(Arc::new(Stranger(found)))).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the handshake was signed with the certificate's key.
    fn signed(
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(cert)?.verify_signature(signature.scheme, message, signature.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
        ]
    }

    fn old() -> rustls::Error {
        rustls::Error::General("only TLS 1.3 is spoken".to_owned())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
