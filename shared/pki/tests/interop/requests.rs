//! Requests and public keys as the tools of this world make them: each gives its key, byte for byte.

use domain::{key::KeyType, policy::KeyFormat};
use pki::{csr, key, pem};

use crate::tools::Workshop;

/// The request gives the key that the tool itself says is in it.
fn accepted(request: &str, public_key: &str, key_type: KeyType) {
    let spki = pem::decode("PUBLIC KEY", public_key).expect("the tool writes PEM");
    let requested = csr::read(request, KeyFormat::Pkcs10).unwrap_or_else(|error| panic!("{error}\n{request}"));
    assert_eq!((requested.key_type, requested.spki), (key_type, spki.clone()));
    let bare = csr::read(public_key, KeyFormat::Pkcs8).unwrap_or_else(|error| panic!("{error}\n{public_key}"));
    assert_eq!((bare.key_type, bare.spki), (key_type, spki));
}

const OPENSSL_CONFIGURATION: &str = "
[req]
prompt = no
string_mask = utf8only
utf8 = yes
distinguished_name = subject
attributes = attributes
[subject]
C = DE
0.OU = Straße
1.OU = 部門
+CN = Grüße aus Zürich
emailAddress = info@a.example
[attributes]
challengePassword = a secret of ours
unstructuredName = nothing
[bare]
[names]
subjectAltName = DNS:a.example, DNS:*.b.example, IP:127.0.0.1, IP:::1, email:a@a.example, URI:https://a.example/x, RID:2.999.1, otherName:1.3.6.1.4.1.311.20.2.3;UTF8:a@b, dirName:directory
[everything]
subjectAltName = critical, DNS:a.example
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
extendedKeyUsage = serverAuth, 1.3.6.1.4.1.99999.1
subjectKeyIdentifier = hash
tlsfeature = status_request
1.3.6.1.4.1.311.20.2 = ASN1:BMPString:WebServer
1.3.6.1.4.1.311.21.7 = ASN1:SEQUENCE:template
certificatePolicies = 1.2.3.4
1.2.3.4.5 = DER:00:01:02
[template]
id = OID:1.3.6.1.4.1.311.21.8.1
major = INTEGER:100
[directory]
CN = a directory name
";

#[test]
fn requests_and_keys_of_openssl_are_read() {
    let workshop = Workshop::new();
    workshop.write("request.cnf", OPENSSL_CONFIGURATION);
    let ec = |curve: &str| format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    let rsa = |bits: u32| format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}");
    for (key_type, options, hashes) in [
        (KeyType::Rsa2048, rsa(2048), &["sha256", "sha384", "sha512"][..]),
        (KeyType::Rsa3072, rsa(3072), &["sha256"]),
        (KeyType::Rsa4096, rsa(4096), &["sha512"]),
        (KeyType::P256, ec("P-256"), &["sha256", "sha384", "sha512"]),
        (KeyType::P384, ec("P-384"), &["sha256", "sha384", "sha512"]),
        (KeyType::P521, ec("P-521"), &["sha256", "sha384", "sha512"]),
        (KeyType::Ed25519, "-algorithm ED25519".into(), &["sha256"]),
    ] {
        workshop.run(&format!("openssl genpkey {options} -out key.pem"));
        let public_key = workshop.run("openssl pkey -in key.pem -pubout");
        for hash in hashes {
            for extensions in ["bare", "names", "everything"] {
                let request = workshop.run(&format!(
                    "openssl req -new -config request.cnf -key key.pem -{hash} -reqexts {extensions}"
                ));
                accepted(&request, &public_key, key_type);
            }
        }
        let empty = workshop.run("openssl req -new -key key.pem -subj / -config request.cnf");
        accepted(&empty, &public_key, key_type);
        assert_eq!(key::weakness(&pem::decode("PUBLIC KEY", &public_key).unwrap()), None);
    }
}

#[test]
fn requests_and_keys_of_gnutls_are_read() {
    let workshop = Workshop::new();
    workshop.write(
        "template.cfg",
        "country = DE\norganization = \"Grüße & Söhne\"\nunit = \"部門\"\nunit = \"second\"\ncn = \"a.example\"\ndns_name = a.example\ndns_name = \"*.b.example\"\nip_address = ::1\nemail = \"a@a.example\"\nuri = \"urn:a:b\"\nchallenge_password = \"a secret of ours\"\ntls_www_server\nencryption_key\nsigning_key\nca\ncert_signing_key\n",
    );
    workshop.write("bare.cfg", "cn = \"a.example\"\n");
    for (key_type, options) in [
        (KeyType::Rsa2048, "--key-type rsa --bits 2048"),
        (KeyType::Rsa3072, "--key-type rsa --bits 3072"),
        (KeyType::P256, "--key-type ecdsa --curve secp256r1"),
        (KeyType::P384, "--key-type ecdsa --curve secp384r1"),
        (KeyType::P521, "--key-type ecdsa --curve secp521r1"),
        (KeyType::Ed25519, "--key-type ed25519"),
    ] {
        workshop.run(&format!(
            "certtool --generate-privkey {options} --outfile key.pem --no-text"
        ));
        workshop.run("certtool --load-privkey key.pem --pubkey-info --no-text --outfile public.pem");
        let mut hashes = vec![""];
        if key_type != KeyType::Ed25519 {
            hashes.extend(["--hash SHA256", "--hash SHA384"]);
        }
        for hash in hashes {
            for template in ["template.cfg", "bare.cfg"] {
                workshop.run(&format!("certtool --generate-request --load-privkey key.pem --template {template} {hash} --no-text --outfile request.pem"));
                accepted(&workshop.read("request.pem"), &workshop.read("public.pem"), key_type);
            }
        }
    }
}

