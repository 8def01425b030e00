//! What the CA certificates of a chain demand of what is issued below them: name constraints (RFC 5280, 4.2.1.10) and extended key
//! usages (4.2.1.12; BR 7.1.2.10.6).

use domain::issuer::Issuer;

use super::{
    Leaf, Rule, Verdict, ensure,
    envelope::Envelope,
    extension::{ExtensionKind, Extensions},
    names::Uri,
    oid,
    parser::{Element, Malformed, Reader, tag},
    primitive::dotted,
    subject::same_value,
    tbs::{Attribute, GeneralName, Name, Tbs},
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf("chain-readable", "RFC 5280 6.1", "", chain_readable),
    Rule::leaf(
        "constraint-directory",
        "RFC 5280 4.2.1.10, 7.1",
        "subject_dn",
        directory,
    ),
    Rule::leaf("constraint-dns", "RFC 5280 4.2.1.10", "san.dns_names", dns),
    Rule::leaf("constraint-mail", "RFC 5280 4.2.1.10", "san.emails", mail),
    Rule::leaf("constraint-ip", "RFC 5280 4.2.1.10", "san.ip_addresses", ip),
    Rule::leaf("constraint-uri", "RFC 5280 4.2.1.10", "san.uris", uri),
    Rule::leaf("constraint-other", "RFC 5280 4.2.1.10", "san.other_names", other),
    Rule::leaf(
        "constraint-purpose",
        "RFC 5280 4.2.1.12; BR 7.1.2.10.6",
        "extended_key_usages",
        purpose,
    ),
];

/// What a chain demands.
#[derive(Debug, Clone, Default)]
pub(super) struct Demands {
    /// From the certificates that have name constraints.
    constraints: Vec<NameConstraints>,
    /// From the certificates that have extended key usages other than `any`: the contents of their OBJECT IDENTIFIERs.
    purposes: Vec<Vec<Vec<u8>>>,
    /// Why the chain could not be read.
    unreadable: Option<String>,
}

impl Demands {
    /// The demands of the default chain, its root included.
    pub(super) fn of(issuer: &Issuer) -> Self {
        let mut demands = Self::default();
        for (at, certificate) in issuer.chain.iter().enumerate() {
            if let Err(reason) = demands.add(certificate) {
                demands.unreadable = Some(format!("certificate {at} of the chain: {reason}"));
                break;
            }
        }
        demands
    }

    fn add(&mut self, certificate: &[u8]) -> Result<(), String> {
        let envelope = Envelope::read(certificate).map_err(|unreadable| unreadable.to_string())?;
        let tbs = Tbs::read(envelope.tbs).map_err(|unreadable| unreadable.to_string())?;
        let constraints =
            NameConstraints::of(&tbs.extensions).map_err(|reason| format!("nameConstraints: {reason}"))?;
        self.constraints.extend(constraints);
        if let Some(purposes) = &tbs.extensions.extended_key_usage
            && !tbs.extensions.has_purpose(oid::ANY_PURPOSE)
        {
            self.purposes
                .push(purposes.iter().map(|purpose| purpose.to_vec()).collect());
        }
        Ok(())
    }
}

/// nameConstraints of one certificate.
#[derive(Debug, Clone)]
pub(super) struct NameConstraints {
    permitted: Vec<Base>,
    excluded: Vec<Base>,
}

/// The base of a subtree: a GeneralName.
#[derive(Debug, Clone)]
struct Base {
    tag: u8,
    content: Vec<u8>,
}

impl NameConstraints {
    /// Reads the extension, if there is one. Subtrees with a minimum or maximum are refused, as RFC 5280 has none.
    pub(super) fn of(extensions: &Extensions<'_>) -> Result<Option<Self>, Malformed> {
        let Some(extension) = extensions.find(ExtensionKind::NameConstraints) else {
            return Ok(None);
        };
        let mut reader = Reader::sequence_in(extension.value, "NameConstraints")?;
        let permitted = subtrees(reader.optional(tag::context_constructed(0))?)?;
        let excluded = subtrees(reader.optional(tag::context_constructed(1))?)?;
        reader.end()?;
        if permitted.is_empty() && excluded.is_empty() {
            return Err(Malformed::Shape("there is neither a permitted nor an excluded subtree"));
        }
        Ok(Some(Self { permitted, excluded }))
    }

    /// Whether a name of the kind `tag` is acceptable: within no excluded subtree, and within a permitted one if there are any of its kind.
    fn accept(&self, tag: u8, within: impl Fn(&[u8], Side) -> bool) -> bool {
        fn of_kind(bases: &[Base], tag: u8) -> impl Iterator<Item = &[u8]> {
            bases
                .iter()
                .filter(move |base| base.tag == tag)
                .map(|base| base.content.as_slice())
        }
        let excluded = of_kind(&self.excluded, tag).any(|base| within(base, Side::Excluded));
        let mut permitted = of_kind(&self.permitted, tag).peekable();
        !excluded && (permitted.peek().is_none() || permitted.any(|base| within(base, Side::Permitted)))
    }

