//! Extensions as such, and those that point elsewhere: authorityInfoAccess, cRLDistributionPoints, certificatePolicies
//! (RFC 5280, 4.2, 4.2.1.4, 4.2.1.13, 4.2.2.1).

use domain::{issuer::Purpose, policy::SubjectDaPolicy};

use super::{
    Leaf, Rule, Verdict, ensure,
    extension::{Extension, ExtensionKind as Kind, PolicyInformation},
    names::Uri,
    oid,
    parser::{Malformed, Reader, tag},
    primitive::{dotted, is_dotted},
    tbs::GeneralName,
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf(
        "extension-repeated",
        "RFC 5280 4.2",
        "custom_extensions",
        extension_repeated,
    ),
    Rule::leaf(
        "extension-critical",
        "RFC 5280 4.2.1, 4.2.2; BR 7.1.2.7.6",
        "custom_extensions",
        extension_critical,
    ),
    Rule::leaf(
        "extension-expected",
        "profile custom_extensions; BR 7.1.2.11.5",
        "custom_extensions",
        extension_expected,
    ),
    Rule::leaf(
        "extension-of-ca",
        "RFC 5280 4.2.1.5, 4.2.1.10, 4.2.1.11, 4.2.1.14",
        "custom_extensions",
        extension_of_ca,
    ),
    Rule::leaf("empty-sequence", "RFC 5280 4.1, 4.2", "", empty_sequence),
    Rule::leaf("access-http", "RFC 5280 4.2.2.1; BR 7.1.2.7.7", "", access_http),
    Rule::leaf("access-own", "RFC 5280 4.2.2.1", "", access_own),
    Rule::leaf("crl-point-form", "RFC 5280 4.2.1.13; BR 7.1.2.11.2", "", crl_point_form),
    Rule::leaf("crl-point-http", "RFC 5280 4.2.1.13; BR 7.1.2.11.2", "", crl_point_http),
    Rule::leaf("crl-point-shard", "RFC 5280 4.2.1.13, 5.2.5", "", crl_point_shard),
    Rule::leaf(
        "revocation-information",
        "BR 7.1.2.7.6, 7.1.2.8.2; RFC 6960 4.2.2.2.1",
        "",
        revocation_information,
    ),
    Rule::leaf("policy-own", "profile certificate_policies", "", policy_own),
    Rule::leaf("policy-repeated", "RFC 5280 4.2.1.4", "", policy_repeated),
    Rule::leaf("policy-any", "BR 7.1.2.7.9", "", policy_any),
    Rule::leaf(
        "policy-qualifier",
        "RFC 5280 4.2.1.4; BR 7.1.2.7.9",
        "",
        policy_qualifier,
    ),
];

fn blaming(extension: &Extension<'_>, good: bool, detail: impl FnOnce(String) -> String) -> Verdict {
    ensure(good, || detail(label(extension))).map_err(|fault| fault.blaming(extension.kind.named().1))
}

fn label(extension: &Extension<'_>) -> String {
    match extension.kind {
        Kind::Other => format!("extension {}", dotted(extension.oid)),
        known => known.named().0.into(),
    }
}

fn extension_repeated(leaf: &Leaf<'_>) -> Verdict {
    let all = &leaf.tbs.extensions.all;
    all.iter().enumerate().try_for_each(|(at, extension)| {
        let again = all[..at].iter().any(|other| other.oid == extension.oid);
        blaming(extension, !again, |label| format!("{label} is there twice"))
    })
}

/// As the RFCs say, and where they leave it open, as the profile says. subjectAltName and timeStamping have rules of their own.
fn extension_critical(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy;
    leaf.tbs.extensions.all.iter().try_for_each(|extension| {
        let wanted = match extension.kind {
            Kind::KeyUsage
            | Kind::NameConstraints
            | Kind::PolicyConstraints
            | Kind::InhibitAnyPolicy
            | Kind::PolicyMappings => true,
            Kind::BasicConstraints | Kind::SubjectAltName => return Ok(()),
            Kind::ExtendedKeyUsage if leaf.tbs.extensions.has_purpose(oid::TIME_STAMPING) => return Ok(()),
            Kind::ExtendedKeyUsage => policy.extended_key_usages.critical,
            Kind::MsTemplate => policy
                .ms_extension_template
                .as_ref()
                .is_some_and(|template| template.critical),
            Kind::Other => match permitted(leaf, extension) {
                Some(custom) => custom,
                None => return Ok(()),
            },
            _ => false,
        };
        blaming(extension, extension.critical == wanted, |label| {
            format!("{label} is {}critical", if extension.critical { "" } else { "not " })
        })
    })
}

