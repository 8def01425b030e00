#!/usr/bin/env python3
"""Lints certificates with pkilint, all of them in one process.

    tests/.venv/bin/python tests/pkilint/lint.py DIR [--waivers FILE]

DIR/ISSUER/issuer.der is a CA certificate, DIR/ISSUER/PROFILE/*.der are what it issued (or .pem). Every certificate gets what
`lint_pkix_cert` does, and `lint_pkix_signer_signee_cert_chain` with its issuer; those for TLS servers and OCSP responders also get
what `lint_cabf_serverauth_cert -d` does.

FILE (by default waivers.toml beside this program) has a [[waiver]] for each finding that is as it should be: `code`, `profile` and
`reason`, and `message` where only some findings of the code are meant; in `profile` and `message`, * stands for anything.

Prints how often each finding occurs. Exits 1 when a finding is not waived, otherwise 2 when a waiver is not used.
"""

import argparse
import fnmatch
import pathlib
import sys
import tomllib
from collections import Counter

from pkilint import finding_filter, loader
from pkilint.bin import lint_pkix_signer_signee_cert_chain as chain
from pkilint.cabf import serverauth
from pkilint.pkix import certificate, extension, name
from pyasn1_alt_modules import rfc5280

BR_PURPOSES = {rfc5280.id_kp_serverAuth, rfc5280.id_kp_OCSPSigning}


class Linters:
    """The validators of the three programs, made once."""

    def __init__(self):
        self.pkix = certificate.create_pkix_certificate_validator_container(
            certificate.create_decoding_validators(
                name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
            ),
            [
                certificate.create_issuer_validator_container([]),
                certificate.create_validity_validator_container(),
                certificate.create_subject_validator_container([]),
                certificate.create_extensions_validator_container([]),
                certificate.create_spki_validator_container([]),
            ],
        )
        self.serverauth = {}
        self.issuers = {}
        self.decode = chain.create_decoder_validation_container()
        self.by_issuer = chain.create_issuer_validation_container()
        self.by_subject = chain.create_subject_validation_container()

    def findings(self, der, issuer_der):
        """Yields severity, code, message and place of each finding."""
        load = loader.load_der_certificate
        document = load(der)
        yield from described("pkix", self.pkix.validate(document.root))
        document = load(der)
        if BR_PURPOSES & set(document.extended_key_usages):
            yield from described("serverauth", self.judge_by_requirements(document))
        documents = self.chain_below(issuer_der)
        documents["subject"] = load(der, "subject", None, documents)
        subject = documents["subject"].root
        yield from described("chain", self.decode.validate(subject))
        yield from described("chain", self.by_issuer.validate(documents["issuer"].root))
        yield from described("chain", self.by_subject.validate(subject))

    def chain_below(self, issuer_der):
        """Documents with the issuer's certificate, decoded once for all that it issued."""
        if issuer_der not in self.issuers:
            documents = {}
            documents["issuer"] = loader.load_der_certificate(issuer_der, "issuer", None, documents)
            wrong = list(described("chain", self.decode.validate(documents["issuer"].root)))
            if wrong:
                raise ValueError(f"the issuer's certificate: {wrong}")
            self.issuers[issuer_der] = documents
        return self.issuers[issuer_der]

    def judge_by_requirements(self, document):
        kind = serverauth.determine_certificate_type(document)
        if kind not in self.serverauth:
            validators = certificate.create_pkix_certificate_validator_container(
                serverauth.create_decoding_validators(), serverauth.create_validators(kind)
            )
            self.serverauth[kind] = validators, serverauth.create_serverauth_finding_filters(kind)
        validators, filters = self.serverauth[kind]
        return finding_filter.filter_results(filters, validators.validate(document.root))[0]


def described(linter, results):
    for result in results:
        for found in result.finding_descriptions:
            place = f"{linter}, {result.node.path}"
            yield found.finding.severity.name, found.finding.code, found.message or "", place


def read(path):
    data = path.read_bytes()
    return loader.load_pem_certificate(data.decode()).substrate if path.suffix == ".pem" else data


def certificates(directory):
    """Yields each certificate's path, profile and issuer's DER."""
    for issuer in sorted(directory.iterdir()):
        own = next(issuer.glob("issuer.*"))
        for path in sorted(issuer.glob("*/*")):
            yield path, path.parent.name, read(own)


def waives(waiver, code, profile, message):
    def matches(text, pattern):
        return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))

    return waiver["code"] == code and matches(profile, waiver["profile"]) and matches(message, waiver.get("message", "*"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("directory", type=pathlib.Path)
    arguments.add_argument("--waivers", type=pathlib.Path, default=pathlib.Path(__file__).with_name("waivers.toml"))
    options = arguments.parse_args()

    waivers = tomllib.loads(options.waivers.read_text())["waiver"]
    for waiver in waivers:
        if set(waiver) - {"message"} != {"code", "profile", "reason"} or not waiver["reason"].strip():
            arguments.error(f"a waiver has code, profile, reason and perhaps message: {waiver}")

    linters = Linters()
    counts, examples, used, total = Counter(), {}, set(), 0
    for path, profile, issuer in certificates(options.directory):
        total += 1
        try:
            found = list(linters.findings(read(path), issuer))
        except ValueError as error:
            found = [("FATAL", "unreadable", str(error), "all")]
        for severity, code, message, place in found:
            matching = [at for at, waiver in enumerate(waivers) if waives(waiver, code, profile, message)]
            used.update(matching)
            key = severity, code, profile, bool(matching)
            counts[key] += 1
            examples.setdefault(key, f"{path}: {place}: {message}")
    if total == 0:
        arguments.error(f"{options.directory} holds no certificates")

    for (severity, code, profile, waived), count in sorted(counts.items()):
        print(f"{'waived' if waived else 'FOUND':7} {count:5}  {severity:8} {profile:16} {code}")
        if not waived:
            print(f"        {examples[severity, code, profile, waived]}")
    unwaived = sum(count for (*_, waived), count in counts.items() if not waived)
    unused = [waiver for at, waiver in enumerate(waivers) if at not in used]
    for waiver in unused:
        print(f"UNUSED  {waiver['profile']:16} {waiver['code']}: {waiver['reason']}")
    print(f"{total} certificates, {counts.total()} findings, {unwaived} not waived, {len(unused)} waivers not used")
    return 1 if unwaived else 2 if unused else 0


if __name__ == "__main__":
    sys.exit(main())
