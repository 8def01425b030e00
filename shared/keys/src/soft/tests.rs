//! What is particular to soft keys: files, permissions, passphrases, damage.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::*;
use crate::suite;

struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let store = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        ensure_passphrase_file(&store.passphrase(), &token()).unwrap();
        store
    }
    fn passphrase(&self) -> PathBuf {
        self.dir.path().join("passphrase")
    }
    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }
    fn file(&self, name: &str) -> PathBuf {
        self.keys().join(format!("{name}.key"))
    }
    fn open(&self) -> Result<SoftKeys, KeysError> {
        let cheap = Cost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        SoftKeys::open_or_create_at(&self.keys(), &self.passphrase(), token(), cheap)
    }
    fn with_key(name: &str) -> (Self, SoftKeys) {
        let store = Self::new();
        let keys = store.open().unwrap();
        keys.generate(name, KeyType::P256).unwrap();
        keys.sign(name, SignatureAlgorithm::EcdsaSha256, b"message").unwrap();
        (store, keys)
    }
}

fn token() -> TokenId {
    "soft".parse().unwrap()
}
fn expose(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
fn sign(keys: &SoftKeys, name: &str) -> Result<Vec<u8>, KeysError> {
    keys.sign(name, SignatureAlgorithm::EcdsaSha256, b"message")
}
fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

#[test]
fn soft_keys_keep_the_contract() {
    let store = Store::new();
    let keys = store.open().unwrap();
    for (name, contract) in suite::CONTRACT {
        println!("{name}");
        contract(&keys);
    }
    assert!(!keys.fit_for_real_ca());
}

#[test]
fn a_store_opens_again_with_the_same_keys_whatever_it_is_told_to_cost_now() {
    let (store, keys) = Store::with_key("ca");
    let before = keys.list().unwrap();
    drop(keys);
    let again = SoftKeys::open_or_create(&store.keys(), &store.passphrase(), token()).unwrap();
    assert_eq!(again.list().unwrap(), before);
    sign(&again, "ca").unwrap();
}

#[test]
fn a_new_store_costs_what_it_should_by_default() {
    let store = Store::new();
    SoftKeys::open_or_create(&store.keys(), &store.passphrase(), token()).unwrap();
    edit(&store.keys().join("store.json"), |header| {
        assert_eq!(
            header["cost"],
            serde_json::json!({"memory_kib": 65536, "passes": 3, "lanes": 1})
        );
        assert_eq!(header["derivation"], "argon2id");
    });
}

#[test]
fn a_key_whose_file_is_removed_stops_signing_at_once_and_its_neighbour_goes_on() {
    let (store, keys) = Store::with_key("gone");
    keys.generate("stays", KeyType::P256).unwrap();
    let kept = fs::read(store.file("gone")).unwrap();
    fs::remove_file(store.file("gone")).unwrap();

    assert_eq!(sign(&keys, "gone").unwrap_err().failure, KeysFailure::KeyNotFound);
    assert_eq!(keys.find("gone").unwrap(), None);
    sign(&keys, "stays").unwrap();

    fs::write(store.file("gone"), kept).unwrap();
    expose(&store.file("gone"), 0o600);
    sign(&keys, "gone").unwrap();
}

#[test]
fn a_store_whose_directory_is_gone_is_not_taken_for_a_lost_key() {
    let (store, keys) = Store::with_key("ca");
    fs::rename(store.keys(), store.dir.path().join("elsewhere")).unwrap();
    for error in [
        sign(&keys, "ca").unwrap_err(),
        keys.find("ca").unwrap_err(),
        keys.list().unwrap_err(),
    ] {
        assert_eq!(error.failure, KeysFailure::StoreUnreadable);
        assert!(error.detail.contains("store.json"), "{error}");
    }
}

#[test]
fn a_destroyed_key_is_overwritten_before_it_is_removed() {
    let (store, keys) = Store::with_key("ca");
    let other_name = store.dir.path().join("link");
    fs::hard_link(store.file("ca"), &other_name).unwrap();
    keys.destroy("ca").unwrap();
    assert!(!store.file("ca").exists());
    let left = fs::read(other_name).unwrap();
    assert!(!left.is_empty() && left.iter().all(|&byte| byte == 0));
}

#[test]
fn a_damaged_key_file_is_named_and_harms_no_other_key() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("cut short", |path| {
            fs::write(path, &fs::read(path).unwrap()[..100]).unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("foreign", |path| {
            fs::write(path, b"-----BEGIN PRIVATE KEY-----\n").unwrap();
        }),
        ("ciphertext altered", |path| {
            edit(path, |json| {
                let text = json["private_key"]["ciphertext"].as_str().unwrap().to_owned();
                let other = if text.starts_with('A') { "B" } else { "A" };
                json["private_key"]["ciphertext"] = format!("{other}{}", &text[1..]).into();
            });
        }),
        ("type altered", |path| {
            edit(path, |json| json["key_type"] = "P-384".into());
        }),
        ("version unknown", |path| edit(path, |json| json["version"] = 2.into())),
        ("too large", |path| fs::write(path, vec![b' '; 70_000]).unwrap()),
    ];
    for (what, damage) in damages {
        let (store, keys) = Store::with_key("bad");
        keys.generate("good", KeyType::P256).unwrap();
        damage(&store.file("bad"));
        for error in [sign(&keys, "bad").unwrap_err(), keys.find("bad").unwrap_err()] {
            assert_eq!(error.failure, KeysFailure::OperationFailed, "{what}: {error}");
            assert!(error.detail.contains("bad.key"), "{what}: {error}");
        }
        sign(&keys, "good").unwrap();
        assert_eq!(keys.list().unwrap().len(), 1, "{what}");
    }
}

#[test]
fn a_key_file_under_another_name_or_from_another_store_is_refused() {
    let (store, keys) = Store::with_key("ca");
    fs::copy(store.file("ca"), store.file("renamed")).unwrap();
    edit(&store.file("renamed"), |json| json["name"] = "renamed".into());
    let error = sign(&keys, "renamed").unwrap_err();
    assert!(error.detail.contains("renamed.key was altered"), "{error}");

    let (other, _) = Store::with_key("foreign");
    fs::copy(other.file("foreign"), store.file("foreign")).unwrap();
    let error = sign(&keys, "foreign").unwrap_err();
    assert!(error.detail.contains("another key store"), "{error}");
}

#[test]
fn files_that_others_may_read_are_refused_with_the_remedy() {
    for (what, mode) in [("passphrase", 0o640), ("keys/store.json", 0o604)] {
        let (store, _) = Store::with_key("ca");
        let path = store.dir.path().join(what);
        expose(&path, mode);
        let error = store.open().unwrap_err();
        assert_eq!(error.failure, KeysFailure::StoreUnreadable);
        assert!(
            error.detail.contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
    }

    let (store, _) = Store::with_key("ca");
    expose(&store.keys(), 0o750);
    let error = store.open().unwrap_err();
    assert!(
        error.detail.contains(&format!("chmod 700 {}", store.keys().display())),
        "{error}"
    );

    let (store, keys) = Store::with_key("ca");
    expose(&store.file("ca"), 0o644);
    let error = sign(&keys, "ca").unwrap_err();
    assert!(
        error
            .detail
            .contains(&format!("chmod 600 {}", store.file("ca").display())),
        "{error}"
    );
    expose(&store.file("ca"), 0o600);
    sign(&keys, "ca").unwrap();
}

#[test]
fn what_is_made_is_private_whatever_the_directory_was_given() {
    let (store, _) = Store::with_key("ca");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.keys()), 0o700);
    for path in [store.passphrase(), store.keys().join("store.json"), store.file("ca")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let left: Vec<_> = fs::read_dir(store.keys())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "temporary files were left: {left:?}");
}

