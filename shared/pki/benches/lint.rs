//! What linting costs for each certificate, beside encoding it.

#[path = "../tests/common/mod.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of it")]
mod common;

use std::hint::black_box;

use common::{Authority, KINDS, key, public_key, serial};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::key::KeyType;
use pki::{certificate::prepare, lint::LintContext};

fn lint(criterion: &mut Criterion) {
    for (kind, key_type) in [
        (0, KeyType::P256),
        (0, KeyType::Rsa2048),
        (0, KeyType::P384),
        (1, KeyType::P256),
        (4, KeyType::P256),
    ] {
        let kind = &KINDS[kind];
        let authority = Authority::new("bench", KeyType::P256);
        let profile = kind.profile(key_type);
        let key = public_key(&key(key_type));
        let content = authority.admit(&profile, &kind.request(1), key_type, &key);
        let tbs = prepare(&content, &authority.issuer, serial(1)).unwrap();
        let context = LintContext::new(&authority.issuer);
        let name = format!(
            "{} {key_type}, {} names, {} bytes",
            kind.name,
            content.san.len(),
            tbs.len()
        );
        let mut group = criterion.benchmark_group(name);
        group.bench_function("lint_tbs", |b| b.iter(|| context.lint_tbs(black_box(&tbs), &profile)));
        group.bench_function("prepare", |b| {
            b.iter(|| prepare(black_box(&content), &authority.issuer, serial(1)));
        });
        group.bench_function("context", |b| b.iter(|| LintContext::new(black_box(&authority.issuer))));
        group.finish();
    }
}

criterion_group!(benches, lint);
criterion_main!(benches);