    /// Whether names of a kind are constrained at all.
    fn constrains(&self, tag: u8) -> bool {
        self.permitted.iter().chain(&self.excluded).any(|base| base.tag == tag)
    }
}

/// Which list a base is in: what cannot be decided counts as excluded and as not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Permitted,
    Excluded,
}

fn subtrees(list: Option<Element<'_>>) -> Result<Vec<Base>, Malformed> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let subtrees = list.inner().each(|element| {
        let mut subtree = Reader::sequence_in(element.whole, "GeneralSubtree")?;
        let base = GeneralName::read(subtree.element()?)?;
        if !subtree.is_empty() {
            return Err(Malformed::Shape("a subtree with a minimum or maximum"));
        }
        if base.tag == GeneralName::IP && !mask_sound(base.content) {
            return Err(Malformed::Shape("an address range without a sound mask"));
        }
        let content = base.content.to_vec();
        Ok(Base { tag: base.tag, content })
    })?;
    if subtrees.is_empty() {
        Err(Malformed::Shape("an empty list of subtrees"))
    } else {
        Ok(subtrees)
    }
}

/// Address and mask of the same length, the mask ones first and then zeros.
fn mask_sound(range: &[u8]) -> bool {
    let (_, mask) = range.split_at(range.len() / 2);
    let ones_first = mask.is_sorted_by(|a, b| *a == 0xff || *b == 0);
    let each = mask.iter().all(|byte| byte.leading_ones() == byte.count_ones());
    matches!(range.len(), 8 | 32) && ones_first && each
}

fn chain_readable(leaf: &Leaf<'_>) -> Verdict {
    match &leaf.context.demands.unreadable {
        None => Ok(()),
        Some(reason) => ensure(false, || reason.clone()),
    }
}

/// Judges one name against every certificate of the chain.
fn accepted(leaf: &Leaf<'_>, tag: u8, within: impl Fn(&[u8], Side) -> bool, name: impl Fn() -> String) -> Verdict {
    let good = leaf
        .context
        .demands
        .constraints
        .iter()
        .all(|constraints| constraints.accept(tag, &within));
    ensure(good, || {
        format!("{} is outside the name constraints of the chain", name())
    })
}

fn unconstrained(leaf: &Leaf<'_>) -> bool {
    leaf.context.demands.constraints.is_empty()
}

fn directory(leaf: &Leaf<'_>) -> Verdict {
    let subject = &leaf.tbs.subject;
    if unconstrained(leaf) || subject.is_empty() {
        return Ok(());
    }
    let within = |base: &[u8], side: Side| directory_within(subject, base).unwrap_or(side == Side::Excluded);
    accepted(leaf, GeneralName::DIRECTORY, within, || "the subject".into())
}

/// Whether `name` begins with the relative distinguished names of `base`.
fn directory_within(name: &Name<'_>, base: &[u8]) -> Option<bool> {
    let base = Name::read(Element::only(base).ok()?).ok()?;
    let rdns = base.attributes.last().map_or(0, |last| last.rdn + 1);
    let sizes = |name: &Name<'_>, rdn| name.attributes.iter().filter(|attribute| attribute.rdn == rdn).count();
    let has = |wanted: &Attribute<'_>| {
        name.attributes
            .iter()
            .any(|attribute| attribute.rdn == wanted.rdn && same_value(attribute, wanted))
    };
    Some((0..rdns).all(|rdn| sizes(&base, rdn) == sizes(name, rdn)) && base.attributes.iter().all(has))
}

fn dns(leaf: &Leaf<'_>) -> Verdict {
    if unconstrained(leaf) {
        return Ok(());
    }
    let names = leaf.tbs.extensions.names(GeneralName::DNS);
    for name in names {
        accepted(
            leaf,
            GeneralName::DNS,
            |base, side| dns_within(name.text(), base, side),
            || name.text().into(),
        )?;
    }
    if leaf.tbs.extensions.names(GeneralName::DNS).next().is_some() {
        return Ok(());
    }
    // Where no alternative name is a DNS name, software takes a common name that looks like one for it.
    for attribute in leaf
        .tbs
        .subject
        .attributes
        .iter()
        .filter(|attribute| attribute.oid == oid::COMMON_NAME)
    {
        let text = attribute.value.text().unwrap_or_default();
        if text.contains('.') && super::names::is_domain(text.strip_prefix("*.").unwrap_or(text)) {
            accepted(
                leaf,
                GeneralName::DNS,
                |base, side| dns_within(text, base, side),
                || format!("the common name {text}"),
            )
            .map_err(|fault| fault.blaming("subject_dn.common_name"))?;
        }
    }
    Ok(())
}

/// Whether `name` is `domain` or below it; with a dot in front, `domain` has only what is below it. Empty is everything.
fn below(name: &str, domain: &str) -> bool {
    let (domain, itself) = match domain.strip_prefix('.') {
        Some(domain) => (domain, false),
        None => (domain, true),
    };
    if domain.is_empty() {
        return true;
    }
    match name.len().checked_sub(domain.len()) {
        Some(0) => itself && name.eq_ignore_ascii_case(domain),
        Some(at) => name.is_char_boundary(at) && name[at..].eq_ignore_ascii_case(domain) && name[..at].ends_with('.'),
        None => false,
    }
}

