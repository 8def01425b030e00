//! subjectAltName (RFC 5280, 4.2.1.6; BR 7.1.2.7.12 and 7.1.4.3).

use std::net::{IpAddr, Ipv4Addr};

use idna::{
    AsciiDenyList,
    uts46::{DnsLength, Hyphens, Uts46},
};

use super::{Leaf, Rule, Verdict, ensure, extension::ExtensionKind, oid, tbs::GeneralName};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf("san-missing", "RFC 5280 4.2.1.6; BR 7.1.2.7.12", "san", missing),
    Rule::leaf("san-critical", "RFC 5280 4.2.1.6", "san", critical),
    Rule::leaf("san-kind", "RFC 5280 4.2.1.6; BR 7.1.2.7.12", "san", kind),
    Rule::leaf("san-repeated", "RFC 5280 4.2.1.6", "san", repeated),
    Rule::leaf(
        "dns-syntax",
        "RFC 1034 3.5; RFC 5890 2.3.1; RFC 5280 4.2.1.6",
        "san.dns_names",
        dns_syntax,
    ),
    Rule::leaf("dns-length", "RFC 1035 2.3.4", "san.dns_names", dns_length),
    Rule::leaf(
        "dns-trailing-dot",
        "RFC 5280 4.2.1.6",
        "san.dns_names",
        dns_trailing_dot,
    ),
    Rule::leaf("dns-ip-address", "BR 7.1.2.7.12", "san.dns_names", dns_ip_address),
    Rule::leaf(
        "dns-wildcard-place",
        "RFC 9525 6.3; BR 1.6.1",
        "san.dns_names",
        dns_wildcard_place,
    ),
    Rule::leaf(
        "dns-wildcard-permission",
        "profile wildcards",
        "san.dns_names",
        dns_wildcard_permission,
    ),
    Rule::leaf(
        "dns-idna",
        "RFC 5891 4; RFC 5280 7.2; BR 7.1.2.7.12",
        "san.dns_names",
        dns_idna,
    ),
    Rule::leaf(
        "mail-syntax",
        "RFC 5280 4.2.1.6; RFC 5321 4.1.2",
        "san.emails",
        mail_syntax,
    ),
    Rule::leaf("ip-length", "RFC 5280 4.2.1.6", "san.ip_addresses", ip_length),
    Rule::leaf(
        "uri-absolute",
        "RFC 5280 4.2.1.6; RFC 3986 3, 4.3",
        "san.uris",
        uri_absolute,
    ),
    Rule::leaf(
        "common-name-in-san",
        "BR 7.1.4.3",
        "subject_dn.common_name",
        common_name,
    ),
    Rule::leaf("mail-in-san", "RFC 5280 4.1.2.6", "subject_dn.email", subject_mail),
];

/// Servers are named there, and whoever has no subject.
fn missing(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    ensure(
        extensions.subject_alt_name.is_some() || !extensions.has_purpose(oid::SERVER_AUTH),
        || "a certificate for servers has no subjectAltName".into(),
    )
}

/// Critical when the subject is empty, otherwise as the profile says.
fn critical(leaf: &Leaf<'_>) -> Verdict {
    let Some(extension) = leaf.tbs.extensions.find(ExtensionKind::SubjectAltName) else {
        return Ok(());
    };
    let wanted = leaf.tbs.subject.is_empty() || leaf.profile.policy.san.critical;
    ensure(extension.critical == wanted, || {
        let (is, must) = if wanted {
            ("not critical", "must")
        } else {
            ("critical", "must not")
        };
        format!(
            "the subjectAltName is {is} and {must} be: the subject is {}empty",
            if leaf.tbs.subject.is_empty() { "" } else { "not " }
        )
    })
}

fn kind(leaf: &Leaf<'_>) -> Verdict {
    let names = leaf.tbs.extensions.subject_alt_name.iter().flatten();
    for name in names {
        let known = matches!(
            name.tag,
            GeneralName::DNS | GeneralName::MAIL | GeneralName::IP | GeneralName::URI | GeneralName::OTHER
        );
        ensure(known, || {
            format!("a name of the kind [{}] is not issued", name.tag & 0x1f)
        })?;
    }
    Ok(())
}