/// Whether the profile knows the extension by its identifier, and whether it is critical then.
fn permitted(leaf: &Leaf<'_>, extension: &Extension<'_>) -> Option<bool> {
    let custom = &leaf.profile.policy.custom_extensions;
    custom
        .iter()
        .find(|(oid, _)| is_dotted(extension.oid, oid))
        .map(|(_, policy)| policy.critical)
}

/// Only what belongs into every certificate, or has a place in the profile.
fn extension_expected(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy;
    leaf.tbs.extensions.all.iter().try_for_each(|extension| {
        let expected = match extension.kind {
            Kind::Other | Kind::IssuerAltName | Kind::FreshestCrl | Kind::SubjectInfoAccess => {
                permitted(leaf, extension).is_some()
            }
            Kind::SubjectDirectoryAttributes => policy.subject_da != SubjectDaPolicy::default(),
            Kind::QualifiedStatements => policy.qualified_statements.is_some(),
            Kind::MsTemplate => policy.ms_extension_template.is_some(),
            _ => true,
        };
        blaming(extension, expected, |label| format!("{label} is not in the profile"))
    })
}

fn extension_of_ca(leaf: &Leaf<'_>) -> Verdict {
    leaf.tbs.extensions.all.iter().try_for_each(|extension| {
        let of_ca = matches!(
            extension.kind,
            Kind::NameConstraints | Kind::PolicyConstraints | Kind::PolicyMappings | Kind::InhibitAnyPolicy
        );
        blaming(extension, !of_ca, |label| format!("{label} is for CA certificates"))
    })
}

/// No SEQUENCE or SET without elements, but for basicConstraints, where it says CA:FALSE, and in extensions that the profile defines.
fn empty_sequence(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    extensions.all.iter().try_for_each(|extension| {
        let free = matches!(extension.kind, Kind::BasicConstraints | Kind::Other);
        blaming(extension, free || !has_empty(extension.value), |label| {
            format!("{label} has an empty sequence")
        })
    })
}

fn has_empty(der: &[u8]) -> bool {
    let mut reader = Reader::new(der);
    while let Ok(element) = reader.element() {
        if element.tag & tag::CONSTRUCTED != 0 && (element.content.is_empty() || has_empty(element.content)) {
            return true;
        }
    }
    false
}

fn is_http(location: &GeneralName<'_>) -> bool {
    location.tag == GeneralName::URI && Uri::read(location.text()).is_some_and(|uri| uri.is_http())
}

/// Only the two methods, each with an http URL that has a host.
fn access_http(leaf: &Leaf<'_>) -> Verdict {
    leaf.tbs.extensions.authority_info_access.iter().try_for_each(|access| {
        ensure(is_http(&access.location), || {
            format!(
                "the location of access method {} is not an http URL with a host: {:?}",
                dotted(access.method),
                access.location.text()
            )
        })
    })
}

/// The URLs are the issuer's own, each method at most once.
fn access_own(leaf: &Leaf<'_>) -> Verdict {
    let issuer = &leaf.context.issuer;
    let all = &leaf.tbs.extensions.authority_info_access;
    all.iter().enumerate().try_for_each(|(at, access)| {
        let wanted = match access.method {
            oid::ACCESS_OCSP => issuer.ocsp_url(),
            oid::ACCESS_CA_ISSUERS => issuer.ca_issuers_url(),
            method => {
                return ensure(false, || {
                    format!("access method {} is neither OCSP nor caIssuers", dotted(method))
                });
            }
        };
        let again = all[..at].iter().any(|other| other.method == access.method);
        ensure(!again, || {
            format!("access method {} is there twice", dotted(access.method))
        })?;
        ensure(!is_http(&access.location) || access.location.text() == wanted, || {
            format!(
                "the location of access method {} is {:?}, the issuer's is {wanted:?}",
                dotted(access.method),
                access.location.text()
            )
        })
    })
}

/// One distribution point with one full name, without reasons and without another issuer.
fn crl_point_form(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    let good = match extensions.crl_distribution_points.as_slice() {
        [] => true,
        [point] => point.full_name.len() == 1 && !point.others,
        _ => false,
    };
    ensure(good, || {
        "cRLDistributionPoints is not one distribution point with one fullName and nothing else".into()
    })
}

fn crl_point_http(leaf: &Leaf<'_>) -> Verdict {
    let names = leaf
        .tbs
        .extensions
        .crl_distribution_points
        .iter()
        .flat_map(|point| &point.full_name);
    for name in names {
        ensure(is_http(name), || {
            format!("the name of the CRL is not an http URL with a host: {:?}", name.text())
        })?;
    }
    Ok(())
}

