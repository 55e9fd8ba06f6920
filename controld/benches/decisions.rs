//! What a decision costs with 10,000 grants: warm, as for every request; cold, as for the first after a change.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use horcrux_controld::access::name::{GroupName, UserId};
use horcrux_controld::access::policy::{Facts, Grant, Policy, Subject, Who};
use horcrux_controld::access::rights::Labels;
use horcrux_proto::authz::Privilege;
use horcrux_proto::name::Resource;
use std::hint::black_box;

const NOW_MS: i64 = 1_800_000_000_000;

/// 1,000 users in 50 groups; 10,000 grants on VMs, pools and tags, a third of them to groups.
fn policy() -> Policy {
    let user = |n: usize| format!("user{n}@local").parse::<UserId>();
    let group = |n: usize| format!("group{n}").parse::<GroupName>();
    let uuid = |n: usize| format!("/vms/00000000-0000-4000-8000-{n:012}");
    let mut grants = Vec::new();
    for n in 0..10_000 {
        let subject = if n % 3 == 0 {
            Subject::Group(group(n % 50).expect("a group"))
        } else {
            Subject::User(user(n % 1000).expect("a user"))
        };
        let path = match n % 5 {
            0 => format!("/pools/pool{}", n % 100),
            1 => format!("/vms?tag=tag{}", n % 20),
            _ => uuid(n),
        };
        grants.push(Grant {
            id: n.to_string(),
            subject,
            role: "VmUser".parse().expect("a role"),
            path: path.parse().expect("a path"),
            propagate: true,
            not_after_ms: None,
            created_ms: 0,
            created_by: String::new(),
        });
    }
    let objects = (0..10_000).filter_map(|n| uuid(n)[1..].parse::<Resource>().ok().map(|object| (n, object)));
    let (mut tags, mut pools) = (BTreeMap::new(), BTreeMap::new());
    for (n, object) in objects {
        tags.insert(object.clone(), BTreeSet::from([format!("tag{}", n % 20).parse().expect("a tag")]));
        pools.insert(object, BTreeSet::from([format!("pool{}", n % 100).parse().expect("a pool")]));
    }
    Policy::new(Facts {
        users: (0..1000).filter_map(|n| user(n).ok()).collect(),
        members: (0..50)
            .filter_map(|n| Some((group(n).ok()?, (0..20).filter_map(|m| user(n * 20 + m).ok()).collect())))
            .collect(),
        grants,
        labels: Arc::new(Labels::new(tags, pools)),
        ..Facts::default()
    })
}

fn decisions(c: &mut Criterion) {
    let policy = policy();
    let who = Who::User("user42@local".parse().expect("a user"));
    let path = "/vms/00000000-0000-4000-8000-000000004242".parse().expect("a path");
    c.bench_function("warm decision, 10,000 grants", |b| {
        b.iter(|| {
            let rights = policy.rights(black_box(&who), NOW_MS);
            rights.allow(Privilege::VmConsole, black_box(&path), policy.labels())
        });
    });
    c.bench_function("cold decision, 10,000 grants", |b| {
        b.iter(|| {
            let rights = policy.compile(black_box(&who), NOW_MS);
            rights.allow(Privilege::VmConsole, black_box(&path), policy.labels())
        });
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