fn repeated(leaf: &Leaf<'_>) -> Verdict {
    let Some(names) = &leaf.tbs.extensions.subject_alt_name else {
        return Ok(());
    };
    // Sorted by length first, so that hardly any two names are compared in full.
    let folded = |name: &GeneralName<'_>| match name.tag {
        GeneralName::DNS => name.content.to_ascii_lowercase(),
        GeneralName::MAIL => fold_domain(name.content),
        _ => name.content.to_vec(),
    };
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by_key(|&at| (names[at].tag, names[at].content.len()));
    let alike =
        order.chunk_by(|&a, &b| names[a].tag == names[b].tag && names[a].content.len() == names[b].content.len());
    for group in alike.filter(|group| group.len() > 1) {
        let mut seen: Vec<_> = group.iter().map(|&at| (folded(&names[at]), at)).collect();
        seen.sort_unstable();
        if let Some(pair) = seen.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let name = names[pair[1].1];
            return ensure(false, || format!("a name is repeated: {}", name.text()))
                .map_err(|fault| fault.blaming(field_of(name.tag)));
        }
    }
    Ok(())
}

const fn field_of(tag: u8) -> &'static str {
    match tag {
        GeneralName::DNS => "san.dns_names",
        GeneralName::MAIL => "san.emails",
        GeneralName::IP => "san.ip_addresses",
        GeneralName::URI => "san.uris",
        GeneralName::OTHER => "san.other_names",
        _ => "san",
    }
}

/// The domain of a mailbox in lower case; the local part is another mailbox in another case.
fn fold_domain(mailbox: &[u8]) -> Vec<u8> {
    let mut folded = mailbox.to_vec();
    if let Some(at) = mailbox.iter().rposition(|byte| *byte == b'@') {
        folded[at..].make_ascii_lowercase();
    }
    folded
}

/// Judges every dNSName.
fn each_dns(leaf: &Leaf<'_>, judge: impl Fn(&str) -> bool, wrong: &str) -> Verdict {
    for name in leaf.tbs.extensions.names(GeneralName::DNS) {
        ensure(judge(name.text()), || format!("{:?}: {wrong}", name.text()))?;
    }
    Ok(())
}

/// The labels of a name without a wildcard in front and without a dot at the end.
fn labels(name: &str) -> std::str::Split<'_, char> {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.strip_suffix('.').unwrap_or(name).split('.')
}

/// Whether a text is made of letters, digits and hyphens, with a hyphen neither first nor last.
pub(super) fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first().is_some_and(|first| *first != b'-')
        && bytes.last() != Some(&b'-')
}

/// Whether a text is a domain name in the preferred syntax, without wildcard, of A-labels that are valid.
pub(super) fn is_domain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| is_label(label) && label.len() <= 63)
        && !is_numeric(name)
        && is_idna(name)
}

/// Asterisks are for the rule about wildcards.
fn dns_syntax(leaf: &Leaf<'_>) -> Verdict {
    let sound = |label: &str| is_label(label) || label.contains('*');
    let wrong = "labels are made of letters, digits and hyphens, with a hyphen neither first nor last";
    each_dns(leaf, |name| labels(name).all(sound), wrong)
}

fn dns_length(leaf: &Leaf<'_>) -> Verdict {
    each_dns(
        leaf,
        |name| name.strip_suffix('.').unwrap_or(name).len() <= 253 && labels(name).all(|label| label.len() <= 63),
        "a label has more than 63 characters, or the name more than 253",
    )
}

fn dns_trailing_dot(leaf: &Leaf<'_>) -> Verdict {
    each_dns(
        leaf,
        |name| !name.ends_with('.') || name == ".",
        "the name ends with a dot",
    )
}

/// Whether a name is an IPv4 address in one of the ways in which software takes it for one: the last label is a number.
fn is_numeric(name: &str) -> bool {
    let last = name
        .strip_suffix('.')
        .unwrap_or(name)
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    !last.is_empty()
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())))
}

fn dns_ip_address(leaf: &Leaf<'_>) -> Verdict {
    each_dns(leaf, |name| !is_numeric(name), "an IP address is not a DNS name")
}

/// One asterisk, alone in the left-most label, with a name after it.
fn dns_wildcard_place(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "a wildcard is the whole left-most label";
    each_dns(
        leaf,
        |name| !name.strip_prefix("*.").unwrap_or(name).contains('*'),
        wrong,
    )
}

fn dns_wildcard_permission(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "the profile has no wildcards";
    each_dns(leaf, |name| leaf.profile.wildcards || !name.starts_with("*."), wrong)
}

/// Whether every label is either no A-label at all, or one that decodes to what encodes to it again (and the name as a whole keeps
/// the rule about writing directions).
fn is_idna(name: &str) -> bool {
    let reserved = |label: &str| label.as_bytes().get(2..4) == Some(b"--");
    if !labels(name).any(reserved) || !labels(name).all(is_label) {
        return true;
    }
    if labels(name).any(|label| reserved(label) && !label.as_bytes()[..2].eq_ignore_ascii_case(b"xn")) {
        return false;
    }
    let lower = name.strip_prefix("*.").unwrap_or(name).to_ascii_lowercase();
    let idna = Uts46::new();
    let (unicode, decoded) = idna.to_unicode(lower.as_bytes(), AsciiDenyList::STD3, Hyphens::Check);
    let again = || {
        idna.to_ascii(
            unicode.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::Check,
            DnsLength::Ignore,
        )
    };
    let bare = |label: &str| label.starts_with("xn--");
    decoded.is_ok() && !unicode.split('.').any(bare) && again().is_ok_and(|again| again == lower)
}

