//! `bulkhead issuer`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use domain::{
    id::{IssuerId, TokenId},
    key::KeyType,
};

/// `bulkhead issuer`.
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// List issuers with their state and where their keys live
    List,
    /// Show one issuer
    Show {
        /// Which
        issuer: IssuerId,
    },
    /// Take in an issuer that exists: its chain, and its key from a token or a file
    ///
    /// Everything about it is checked before anything is changed: CA:TRUE, keyCertSign, key identifiers, times, names byte for byte,
    /// every signature of the chain, and a signature by the key itself. Unless `--no-history`, or `--history` and `--last-crl`, tell its
    /// past, CRLs and OCSP stay off: unknown serials and CRL numbers running backwards are incidents.
    Import(IssuerImport),
    /// Make a key for a new issuer on a token; it never leaves it
    Keygen(IssuerKeygen),
    /// Print a PKCS#10 request for the key, signed by it, for the CA above
    Csr(IssuerCsr),
    /// Take in the chain that the CA above made of the request; from then on it issues
    Activate(IssuerActivate),
    /// Say that another token holds an issuer's key as well
    ///
    /// The key there has to prove itself first. Signers that have several of an issuer's tokens use the first that is not out.
    Bind(IssuerBind),
    /// Stop issuance: nothing is accepted, begun or finished any more. CRLs and OCSP go on
    Disable(IssuerSwitch),
    /// Let a disabled issuer issue again
    Enable(IssuerSwitch),
    /// Write down that an issuer's key is gone for ever, which cannot be taken back
    ///
    /// From then on nothing is accepted, begun or finished for it, and everything that waits is refused as `issuer_destroyed`; parked
    /// jobs stay parked. No key is destroyed by this command: say so after the ceremony that did.
    MarkDestroyed(IssuerMarkDestroyed),
}

/// Where a key lives, and what its certificates will say.
#[derive(Debug, Args)]
pub struct Placement {
    /// The token that holds the key
    #[arg(long, value_name = "TOKEN", default_value = "soft")]
    pub token: TokenId,
    /// The key's name there; on a PKCS#11 token its CKA_ID, as text or as 0x and hexadecimal digits [default: the issuer's]
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
}

/// What is known of the issuer's past. Without it its bits `crl` and `ocsp` stay off.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("past").args(["history", "no_history"]))]
pub struct Legacy {
    /// A directory with every certificate that it has issued so far (PEM or DER), for CRLs and OCSP
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// It has never issued a certificate
    #[arg(long)]
    pub no_history: bool,
    /// Its last CRL (PEM or DER), so that CRL numbers go on
    #[arg(long, value_name = "FILE")]
    pub last_crl: Option<PathBuf>,
}

/// `bulkhead issuer import`.
#[derive(Debug, Args)]
#[command(after_help = "To a usable account:
  bulkhead issuer import my-ca --chain chain.pem --key-file key.pem --no-history --reason new
  bulkhead profile sample --id my-tls --key-type P-256 > my-tls.toml     # then edit it
  bulkhead profile put my-tls.toml --reason new
  bulkhead account add my-app --issuer my-ca --profile my-tls --save --reason new
  bulkhead cert issue --account my-app --new-key P-256 --key-out app.pem --cn app.example.com")]
pub struct IssuerImport {
    /// Its name here
    pub issuer: IssuerId,
    /// PEM: its own certificate first, root last
    #[arg(long, value_name = "FILE")]
    pub chain: PathBuf,
    /// Its private key (PKCS#8, PEM or DER, unencrypted, mode 0600), to be taken into the token
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Where the key is, or goes.
    #[command(flatten)]
    pub placement: Placement,
    /// Its past.
    #[command(flatten)]
    pub legacy: Legacy,
    /// Base of the URLs inside its certificates, `http://...` [default: the installation's]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Number of CRL shards; fixed for life
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub crl_shards: u16,
    /// A profile to put in with it (TOML or JSON, see `bulkhead profile sample`)
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `bulkhead issuer keygen`.
#[derive(Debug, Args)]
#[command(after_help = "Then: `bulkhead issuer csr`, have it signed by the CA above, `bulkhead issuer activate`.")]
pub struct IssuerKeygen {
    /// The issuer's name here
    pub issuer: IssuerId,
    /// RSA-2048, RSA-3072, RSA-4096, P-256, P-384, P-521 or Ed25519
    #[arg(long = "type", value_name = "TYPE")]
    pub key_type: KeyType,
    /// Where it goes.
    #[command(flatten)]
    pub placement: Placement,
    /// Write the report of the key's making to FILE as well
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `bulkhead issuer csr`.
#[derive(Debug, Args)]
pub struct IssuerCsr {
    /// The issuer's name here
    pub issuer: IssuerId,
    /// Its subject, most significant attribute first: `C=DE,O=Example,CN=Example Issuing CA 1` (a comma in a value: `\,`)
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// Where the key is.
    #[command(flatten)]
    pub placement: Placement,
    /// Where the request goes [default: printed]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `bulkhead issuer activate`.
#[derive(Debug, Args)]
pub struct IssuerActivate {
    /// The issuer's name here
    pub issuer: IssuerId,
    /// PEM: its own certificate first, root last
    pub chain: PathBuf,
    /// Where the key is.
    #[command(flatten)]
    pub placement: Placement,
    /// Base of the URLs inside its certificates, `http://...` [default: the installation's]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Number of CRL shards; fixed for life
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub crl_shards: u16,
    /// A profile to put in with it (TOML or JSON, see `bulkhead profile sample`)
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Disable or enable.
#[derive(Debug, Args)]
pub struct IssuerSwitch {
    /// Which
    pub issuer: IssuerId,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `bulkhead issuer mark-destroyed`.
#[derive(Debug, Args)]
pub struct IssuerMarkDestroyed {
    /// Which
    pub issuer: IssuerId,
    /// Show what would be touched and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Change nothing unless exactly this many jobs wait or are worked on
    #[arg(long, value_name = "N")]
    pub expect_count: Option<u64>,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `bulkhead issuer bind`.
#[derive(Debug, Args)]
pub struct IssuerBind {
    /// Which
    pub issuer: IssuerId,
    /// Where the key is as well.
    #[command(flatten)]
    pub placement: Placement,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