/// The shard that the serial belongs to.
fn crl_point_shard(leaf: &Leaf<'_>) -> Verdict {
    let Some(serial) = leaf.serial else { return Ok(()) };
    let names = leaf
        .tbs
        .extensions
        .crl_distribution_points
        .iter()
        .flat_map(|point| &point.full_name);
    for name in names.filter(|name| is_http(name)) {
        let wanted = leaf.context.issuer.crl_url(serial);
        ensure(name.text() == wanted, || {
            format!("the CRL is {:?}, the serial's shard is {wanted:?}", name.text())
        })?;
    }
    Ok(())
}

/// OCSP signers are not looked up; whoever else it is has a CRL, and URLs of OCSP and of the issuer's certificate.
fn revocation_information(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    let listed = extensions.find(Kind::CrlDistributionPoints).is_some();
    let access = extensions.find(Kind::AuthorityInfoAccess).is_some();
    if leaf.profile.purpose == Purpose::OcspSigner {
        return ensure(!listed && !access, || {
            "an OCSP signer's certificate has a CRL distribution point or authorityInfoAccess".into()
        });
    }
    let has = |method: &[u8]| {
        extensions
            .authority_info_access
            .iter()
            .any(|access| access.method == method)
    };
    let empty = access && extensions.authority_info_access.is_empty();
    ensure(
        listed && (empty || has(oid::ACCESS_OCSP) && has(oid::ACCESS_CA_ISSUERS)),
        || "there is no CRL distribution point, no OCSP URL, or no URL of the issuer's certificate".into(),
    )
}

/// Exactly those of the profile, in its order.
fn policy_own(leaf: &Leaf<'_>) -> Verdict {
    let wanted = &leaf.profile.certificate_policies;
    let policies = &leaf.tbs.extensions.certificate_policies;
    let exact = policies.len() == wanted.len()
        && policies
            .iter()
            .zip(wanted)
            .all(|(policy, wanted)| is_dotted(policy.oid, wanted));
    ensure(exact, || {
        format!("the policies are not those of the profile: {}", wanted.join(", "))
    })
}

fn policy_repeated(leaf: &Leaf<'_>) -> Verdict {
    let policies = &leaf.tbs.extensions.certificate_policies;
    policies.iter().enumerate().try_for_each(|(at, policy)| {
        let again = policies[..at].iter().any(|other| other.oid == policy.oid);
        ensure(!again, || format!("policy {} is repeated", dotted(policy.oid)))
    })
}

fn policy_any(leaf: &Leaf<'_>) -> Verdict {
    let any = leaf
        .tbs
        .extensions
        .certificate_policies
        .iter()
        .any(|policy| policy.oid == oid::ANY_POLICY);
    ensure(!any, || "anyPolicy in a certificate that is not a CA's".into())
}

/// A CPS pointer is an http or https URL; a user notice is a text of at most 200 characters without a reference.
fn policy_qualifier(leaf: &Leaf<'_>) -> Verdict {
    leaf.tbs.extensions.certificate_policies.iter().try_for_each(|policy| {
        let sound = qualifiers_sound(policy).unwrap_or(false);
        ensure(sound, || {
            format!("a qualifier of policy {} is malformed", dotted(policy.oid))
        })
    })
}

fn qualifiers_sound(policy: &PolicyInformation<'_>) -> Result<bool, Malformed> {
    let Some(mut qualifiers) = policy.qualifiers else {
        return Ok(true);
    };
    while !qualifiers.is_empty() {
        let mut qualifier = qualifiers.expect(tag::SEQUENCE, "PolicyQualifierInfo")?.inner();
        let kind = qualifier.expect(tag::OBJECT_IDENTIFIER, "policyQualifierId")?.content;
        let value = qualifier.element()?;
        qualifier.end()?;
        let sound = match kind {
            oid::QUALIFIER_CPS => {
                value.tag == tag::IA5_STRING && {
                    let uri = value.text().and_then(Uri::read);
                    uri.is_some_and(|uri| uri.is_http() || uri.scheme == "https" && uri.host.is_some())
                }
            }
            oid::QUALIFIER_USER_NOTICE if value.tag == tag::SEQUENCE => {
                let mut notice = value.inner();
                let text = notice.optional(tag::UTF8_STRING)?;
                notice.is_empty() && text.is_none_or(|text| text.text().is_some_and(|text| text.chars().count() <= 200))
            }
            _ => false,
        };
        if !sound {
            return Ok(false);
        }
    }
    Ok(true)
}