#[test]
fn a_wrong_missing_or_empty_passphrase_is_told_apart() {
    let (store, _) = Store::with_key("ca");
    let passphrase = fs::read(store.passphrase()).unwrap();
    let open_with = |content: &[u8]| {
        fs::write(store.passphrase(), content).unwrap();
        store.open()
    };
    assert!(open_with(b"wrong").unwrap_err().detail.contains("does not open"));
    assert!(open_with(b"\n").unwrap_err().detail.contains("is empty"));
    open_with(passphrase.trim_ascii_end()).unwrap();
    fs::remove_file(store.passphrase()).unwrap();
    assert!(store.open().unwrap_err().detail.contains("does not exist"));
}

#[test]
fn a_damaged_or_greedy_header_is_refused() {
    let (store, _) = Store::with_key("ca");
    let header = store.keys().join("store.json");
    let whole = fs::read(&header).unwrap();
    edit(&header, |json| json["cost"]["memory_kib"] = 4_000_000_000_u32.into());
    assert!(store.open().unwrap_err().detail.contains("out of range"));
    fs::write(&header, &whole[..20]).unwrap();
    let error = store.open().unwrap_err();
    assert_eq!(error.failure, KeysFailure::StoreUnreadable);
    assert!(error.detail.contains("store.json cannot be parsed"), "{error}");
}

