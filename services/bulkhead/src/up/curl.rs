//! How to do with curl and OpenSSL what the self-check has just done: commands to copy, with the paths of this installation.

use std::path::{Path, PathBuf};

use domain::{key::KeyType, registry::Snapshot};
use runtime::{
    context_file::{AccountEntry, ContextFile},
    files::write_private,
};

use crate::{
    compose::absolute,
    failure::{Failure, Outcome},
};

/// Files that keep the commands short and the secret off the command line.
#[derive(Debug)]
pub(super) struct CurlFiles {
    options: PathBuf,
    login: PathBuf,
}

impl CurlFiles {
    /// Writes them into `directory` for this account.
    pub(super) fn write(directory: &Path, context: &ContextFile, account: &AccountEntry) -> Outcome<Self> {
        let files = Self {
            options: absolute(&directory.join("options"))?,
            login: absolute(&directory.join("login.json"))?,
        };
        let option = |name: &str, path: &Path| format!("{name} = \"{}\"\n", escaped(&path.display().to_string()));
        let options = [
            "silent\nshow-error\nfail-with-body\nheader = \"Content-Type: application/json\"\n".to_owned(),
            option("cacert", &context.tls_ca_file),
            option("cert", &context.client_cert_file),
            option("key", &context.client_key_file),
        ]
        .concat();
        let login = serde_json::json!({"api_key": account.api_key, "api_secret": account.api_secret}).to_string();
        write_private(&files.options, options.as_bytes()).map_err(Failure::failed)?;
        write_private(&files.login, login.as_bytes()).map_err(Failure::failed)?;
        Ok(files)
    }

    /// A shell script that gets a certificate for `www.example.com` and verifies it.
    pub(super) fn script(&self, url: &str, account: &AccountEntry, snapshot: &Snapshot) -> String {
        let profile = account.profile.parse().ok().and_then(|id| snapshot.profiles.get(&id));
        let pin = profile.and_then(|profile| profile.policy.public_key.pins().first().copied());
        let new_key = new_key(pin.unwrap_or(KeyType::P256));
        let curl = format!("curl -K {}", quoted(&self.options));
        let login = quoted(&PathBuf::from(format!("@{}", self.login.display())));
        format!(
            r#"openssl req -new {new_key} -nodes -keyout www.key -out www.csr -subj /CN=www.example.com
TOKEN=$({curl} -d {login} {url}/login | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
printf '{{"validity":{{"not_before":%s,"not_after":0}},"subject_dn":{{"common_name":"www.example.com"}},"san":{{"dns_names":["www.example.com"]}},"public_key":"%s"}}' "$(date +%s)" "$(awk '{{printf "%s\\n", $0}}' www.csr)" > request.json
{curl} -H "Authorization: Bearer $TOKEN" -H 'Prefer: wait=10' -d @request.json {url}/certificates > answer.json
printf '%b' "$(sed 's/.*"certificate":"\([^"]*\)".*/\1/' answer.json)" > www.pem
printf '%b' "$({curl} -H "Authorization: Bearer $TOKEN" {url}/trustchain | tr -d '[]",')" > chain.pem
openssl verify -CAfile chain.pem www.pem
"#
        )
    }
}

/// What OpenSSL wants to hear for a new key of this type.
fn new_key(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::Rsa2048 => "-newkey rsa:2048",
        KeyType::Rsa3072 => "-newkey rsa:3072",
        KeyType::Rsa4096 => "-newkey rsa:4096",
        KeyType::P256 => "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
        KeyType::P384 => "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
        KeyType::P521 => "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
        KeyType::Ed25519 => "-newkey ed25519",
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text inside the double quotes of curl's configuration.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_spaces_and_quotes_stay_one_word() {
        assert_eq!(quoted(Path::new("/a/b-c.pem")), "/a/b-c.pem");
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
        assert_eq!(escaped(r#"a\b"c"#), r#"a\\b\"c"#);
    }
}
