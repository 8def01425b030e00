//! Registering issuers: from another CA, and with a key of our own.

use domain::{bytes::Blob, key::KeyType};
use keys::Keys;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use wire::admin::{GenerateKey, MakeCsr, Past, RegisterIssuer};

use super::{Bench, Elsewhere, ca_usages, elsewhere, files, holds, import, token};
use crate::{Registry, RegistryError};

const BY: &str = "operator:alice";

async fn refused(registry: &Registry, request: RegisterIssuer) -> String {
    registry.register_issuer(BY, request).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_import_without_a_past_leaves_status_off_and_says_so() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let ca = elsewhere(ca_usages());
    let unknown = RegisterIssuer {
        past: Past::Unknown,
        ..import("unknown", &ca)
    };
    let changed = registry.register_issuer(BY, unknown).await.unwrap();
    assert!(
        changed.warnings[0].contains("crl and ocsp stay off"),
        "{:?}",
        changed.warnings
    );
    let usage = registry.issuer(&"unknown".parse().unwrap()).await.unwrap().usage;
    assert_eq!((usage.issue, usage.crl, usage.ocsp), (true, false, false));

    registry.register_issuer(BY, import("fresh", &ca)).await.unwrap();
    let usage = registry.issuer(&"fresh".parse().unwrap()).await.unwrap().usage;
    assert_eq!((usage.issue, usage.crl, usage.ocsp), (true, true, true));
}

#[tokio::test]
async fn a_dry_run_brings_no_key_and_no_issuer() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let ca = elsewhere(ca_usages());
    let changed = registry
        .register_issuer(
            BY,
            RegisterIssuer {
                dry_run: true,
                ..import("ca", &ca)
            },
        )
        .await
        .unwrap();
    assert!(changed.dry_run && changed.changed);
    assert!(!holds(&bench, "ca"));
    assert!(registry.issuers().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_import_that_failed_half_way_can_be_repeated() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let ca = elsewhere(ca_usages());
    bench.keys.import("ca", &ca.key.serialize_der()).unwrap();
    registry.register_issuer(BY, import("ca", &ca)).await.unwrap();
    assert!(refused(&registry, import("ca", &ca)).await.contains("exists already"));
}

#[tokio::test]
async fn what_is_no_issuer_is_refused_before_anything_is_changed() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let ca = elsewhere(ca_usages());
    let other = elsewhere(ca_usages());
    let no_crl_sign = elsewhere(vec![KeyUsagePurpose::KeyCertSign]);
    let no_cert_sign = elsewhere(vec![KeyUsagePurpose::CrlSign]);
    let of = |chain: &Elsewhere, key: &Elsewhere| RegisterIssuer {
        private_key: import("x", key).private_key,
        ..import("ca", chain)
    };
    for (request, said) in [
        (
            of(&ca, &other),
            "is not the private key of the chain's first certificate",
        ),
        (of(&no_crl_sign, &no_crl_sign), "cRLSign"),
        (of(&no_cert_sign, &no_cert_sign), "keyCertSign"),
        (
            RegisterIssuer {
                private_key: None,
                ..import("ca", &ca)
            },
            "is not on token soft",
        ),
        (
            RegisterIssuer {
                chain: "nothing".into(),
                ..import("ca", &ca)
            },
            "chain",
        ),
        (
            RegisterIssuer {
                public_url: Some("https://x".into()),
                ..import("ca", &ca)
            },
            "http://",
        ),
        (
            RegisterIssuer {
                token: "hsm".parse().unwrap(),
                ..import("ca", &ca)
            },
            "hsm is not one of this process",
        ),
    ] {
        let error = refused(&registry, request).await;
        assert!(error.contains(said), "{error}");
    }
    assert!(registry.issuers().await.unwrap().is_empty());
    assert!(!holds(&bench, "ca"));
}

