//! A certificate to be taken apart: a good one, with everything that it must agree with, made of parts that can be altered.

use domain::{
    bytes::Blob,
    id::Serial,
    issuer::{Issuer, IssuerState, Profile, Purpose, Usage},
    key::{KeyType, SignatureAlgorithm},
    policy::{
        CustomExtensionPolicy, Flag, IntegerPolicy, KeyAlgorithm, KeyUsagesPolicy, MsExtensionTemplatePolicy, Policy,
        Presence, QcPdsPolicy, QualifiedStatementsPolicy, SemanticsPolicy, StringPolicy, TypeAndValuePolicy, ValueType,
    },
};

use super::{
    super::{Finding, LintContext, lint_ca_chain},
    draft::*,
    writer::{bits, dns, ia5, int, ip, list, mail, oid, printable, rdn, seq, tlv, uri, utc, utf8},
};

/// A good certificate and its surroundings, to be altered.
#[derive(Clone)]
pub(super) struct Bench {
    pub leaf: Draft,
    pub profile: Profile,
    /// The issuer; its chain is made of [`Bench::chain`] at the end.
    pub issuer: Issuer,
    /// The issuer's certificate first.
    pub chain: Vec<Draft>,
    /// Takes the place of the leaf's to-be-signed bytes, and is judged without a signature.
    pub tbs: Option<Vec<u8>>,
    /// What is judged: the certificate to be issued, or its issuer's chain.
    pub of_chain: bool,
    /// Done to the issuer after its chain has been put into it.
    pub after: fn(&mut Issuer),
}

impl std::ops::Deref for Bench {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.leaf
    }
}
impl std::ops::DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Draft {
        &mut self.leaf
    }
}

impl Bench {
    /// A TLS server with a P-256 key, issued by a P-256 intermediate.
    pub(super) fn tls() -> Self {
        let key = p256();
        let intermediate = Draft::authority("Issuer", "Root", &key, [ISSUER_KEY_ID, ROOT_KEY_ID], 0);
        let root = Draft::authority("Root", "Root", &p256(), [ROOT_KEY_ID, ROOT_KEY_ID], 1);
        let issuer = Issuer {
            id: "bench".parse().unwrap(),
            subject: list(&intermediate.subject).into(),
            public_key: key.into(),
            key_type: KeyType::P256,
            signature_algorithm: SignatureAlgorithm::EcdsaSha256,
            subject_key_id: ISSUER_KEY_ID.to_vec().into(),
            chain: vec![],
            other_chains: vec![],
            not_after: 2_208_988_799,
            state: IssuerState::Enabled,
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
            reason: None,
            crl_shards: 16,
            public_url: "http://pki.example".into(),
            bindings: vec![],
        };
        let mut profile = domain::template::tls_server(
            "bench".parse().unwrap(),
            KeyAlgorithm::Ecdsa,
            vec![256],
            "ECDSA",
            "SHA-256",
        );
        open(&mut profile.policy);
        let mut serial = vec![0x01; 16];
        serial[15] = 0x23;
        let crl = issuer.crl_url(Serial::from_bytes(&serial).unwrap());
        let mut leaf = Draft {
            version: tlv(0xa0, &[&int(&[2])]),
            serial,
            algorithm: ECDSA_SHA256.to_vec(),
            issuer: issuer.subject.to_vec(),
            times: [utc("260101000000Z"), utc("260331235959Z")],
            subject: vec![
                rdn(COUNTRY, &printable("DE")),
                rdn(COMMON_NAME, &utf8("www.example.com")),
            ],
            public_key: p256(),
            unique: vec![],
            extensions: vec![],
            outer: None,
            signature: bits(&seq(&[&int(&[1]), &int(&[2])])),
        };
        leaf.add(AUTHORITY_KEY_ID, false, seq(&[&tlv(0x80, &[ISSUER_KEY_ID])]));
        leaf.add(SUBJECT_KEY_ID, false, vec![]);
        leaf.add(KEY_USAGE, true, tlv(0x03, &[&[0x07, 0x80]]));
        leaf.add(BASIC_CONSTRAINTS, true, seq(&[]));
        leaf.add(EXTENDED_KEY_USAGE, false, seq(&[&oid(SERVER_AUTH)]));
        leaf.add(
            ALTERNATIVE_NAMES,
            false,
            list(&[dns("www.example.com"), dns("*.example.com"), ip(&[192, 0, 2, 1])]),
        );
        leaf.add(POLICIES, false, seq(&[&seq(&[&oid("2.23.140.1.2.1")])]));
        leaf.add(
            ACCESS,
            false,
            seq(&[
                &access(1, &uri(&issuer.ocsp_url())),
                &access(2, &uri(&issuer.ca_issuers_url())),
            ]),
        );
        leaf.add(CRL_POINTS, false, crl_points(&uri(&crl)));
        leaf.add(CUSTOM, true, vec![0x05, 0x00]);
        Self {
            leaf,
            profile,
            issuer,
            chain: vec![intermediate, root],
            tbs: None,
            of_chain: false,
            after: |_| {},
        }
    }

