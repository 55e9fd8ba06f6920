//! What decisions rest on: groups, roles, grants, pools and tags. Read as a whole, changed in pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use horcrux_proto::name::Resource;

use super::{Store, StoreError, doing};
use crate::access::name::{GroupName, RoleName, UserId};
use crate::access::path::Path;
use crate::access::policy::{Facts, Grant, Subject, TokenScope};
use crate::access::privileges::Privileges;
use crate::access::rights::Labels;

/// A group or a pool as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NamedRow {
    pub name: String,
    pub comment: String,
}

#[derive(sqlx::FromRow)]
struct GrantRow {
    id: String,
    subject_kind: String,
    subject: String,
    role: String,
    path: String,
    propagate: bool,
    not_after_ms: Option<i64>,
    created_ms: i64,
    created_by: String,
}

impl GrantRow {
    /// What was stored by a version that knew more is left out: it opens nothing, and is told.
    fn grant(self) -> Option<Grant> {
        let subject = match self.subject_kind.as_str() {
            "user" => self.subject.parse().ok().map(Subject::User),
            "group" => self.subject.parse().ok().map(Subject::Group),
            _ => Some(Subject::Token(self.subject.as_str().into())),
        };
        let grant = subject.zip(self.role.parse().ok()).zip(self.path.parse().ok());
        if grant.is_none() {
            tracing::error!(grant = self.id, "stored grant can't be read: it counts for nothing");
        }
        grant.map(|((subject, role), path)| Grant {
            id: self.id,
            subject,
            role,
            path,
            propagate: self.propagate,
            not_after_ms: self.not_after_ms,
            created_ms: self.created_ms,
            created_by: self.created_by,
        })
    }
}