#[test]
fn imported_keys_sign_and_other_documents_are_refused() {
    let store = Store::new();
    let keys = store.open().unwrap();
    for (name, key_type) in [
        ("rsa", KeyType::Rsa2048),
        ("p-384", KeyType::P384),
        ("ed", KeyType::Ed25519),
    ] {
        let pair = Pair::generate(key_type).unwrap();
        let info = keys.import(name, &pair.to_pkcs8().unwrap()).unwrap();
        assert_eq!((info.key_type, info.public_key), (key_type, pair.public_key().unwrap()));
        keys.sign(name, key_type.signature_algorithm(), b"message").unwrap();
        let again = keys.import(name, &pair.to_pkcs8().unwrap()).unwrap_err();
        assert_eq!(again.failure, KeysFailure::KeyExists);
    }
    assert_eq!(keys.import("junk", b"junk").unwrap_err().failure, KeysFailure::KeyUnfit);
    assert_eq!(keys.list().unwrap().len(), 3);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let store = Store::new();
    let keys = store.open().unwrap();
    let long = "a".repeat(64);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "A",
        "a b",
        "a\0",
        long.as_str(),
    ] {
        assert_eq!(
            keys.generate(name, KeyType::P256).unwrap_err().failure,
            KeysFailure::KeyUnfit,
            "{name:?}"
        );
        assert_eq!(keys.find(name).unwrap(), None);
        assert_eq!(sign(&keys, name).unwrap_err().failure, KeysFailure::KeyNotFound);
        assert_eq!(keys.destroy(name).unwrap_err().failure, KeysFailure::KeyNotFound);
    }
}

#[test]
fn neither_debug_output_nor_files_show_a_private_key_or_the_passphrase() {
    let store = Store::new();
    let keys = store.open().unwrap();
    let pair = Pair::generate(KeyType::Ed25519).unwrap();
    let pkcs8 = pair.to_pkcs8().unwrap();
    keys.import("ca", &pkcs8).unwrap();
    sign_ed25519(&keys);
    let secret = &pkcs8[pkcs8.len() - 32..];
    let text = format!("{keys:?}");
    let passphrase = fs::read_to_string(store.passphrase()).unwrap();
    assert!(!text.contains(passphrase.trim()) && !text.contains("Pair"), "{text}");
    let file = fs::read_to_string(store.file("ca")).unwrap();
    let encoded = serde_json::to_string(&Blob(secret.to_vec())).unwrap();
    assert!(!file.contains(encoded.trim_matches(['"', '='])));
}

fn sign_ed25519(keys: &SoftKeys) {
    keys.sign("ca", SignatureAlgorithm::Ed25519, b"message").unwrap();
}