    /// Good certificates of every kind.
    pub(super) fn good() -> Vec<(&'static str, Self)> {
        let with = |alter: fn(&mut Self)| {
            let mut bench = Self::tls();
            alter(&mut bench);
            bench
        };
        vec![
            ("tls", Self::tls()),
            ("chain", with(|b| b.of_chain = true)),
            ("rsa", with(Self::become_rsa)),
            (
                "ed25519",
                with(|b| b.take_key(KeyAlgorithm::Ed25519, 255, ed25519(&[0x58; 32]))),
            ),
            (
                "p384",
                with(|b| b.take_key(KeyAlgorithm::Ecdsa, 384, generated(KeyType::P384))),
            ),
            (
                "p521",
                with(|b| b.take_key(KeyAlgorithm::Ecdsa, 521, generated(KeyType::P521))),
            ),
            ("mail", with(Self::become_mail)),
            ("ocsp signer", with(Self::become_ocsp_signer)),
            ("tsa", with(Self::become_tsa)),
            (
                "no subject",
                with(|b| {
                    b.subject.clear();
                    b.extension(ALTERNATIVE_NAMES).critical = &[0xff];
                }),
            ),
            (
                "beyond 2049",
                with(|b| {
                    b.profile.policy.validity.secondsmax = i64::MAX;
                    b.issuer.not_after = i64::MAX;
                    b.times[1] = super::writer::generalized("20500101000000Z");
                }),
            ),
            (
                "A-labels",
                with(|b| {
                    b.san(&[
                        dns("www.example.com"),
                        dns("xn--bcher-kva.example"),
                        dns("*.xn--4gbrim.example"),
                    ])
                }),
            ),
            ("every attribute", with(Self::become_everything)),
        ]
    }

    pub(super) fn take_key(&mut self, algorithm: KeyAlgorithm, bits: u32, key: Vec<u8>) {
        self.profile.policy.public_key.key_type = algorithm;
        self.profile.policy.public_key.allowed_lengths = vec![bits];
        self.public_key = key;
    }

    pub(super) fn become_rsa(&mut self) {
        self.take_key(KeyAlgorithm::Rsa, 2048, rsa(256, &[1, 0, 1]));
        self.usage(&[0x05, 0xa0]);
    }