#[test]
fn requests_of_java_are_read() {
    let workshop = Workshop::new();
    let keytool = "keytool -J-XX:TieredStopAtLevel=1 -J-XX:+UseSerialGC -keystore store.p12 -storetype PKCS12 -storepass changeit";
    for (key_type, generation, request) in [
        (
            KeyType::Rsa2048,
            "-keyalg RSA -keysize 2048",
            "-sigalg SHA512withRSA -ext SAN=dns:a.example,ip:127.0.0.1,email:a@a.example,uri:urn:a:b,oid:1.2.3",
        ),
        (
            KeyType::P256,
            "-keyalg EC -groupname secp256r1",
            "-ext BC:critical=ca:true -ext KU=keyCertSign -ext EKU=serverAuth,1.2.3",
        ),
        (
            KeyType::P384,
            "-keyalg EC -groupname secp384r1",
            "-sigalg SHA256withECDSA",
        ),
        (
            KeyType::P521,
            "-keyalg EC -groupname secp521r1",
            "-sigalg SHA512withECDSA",
        ),
        (KeyType::Ed25519, "-keyalg Ed25519", ""),
    ] {
        let alias = key_type.as_str();
        workshop.run_with(
            &format!("{keytool} -genkeypair -alias {alias} {generation}"),
            &[
                "-dname",
                "CN=Grüße aus Zürich, OU=部門, OU=second+L=third, O=\"a, b\", C=DE",
            ],
        );
        let request = workshop.run(&format!("{keytool} -certreq -alias {alias} {request}"));
        assert!(request.contains("BEGIN NEW CERTIFICATE REQUEST"), "{request}");
        workshop.write("request.pem", &request);
        accepted(
            &request,
            &workshop.run("openssl req -in request.pem -pubkey -noout"),
            key_type,
        );
    }
}

const PYTHON_REQUESTS: &str = r#"
import base64, ipaddress
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import AttributeOID, NameOID

SUBJECT = x509.Name([
    x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Größe"),
    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "部門"),
    x509.NameAttribute(NameOID.COMMON_NAME, "بيان"),
])
NAMES = x509.SubjectAlternativeName([
    x509.DNSName("a.example"), x509.DNSName("xn--bcher-kva.example"),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    x509.RegisteredID(x509.ObjectIdentifier("2.999.1")),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
    x509.DirectoryName(SUBJECT),
])

def pem(key):
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

def possession(key):
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(spki, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(spki, ec.ECDSA(hashes.SHA256()))
    else:
        signature = key.sign(spki)
    return base64.b64encode(signature).decode()

SHA = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
for name, key, algorithms in [
    ("RSA-2048", rsa.generate_private_key(65537, 2048), SHA),
    ("P-256", ec.generate_private_key(ec.SECP256R1()), SHA),
    ("P-384", ec.generate_private_key(ec.SECP384R1()), SHA),
    ("P-521", ec.generate_private_key(ec.SECP521R1()), SHA),
    ("Ed25519", ed25519.Ed25519PrivateKey.generate(), [None]),
]:
    for algorithm in algorithms:
        plain = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        full = (x509.CertificateSigningRequestBuilder().subject_name(SUBJECT)
            .add_extension(NAMES, critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
            .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"not DER"), critical=False)
            .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"a secret of ours"))
        for builder in (plain, full):
            request = builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()
            print("\x1f".join([name, request, pem(key.public_key()), possession(key)]), end="\x1e")
"#;

#[test]
fn requests_keys_and_proofs_of_python_are_read() {
    let output = Workshop::new().python(PYTHON_REQUESTS);
    let records: Vec<&str> = output.trim_end_matches(['\u{1e}', '\n']).split('\u{1e}').collect();
    assert_eq!(records.len(), 26);
    for record in records {
        let [name, request, public_key, possession] = record.split('\u{1f}').collect::<Vec<_>>()[..] else {
            panic!("{record}");
        };
        let key_type: KeyType = name.parse().unwrap();
        accepted(request, public_key, key_type);
        let spki = pem::decode("PUBLIC KEY", public_key).unwrap();
        assert_eq!(csr::verify_possession(&spki, key_type, possession), Ok(()), "{name}");
    }
}