/// A wildcard is permitted when all that it stands for is, and excluded when anything that it stands for is.
fn dns_within(name: &str, base: &[u8], side: Side) -> bool {
    let Ok(base) = std::str::from_utf8(base) else {
        return side == Side::Excluded;
    };
    let Some(parent) = name.strip_prefix("*.") else {
        return below(name, base);
    };
    let covers = side == Side::Excluded
        && base
            .trim_start_matches('.')
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent));
    // Whatever the asterisk stands for is below its parent, so that a dot in front of the base makes no difference.
    below(parent, base.strip_prefix('.').unwrap_or(base)) || covers
}

fn mail(leaf: &Leaf<'_>) -> Verdict {
    if unconstrained(leaf) {
        return Ok(());
    }
    for name in leaf.tbs.extensions.names(GeneralName::MAIL) {
        accepted(
            leaf,
            GeneralName::MAIL,
            |base, side| mail_within(name.text(), base, side),
            || name.text().into(),
        )?;
    }
    for attribute in leaf
        .tbs
        .subject
        .attributes
        .iter()
        .filter(|attribute| attribute.oid == oid::EMAIL_ADDRESS)
    {
        let text = attribute.value.text().unwrap_or_default();
        accepted(
            leaf,
            GeneralName::MAIL,
            |base, side| mail_within(text, base, side),
            || format!("the emailAddress {text}"),
        )
        .map_err(|fault| fault.blaming("subject_dn.email"))?;
    }
    Ok(())
}

/// A base is one mailbox, the mailboxes of one host, or with a dot in front those of all hosts below a domain.
fn mail_within(mailbox: &str, base: &[u8], side: Side) -> bool {
    let (Ok(base), Some((local, host))) = (std::str::from_utf8(base), mailbox.rsplit_once('@')) else {
        return side == Side::Excluded;
    };
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => base_local == local && base_host.eq_ignore_ascii_case(host),
        None if base.is_empty() => true,
        None if base.starts_with('.') => below(host, base),
        None => base.eq_ignore_ascii_case(host),
    }
}

fn ip(leaf: &Leaf<'_>) -> Verdict {
    if unconstrained(leaf) {
        return Ok(());
    }
    for name in leaf.tbs.extensions.names(GeneralName::IP) {
        let within = |base: &[u8], _| {
            let (address, mask) = base.split_at(base.len() / 2);
            address.len() == name.content.len()
                && address
                    .iter()
                    .zip(mask)
                    .zip(name.content)
                    .all(|((base, mask), byte)| base & mask == byte & mask)
        };
        accepted(leaf, GeneralName::IP, within, || {
            format!("the address {:?}", name.content)
        })?;
    }
    Ok(())
}

fn uri(leaf: &Leaf<'_>) -> Verdict {
    if unconstrained(leaf) {
        return Ok(());
    }
    for name in leaf.tbs.extensions.names(GeneralName::URI) {
        let host = Uri::read(name.text()).and_then(|uri| uri.host);
        // A constraint is about hosts that have names: what has none is never acceptable beside one.
        let host = host.filter(|host| host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.starts_with('['));
        let within = |base: &[u8], side| match (host, std::str::from_utf8(base)) {
            (Some(host), Ok(base)) if base.starts_with('.') || base.is_empty() => below(host, base),
            (Some(host), Ok(base)) => host.eq_ignore_ascii_case(base),
            _ => side == Side::Excluded,
        };
        accepted(leaf, GeneralName::URI, within, || name.text().into())?;
    }
    Ok(())
}

/// Names of kinds whose constraints nobody here understands.
fn other(leaf: &Leaf<'_>) -> Verdict {
    let understood = |tag| {
        matches!(
            tag,
            GeneralName::DNS | GeneralName::MAIL | GeneralName::IP | GeneralName::URI | GeneralName::DIRECTORY
        )
    };
    for name in leaf
        .tbs
        .extensions
        .subject_alt_name
        .iter()
        .flatten()
        .filter(|name| !understood(name.tag))
    {
        let constrained = leaf
            .context
            .demands
            .constraints
            .iter()
            .any(|constraints| constraints.constrains(name.tag));
        ensure(!constrained, || {
            format!("names of the kind [{}] are constrained by the chain", name.tag & 0x1f)
        })?;
    }
    Ok(())
}

/// Where a CA certificate names purposes, what is issued below it names some of these and no others. `OCSPSigning` is apart: CA
/// certificates do not have it, and responders are judged by the certificate of their issuer alone (RFC 6960, 4.2.2.2).
fn purpose(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    for permitted in &leaf.context.demands.purposes {
        ensure(extensions.extended_key_usage.is_some(), || {
            "there is no extKeyUsage, though the chain limits the purposes".into()
        })?;
        for purpose in extensions.extended_key_usage.iter().flatten() {
            let good = *purpose == oid::OCSP_SIGNING || permitted.iter().any(|other| other == purpose);
            ensure(good, || {
                format!(
                    "purpose {} is not among those of a CA certificate of the chain",
                    dotted(purpose)
                )
            })?;
        }
    }
    Ok(())
}