#[tokio::test]
async fn a_key_on_the_token_that_is_another_than_the_certificates_is_found_out() {
    let bench = Bench::new();
    let registry = bench.started().await;
    bench
        .keys
        .import("ca", &elsewhere(ca_usages()).key.serialize_der())
        .unwrap();
    let error = refused(&registry, import("ca", &elsewhere(ca_usages()))).await;
    assert!(error.contains("is not the key of the issuer's certificate"), "{error}");
}

#[tokio::test]
async fn a_key_of_our_own_becomes_an_issuer_by_request_and_chain() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let generate = GenerateKey {
        token: token(),
        key: "own".into(),
        key_type: KeyType::P384,
        reason: "test".into(),
    };
    let report = registry.generate_key(BY, generate.clone()).await.unwrap();
    assert_eq!(
        (report.key_type, report.made_by.as_str(), report.fit_for_real_ca),
        (KeyType::P384, BY, false)
    );
    let taken = registry.generate_key(BY, generate).await;
    assert!(matches!(taken, Err(RegistryError::Keys(_))), "{taken:?}");

    let subject = "C=DE,O=Example,OU=one,OU=two,CN=Own".to_owned();
    let csr = registry
        .make_csr(MakeCsr {
            token: token(),
            key: "own".into(),
            subject,
        })
        .await
        .unwrap();
    let mut request = CertificateSigningRequestParams::from_pem(&csr.csr).unwrap();
    request.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    request.params.key_usages = ca_usages();
    request.params.key_identifier_method = KeyIdMethod::Sha256;
    let root = elsewhere(ca_usages());
    let above = Issuer::from_ca_cert_pem(&root.chain, &root.key).unwrap();
    let own = request.signed_by(&above).unwrap();
    let activate = RegisterIssuer {
        chain: own.pem() + &root.chain,
        private_key: None,
        ..import("own", &root)
    };
    registry.register_issuer(BY, activate).await.unwrap();
    let issuer = registry.issuer(&"own".parse().unwrap()).await.unwrap();
    assert_eq!((issuer.key_type, issuer.state.as_str()), (KeyType::P384, "enabled"));
}

#[tokio::test]
async fn a_past_is_kept_when_it_is_the_issuers_own() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let ca = elsewhere(ca_usages());
    let issuer = Issuer::from_ca_cert_pem(&ca.chain, &ca.key).unwrap();
    let leaf = CertificateParams::new(vec!["www.example.com".into()])
        .unwrap()
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let now = time::OffsetDateTime::now_utc();
    let crl = CertificateRevocationListParams {
        this_update: now,
        next_update: now + time::Duration::days(7),
        crl_number: SerialNumber::from(41_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = crl.signed_by(&issuer).unwrap();
    let past = |certificate: &[u8], last_crl: Option<&[u8]>| Past::Known {
        certificates: vec![Blob(certificate.to_vec())],
        last_crl: last_crl.map(|crl| Blob(crl.to_vec())),
    };
    let with = |past| RegisterIssuer {
        past,
        ..import("ca", &ca)
    };

    let stranger = elsewhere(ca_usages());
    let stranger = pki::pem::decode("CERTIFICATE", &stranger.chain).unwrap();
    let error = refused(&registry, with(past(&stranger, None))).await;
    assert!(error.contains("certificate 1 does not verify"), "{error}");
    let error = refused(&registry, with(past(leaf.der(), Some(leaf.der())))).await;
    assert!(error.contains("last CRL"), "{error}");

    let changed = registry
        .register_issuer(BY, with(past(leaf.der(), Some(crl.der()))))
        .await
        .unwrap();
    assert!(changed.warnings.is_empty());
    assert!(registry.issuer(&"ca".parse().unwrap()).await.unwrap().usage.crl);
    let kept = files(&bench.directory.path().join("history/ca"));
    assert_eq!(
        (kept.len(), kept.last().map(String::as_str)),
        (2, Some("last.crl")),
        "{kept:?}"
    );
}