    pub(super) fn become_mail(&mut self) {
        self.purposes(&[CLIENT_AUTH, EMAIL_PROTECTION]);
        self.subject = vec![rdn(EMAIL, &ia5("jo@example.com")), rdn(COMMON_NAME, &utf8("Jo"))];
        self.san(&[
            mail("jo@EXAMPLE.com"),
            uri("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            uri("https://[2001:db8::1]:8443/a?b#c"),
        ]);
    }

    pub(super) fn become_ocsp_signer(&mut self) {
        self.profile.purpose = Purpose::OcspSigner;
        self.purposes(&[OCSP_SIGNING]);
        for oid in [ALTERNATIVE_NAMES, ACCESS, CRL_POINTS, POLICIES] {
            self.remove(oid);
        }
        self.profile.certificate_policies.clear();
        self.add(NO_CHECK, false, vec![0x05, 0x00]);
    }

    pub(super) fn become_tsa(&mut self) {
        self.profile.purpose = Purpose::Tsa;
        self.purposes(&[TIME_STAMPING]);
        self.extension(EXTENDED_KEY_USAGE).critical = &[0xff];
        self.remove(ALTERNATIVE_NAMES);
    }

    fn become_everything(&mut self) {
        self.purposes(&[CLIENT_AUTH]);
        self.subject = vec![
            rdn(DOMAIN_COMPONENT, &ia5("example")),
            rdn(DOMAIN_COMPONENT, &ia5("com")),
            rdn(COUNTRY, &printable("DE")),
            rdn("2.5.4.8", &utf8("Bayern")),
            rdn("2.5.4.7", &utf8("M\u{fc}nchen")),
            rdn("2.5.4.17", &printable("80331")),
            rdn("2.5.4.9", &utf8("Marienplatz 1")),
            rdn(ORGANIZATION, &utf8(&"\u{fc}".repeat(64))),
            rdn("2.5.4.97", &utf8("NTRDE-123")),
            rdn("2.5.4.15", &printable("Private Organization")),
            rdn("1.3.6.1.4.1.311.60.2.1.3", &printable("DE")),
            rdn("1.3.6.1.4.1.311.60.2.1.2", &utf8("Bayern")),
            rdn("1.3.6.1.4.1.311.60.2.1.1", &utf8("M\u{fc}nchen")),
            rdn("2.5.4.4", &utf8("Doe")),
            rdn("2.5.4.42", &utf8("Jo")),
            rdn("2.5.4.65", &utf8("jojo")),
            rdn(UNIT, &utf8("One")),
            rdn(UNIT, &utf8("Two")),
            rdn("2.5.4.5", &printable("4711")),
            rdn(EMAIL, &ia5("jo@example.com")),
            rdn(TITLE, &utf8("Dr")),
            rdn(EXTRA, &int(&[7])),
            rdn(EXTRA, &int(&[5])),
            rdn(COMMON_NAME, &utf8("Jo Doe")),
        ];
        self.add(
            DIRECTORY_ATTRIBUTES,
            false,
            seq(&[
                &directory_attribute(1, &super::writer::generalized("19710314120000Z")),
                &directory_attribute(2, &utf8("Bonn")),
                &directory_attribute(3, &printable("F")),
                &directory_attribute(4, &[printable("DE"), printable("FR")].concat()),
            ]),
        );
        self.add(
            STATEMENTS,
            false,
            seq(&[
                &seq(&[&oid("0.4.0.1862.1.1")]),
                &seq(&[&oid("0.4.0.1862.1.3"), &int(&[10])]),
                &seq(&[
                    &oid("0.4.0.1862.1.5"),
                    &seq(&[&seq(&[&ia5("https://pki.example/pds"), &printable("en")])]),
                ]),
                &seq(&[&oid("0.4.0.1862.1.6"), &seq(&[&oid("0.4.0.1862.1.6.1")])]),
            ]),
        );
        self.add(
            TEMPLATE,
            false,
            seq(&[&oid("1.3.6.1.4.1.311.21.8.1"), &int(&[100]), &int(&[0])]),
        );
    }

    /// Sets the alternative names.
    pub(super) fn san(&mut self, names: &[Vec<u8>]) {
        self.extension(ALTERNATIVE_NAMES).value = list(names);
    }

    /// Sets alternative names of a certificate that has no common name to agree with.
    pub(super) fn only_san(&mut self, names: &[Vec<u8>]) {
        self.subject.pop();
        self.san(names);
    }

    /// Sets the policies, and that the profile wants them.
    pub(super) fn policies(&mut self, policies: &[&str]) {
        self.profile.certificate_policies = policies.iter().map(|policy| (*policy).into()).collect();
        let policies: Vec<_> = policies.iter().map(|policy| seq(&[&oid(policy)])).collect();
        self.extension(POLICIES).value = list(&policies);
    }

    /// Gives its only policy a qualifier.
    pub(super) fn qualify(&mut self, kind: &str, value: &[u8]) {
        let policy = oid(&self.profile.certificate_policies[0]);
        self.extension(POLICIES).value = seq(&[&seq(&[&policy, &seq(&[&seq(&[&oid(kind), value])])])]);
    }

    /// Sets where OCSP is, beside the right place of the issuer's certificate.
    pub(super) fn ocsp_at(&mut self, location: &[u8]) {
        let issuers = uri(&self.issuer.ca_issuers_url());
        self.extension(ACCESS).value = seq(&[&access(1, location), &access(2, &issuers)]);
    }

    /// Sets the contents of the key usage's BIT STRING.
    pub(super) fn usage(&mut self, content: &[u8]) {
        self.extension(KEY_USAGE).value = tlv(0x03, &[content]);
    }

    /// Sets the purposes, and that the profile wants them.
    pub(super) fn purposes(&mut self, purposes: &[&str]) {
        let policy = &mut self.profile.policy.extended_key_usages.ekus;
        policy.list = purposes.iter().map(|purpose| (*purpose).into()).collect();
        let purposes: Vec<_> = purposes.iter().map(|purpose| oid(purpose)).collect();
        self.extension(EXTENDED_KEY_USAGE).value = list(&purposes);
    }

    pub(super) fn not_after(&mut self, text: &str) {
        self.times[1] = utc(text);
    }

    /// Puts nameConstraints into the root: permitted and excluded subtrees.
    pub(super) fn constrain(&mut self, permitted: &[Vec<u8>], excluded: &[Vec<u8>]) {
        let trees = |number: u8, bases: &[Vec<u8>]| {
            let trees: Vec<_> = bases.iter().map(|base| seq(&[base])).collect();
            if trees.is_empty() {
                vec![]
            } else {
                tlv(0xa0 | number, &[&trees.concat()])
            }
        };
        let value = seq(&[&trees(0, permitted), &trees(1, excluded)]);
        self.chain[1].add(NAME_CONSTRAINTS, true, value);
    }

    /// The issuer with its chain.
    pub(super) fn issuer(&self) -> Issuer {
        let mut issuer = self.issuer.clone();
        issuer.chain = self.chain.iter().map(|draft| Blob(draft.certificate())).collect();
        (self.after)(&mut issuer);
        issuer
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let issuer = self.issuer();
        if self.of_chain {
            return lint_ca_chain(&issuer);
        }
        let context = LintContext::new(&issuer);
        match &self.tbs {
            Some(tbs) => context.lint_tbs(tbs, &self.profile),
            None => context.lint_certificate(&self.leaf.certificate(), &self.profile),
        }
    }
}

/// Lets a policy have nearly everything, so that one rule at a time can be broken.
fn open(policy: &mut Policy) {
    let text = || StringPolicy {
        presence: Presence::Optional,
        format: ".*".into(),
    };
    policy.key_usages = KeyUsagesPolicy {
        digital_signature: Flag::Optional,
        content_commitment: Flag::Optional,
        key_encipherment: Flag::Optional,
        data_encipherment: Flag::Optional,
        key_agreement: Flag::Optional,
        key_certificate_sign: Flag::Optional,
        crl_sign: Flag::Optional,
        encipher_only: Flag::Optional,
        decipher_only: Flag::Optional,
    };
    for oid in [DOMAIN_COMPONENT, TITLE, EXTRA, OTHER_EXTRA] {
        let any = TypeAndValuePolicy {
            is_static: false,
            value_type: ValueType::Der,
            value_format: ".*".into(),
            mincount: 0,
            maxcount: 9,
        };
        policy.subject_dn.extra_attributes.insert(oid.into(), any);
    }
    policy.subject_da.gender = text();
    policy.qualified_statements = Some(QualifiedStatementsPolicy {
        semantics: SemanticsPolicy::default(),
        etsi_qc_compliance: Flag::Optional,
        etsi_qc_sscd_compliance: Flag::Optional,
        etsi_qc_type: text(),
        etsi_qc_retention_period: IntegerPolicy::default(),
        etsi_qc_pds: QcPdsPolicy::default(),
    });
    policy.ms_extension_template = Some(MsExtensionTemplatePolicy::default());
    let custom = CustomExtensionPolicy {
        presence: Presence::Optional,
        critical: true,
        value_type: ValueType::Nil,
        value_format: ".*".into(),
    };
    policy.custom_extensions.insert(CUSTOM.into(), custom);
}
