//! What nodes ask of control: over mutual TLS once they are enrolled, and before that over a connection that only the fingerprint in
//! their code vouches for.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use domain::bytes::Digest;
use reqwest::Method;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Caller, ClientError, TlsFiles};
use crate::enrol::{Enrol, Enrolled, NodeAnswer};

/// A client for an enrolled node.
#[derive(Debug, Clone)]
pub struct NodeClient {
    caller: Caller,
}

impl NodeClient {
    /// A client of control at `base`.
    pub fn new(base: &str, files: &TlsFiles<'_>) -> Result<Self, ClientError> {
        Ok(Self {
            caller: Caller::new(base, files)?,
        })
    }

    /// Sends a request that the node has signed (`wire::enrol::seal_request`).
    pub async fn ask(&self, sealed: Bytes) -> Result<NodeAnswer, ClientError> {
        let request = self.caller.request(Method::POST, "/v1/node-requests").body(sealed);
        self.caller.read(request).await
    }
}

/// Enrols at control at `base`, whose access CA has this fingerprint.
pub async fn enrol(base: &str, access_ca: Digest, request: &Enrol) -> Result<Enrolled, ClientError> {
    let provider = Arc::new(default_provider());
    let verifier = Arc::new(Pinned {
        access_ca,
        provider: provider.clone(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let caller = Caller::over(base, config)?;
    let request = caller.request_with(Method::POST, "/v1/enrolments", request);
    caller.read(request).await
}

/// Believes a server whose chain, names and all, leads to the one CA with this fingerprint, which the server shows itself.
#[derive(Debug)]
struct Pinned {
    access_ca: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |certificate: &&CertificateDer<'_>| digest(&SHA256, certificate).as_ref() == self.access_ca.0;
        let ca = intermediates.iter().find(is_pinned);
        let ca = ca.ok_or_else(|| Error::General("control's access CA is not the one of the code".into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
