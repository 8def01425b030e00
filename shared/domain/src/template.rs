//! Profiles to begin with: an operator takes one and changes what is different at home.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    id::ProfileId,
    issuer::{BeyondIssuer, Profile, Purpose},
    lane::Class,
    policy::{
        ChoicePolicy, ExtendedKeyUsagesPolicy, Flag, KeyAlgorithm, KeyFormat, KeyUsagesPolicy, ListPolicy, Policy,
        Presence, PublicKeyPolicy, SanPolicy, SignaturePolicy, StringPolicy, SubjectDaPolicy, SubjectDnPolicy,
        ValidityPolicy,
    },
};

const DAY: i64 = 86_400;

/// TLS servers: a required common name and up to 100 DNS names of any domain, 90 days, keys of one algorithm in the given sizes,
/// brought in a PKCS#10 request. `hash` is what the issuer signs with, as HVCA names it (`SHA-256`).
pub fn tls_server(id: ProfileId, key: KeyAlgorithm, allowed_lengths: Vec<u32>, signature: &str, hash: &str) -> Profile {
    let set = |set: bool| if set { Flag::StaticTrue } else { Flag::StaticFalse };
    let required = |format: &str| StringPolicy {
        presence: Presence::Required,
        format: format.into(),
    };
    let choice = |value: &str| ChoicePolicy {
        presence: Presence::Optional,
        list: vec![value.into()],
    };
    Profile {
        id,
        version: 1,
        purpose: Purpose::EndEntity,
        class: Class::Interactive,
        sign_within: Duration::from_hours(40),
        answer_within: Duration::from_secs(6),
        policy: Policy {
            validity: ValidityPolicy {
                secondsmin: 3600,
                secondsmax: 90 * DAY,
                not_before_negative_skew: 3600,
                not_before_positive_skew: 3600,
                issuer_expiry: 0,
            },
            subject_dn: SubjectDnPolicy {
                common_name: required(".{1,64}"),
                ..SubjectDnPolicy::default()
            },
            san: SanPolicy {
                dns_names: ListPolicy {
                    is_static: false,
                    list: vec!["*".into()],
                    mincount: 0,
                    maxcount: 100,
                },
                ..SanPolicy::default()
            },
            key_usages: KeyUsagesPolicy {
                digital_signature: Flag::StaticTrue,
                content_commitment: Flag::StaticFalse,
                key_encipherment: set(key == KeyAlgorithm::Rsa),
                data_encipherment: Flag::StaticFalse,
                key_agreement: Flag::StaticFalse,
                key_certificate_sign: Flag::StaticFalse,
                crl_sign: Flag::StaticFalse,
                encipher_only: Flag::StaticFalse,
                decipher_only: Flag::StaticFalse,
            },
            extended_key_usages: ExtendedKeyUsagesPolicy {
                ekus: ListPolicy {
                    is_static: true,
                    list: vec!["1.3.6.1.5.5.7.3.1".into()],
                    mincount: 1,
                    maxcount: 1,
                },
                critical: false,
            },
            subject_da: SubjectDaPolicy::default(),
            qualified_statements: None,
            ms_extension_template: None,
            custom_extensions: BTreeMap::new(),
            signature: SignaturePolicy {
                algorithm: choice(signature),
                hash_algorithm: choice(hash),
            },
            public_key: PublicKeyPolicy {
                key_type: key,
                allowed_lengths,
                key_format: KeyFormat::Pkcs10,
            },
            public_key_signature: Presence::Forbidden,
        },
        // Domain validated (BR 7.1.2.7.2).
        certificate_policies: vec!["2.23.140.1.2.1".into()],
        beyond_issuer: BeyondIssuer::Clip,
        wildcards: true,
        unique_key: false,
        join_within: Duration::ZERO,
    }
}