impl Store {
    /// All that decisions rest on, at one moment.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        let failed = "read who may do what";
        let mut tx = self.reader.begin().await.map_err(doing(failed))?;
        let users: Vec<String> = sqlx::query_scalar("SELECT id FROM users WHERE NOT disabled")
            .fetch_all(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let groups: Vec<(String, Option<String>)> = sqlx::query_as(
            "SELECT g.name, m.user FROM groups g LEFT JOIN group_members m ON m.group_name = g.name",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let roles: Vec<(String, String)> = sqlx::query_as("SELECT name, privileges FROM roles")
            .fetch_all(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let grants: Vec<GrantRow> = sqlx::query_as(
            "SELECT id, subject_kind, subject, role, path, propagate, not_after_ms, created_ms, created_by
             FROM grants ORDER BY created_ms, id",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let tokens: Vec<(String, String, bool)> =
            sqlx::query_as("SELECT id, owner, full_scope FROM api_tokens")
                .fetch_all(&mut *tx)
                .await
                .map_err(doing(failed))?;
        let tags: Vec<(String, String)> = sqlx::query_as("SELECT resource, tag FROM tags")
            .fetch_all(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let pools: Vec<(String, String)> = sqlx::query_as("SELECT resource, pool FROM pool_members")
            .fetch_all(&mut *tx)
            .await
            .map_err(doing(failed))?;
        drop(tx);

        let user = |id: &String| id.parse::<UserId>().ok();
        let mut members: BTreeMap<GroupName, BTreeSet<UserId>> = BTreeMap::new();
        for (group, member) in groups {
            let Ok(group) = group.parse() else { continue };
            members.entry(group).or_default().extend(member.as_ref().and_then(user));
        }
        let role = |(name, held): (String, String)| Some((name.parse().ok()?, Privileges::from_text(&held)));
        let token = |(id, owner, full): (String, String, bool)| {
            Some((id.into(), TokenScope { owner: user(&owner)?, full }))
        };
        Ok(Facts {
            users: users.iter().filter_map(user).collect(),
            members,
            roles: roles.into_iter().filter_map(role).collect(),
            grants: grants.into_iter().filter_map(GrantRow::grant).collect(),
            tokens: tokens.into_iter().filter_map(token).collect(),
            labels: Arc::new(Labels::new(by_object(&tags), by_object(&pools))),
        })
    }

    pub async fn groups(&self) -> Result<Vec<NamedRow>, StoreError> {
        sqlx::query_as("SELECT name, comment FROM groups ORDER BY name")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list groups"))
    }

    /// Makes or changes a group; its members are as told from then on.
    pub async fn put_group(
        &self,
        name: &GroupName,
        comment: &str,
        members: &BTreeSet<UserId>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let failed = "store a group";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO groups (name, comment, created_ms) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET comment = excluded.comment",
        )
        .bind(name.as_str())
        .bind(comment)
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        sqlx::query("DELETE FROM group_members WHERE group_name = $1")
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        for member in members {
            sqlx::query("INSERT INTO group_members (group_name, user) VALUES ($1, $2)")
                .bind(name.as_str())
                .bind(member.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// In which of the groups of `realm` a user is.
    pub async fn memberships(&self, user: &UserId, realm: &str) -> Result<BTreeSet<GroupName>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar("SELECT group_name FROM group_members WHERE user = $1")
            .bind(user.as_str())
            .fetch_all(&self.reader)
            .await
            .map_err(doing("read what groups a realm named"))?;
        let groups = names.iter().filter_map(|name| name.parse::<GroupName>().ok());
        Ok(groups.filter(|group| group.realm() == Some(realm)).collect())
    }

    /// Sets in which of the groups of `realm` a user is.
    pub async fn put_memberships(
        &self,
        user: &UserId,
        realm: &str,
        groups: &BTreeSet<GroupName>,
    ) -> Result<(), StoreError> {
        let failed = "store what groups a realm names";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        // No realm's name holds a character that has a meaning in a pattern.
        sqlx::query("DELETE FROM group_members WHERE user = $1 AND group_name LIKE '%@' || $2")
            .bind(user.as_str())
            .bind(realm)
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        for group in groups {
            sqlx::query("INSERT INTO group_members (group_name, user) VALUES ($1, $2)")
                .bind(group.as_str())
                .bind(user.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Forgets a group and its grants.
    pub async fn delete_group(&self, name: &GroupName) -> Result<(), StoreError> {
        let all = [
            "DELETE FROM grants WHERE subject_kind = 'group' AND subject = $1",
            "DELETE FROM groups WHERE name = $1",
        ];
        self.forget(&all, name.as_str(), "delete a group").await
    }

    pub async fn put_role(
        &self,
        name: &RoleName,
        privileges: Privileges,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO roles (name, privileges, created_ms) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET privileges = excluded.privileges",
        )
        .bind(name.as_str())
        .bind(privileges.to_string())
        .bind(now_ms)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a role"))
    }

    /// Forgets a role, and what was to be recorded for it.
    pub async fn delete_role(&self, name: &RoleName) -> Result<(), StoreError> {
        let all = [
            "DELETE FROM recording_policies WHERE subject = 'roles/' || $1",
            "DELETE FROM roles WHERE name = $1",
        ];
        self.forget(&all, name.as_str(), "delete a role").await
    }

    pub async fn insert_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        let mut writer = self.writer.acquire().await.map_err(doing("store a grant"))?;
        insert_grant(&mut writer, grant).await
    }

    pub async fn delete_grant(&self, id: &str) -> Result<(), StoreError> {
        self.forget(&["DELETE FROM grants WHERE id = $1"], id, "delete a grant").await
    }

    pub async fn pools(&self) -> Result<Vec<NamedRow>, StoreError> {
        sqlx::query_as("SELECT name, comment FROM pools ORDER BY name")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list pools"))
    }

    /// Makes or changes a pool.
    pub async fn put_pool(
        &self,
        name: &str,
        comment: &str,
        add: &[Resource],
        remove: &[Resource],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let failed = "store a pool";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO pools (name, comment, created_ms) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET comment = excluded.comment",
        )
        .bind(name)
        .bind(comment)
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let both = [
            ("DELETE FROM pool_members WHERE pool = $1 AND resource = $2", remove),
            ("INSERT INTO pool_members (pool, resource) VALUES ($1, $2) ON CONFLICT DO NOTHING", add),
        ];
        for (query, members) in both {
            for member in members {
                sqlx::query(query)
                    .bind(name)
                    .bind(member.to_string())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
            }
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Forgets a pool, the grants on it, and what was to be recorded of its VMs.
    pub async fn delete_pool(&self, name: &str) -> Result<(), StoreError> {
        let all = [
            "DELETE FROM grants WHERE path = '/pools/' || $1",
            "DELETE FROM recording_policies WHERE subject = 'pools/' || $1",
            "DELETE FROM pools WHERE name = $1",
        ];
        self.forget(&all, name, "delete a pool").await
    }

    pub async fn put_tags(
        &self,
        object: &Resource,
        add: &[String],
        remove: &[String],
    ) -> Result<(), StoreError> {
        let failed = "store tags";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let both = [
            ("DELETE FROM tags WHERE resource = $1 AND tag = $2", remove),
            ("INSERT INTO tags (resource, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING", add),
        ];
        for (query, tags) in both {
            for tag in tags {
                sqlx::query(query)
                    .bind(object.to_string())
                    .bind(tag)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
            }
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Forgets what is kept of an object that is gone: grants on it and below it, its tags and its places in pools.
    pub async fn forget_object(&self, path: &Path) -> Result<(), StoreError> {
        let name = path.as_str().trim_start_matches('/');
        let all = [
            "DELETE FROM grants WHERE path = '/' || $1 OR path LIKE '/' || $1 || '/%'",
            "DELETE FROM tags WHERE resource = $1 OR resource LIKE $1 || '/%'",
            "DELETE FROM pool_members WHERE resource = $1 OR resource LIKE $1 || '/%'",
        ];
        self.forget(&all, name, "forget what was granted on an object").await
    }

    async fn forget(
        &self,
        queries: &[&'static str],
        what: &str,
        failed: &'static str,
    ) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        for query in queries {
            sqlx::query(*query).bind(what).execute(&mut *tx).await.map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))
    }
}

pub(super) async fn insert_grant(tx: &mut sqlx::SqliteConnection, grant: &Grant) -> Result<(), StoreError> {
    let (kind, subject) = match &grant.subject {
        Subject::User(user) => ("user", user.as_str()),
        Subject::Group(group) => ("group", group.as_str()),
        Subject::Token(id) => ("token", &**id),
    };
    sqlx::query(
        "INSERT INTO grants (id, subject_kind, subject, role, path, propagate, not_after_ms, created_ms, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&grant.id)
    .bind(kind)
    .bind(subject)
    .bind(grant.role.as_str())
    .bind(grant.path.as_str())
    .bind(grant.propagate)
    .bind(grant.not_after_ms)
    .bind(grant.created_ms)
    .bind(&grant.created_by)
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(doing("store a grant"))
}

fn by_object<T: std::str::FromStr + Ord>(rows: &[(String, String)]) -> BTreeMap<Resource, BTreeSet<T>> {
    let mut all: BTreeMap<Resource, BTreeSet<T>> = BTreeMap::new();
    for (object, label) in rows {
        if let (Ok(object), Ok(label)) = (object.parse(), label.parse()) {
            all.entry(object).or_default().insert(label);
        }
    }
    all
}