fn dns_idna(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "a label with hyphens in its third and fourth place is not a valid A-label";
    each_dns(leaf, is_idna, wrong)
}

/// Whether a text is a mailbox of RFC 5321 with a dot-string as local part and a domain name, all in ASCII.
pub(super) fn is_mailbox(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let atom = |atom: &str| {
        !atom.is_empty()
            && atom
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    };
    text.len() <= 254 && local.len() <= 64 && local.split('.').all(atom) && is_domain(domain)
}

fn mail_syntax(leaf: &Leaf<'_>) -> Verdict {
    for name in leaf.tbs.extensions.names(GeneralName::MAIL) {
        ensure(is_mailbox(name.text()), || {
            format!("{:?} is not a mailbox: local-part@domain", name.text())
        })?;
    }
    Ok(())
}

fn ip_length(leaf: &Leaf<'_>) -> Verdict {
    for name in leaf.tbs.extensions.names(GeneralName::IP) {
        let length = name.content.len();
        ensure(matches!(length, 4 | 16), || {
            format!("an IP address has 4 or 16 bytes, not {length}")
        })?;
    }
    Ok(())
}

/// The parts of a URI that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uri<'a> {
    pub scheme: &'a str,
    /// The host, without port and user, if there is an authority. IPv6 addresses keep their brackets.
    pub host: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Reads an absolute URI (RFC 3986): scheme, and something after it. A host is a domain name or an address.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let begins = scheme.bytes().next()?.is_ascii_alphabetic();
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let allowed = |byte: u8| {
            byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        };
        if !begins
            || !scheme.bytes().all(sound)
            || rest.is_empty()
            || !rest.bytes().all(allowed)
            || !percent_encoded(rest)
        {
            return None;
        }
        let host = match rest.strip_prefix("//") {
            None => None,
            Some(rest) => {
                let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
                let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                Some(host_of(host_and_port)?)
            }
        };
        Some(Self { scheme, host })
    }

    /// Whether it begins with `http://` and a host.
    pub(super) fn is_http(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("http") && self.host.is_some()
    }
}

fn percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        after
            .as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The host of `host:port`, if both are sound.
fn host_of(text: &str) -> Option<&str> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, port) = text.split_at(end);
    let port_sound = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let host_sound = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_domain(host),
    };
    (port_sound && host_sound).then_some(host)
}

fn uri_absolute(leaf: &Leaf<'_>) -> Verdict {
    for name in leaf.tbs.extensions.names(GeneralName::URI) {
        ensure(Uri::read(name.text()).is_some(), || {
            format!("{:?} is not an absolute URI", name.text())
        })?;
    }
    Ok(())
}

/// The common name of a server is one of its alternative names, character by character.
fn common_name(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    if !extensions.has_purpose(oid::SERVER_AUTH) || extensions.subject_alt_name.is_none() {
        return Ok(());
    }
    for attribute in leaf
        .tbs
        .subject
        .attributes
        .iter()
        .filter(|attribute| attribute.oid == oid::COMMON_NAME)
    {
        let text = attribute.value.text().unwrap_or_default();
        let found = extensions.subject_alt_name.iter().flatten().any(|name| match name.tag {
            GeneralName::DNS => name.text() == text,
            GeneralName::IP => address(name.content).is_some_and(|address| address.to_string() == text),
            _ => false,
        });
        ensure(found, || {
            format!("the common name {text:?} is none of the alternative names")
        })?;
    }
    Ok(())
}

fn address(content: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(content).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)).ok()
}

/// A mail address in the subject of a certificate for mail is also an alternative name.
fn subject_mail(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    if !extensions.has_purpose(oid::EMAIL_PROTECTION) {
        return Ok(());
    }
    for attribute in leaf
        .tbs
        .subject
        .attributes
        .iter()
        .filter(|attribute| attribute.oid == oid::EMAIL_ADDRESS)
    {
        let found = extensions
            .names(GeneralName::MAIL)
            .any(|name| fold_domain(name.content) == fold_domain(attribute.value.content));
        ensure(found, || {
            "the emailAddress of the subject is none of the alternative names".into()
        })?;
    }
    Ok(())
}
