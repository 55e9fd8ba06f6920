-- Identities become `user@realm`, and roles are held by grants. Whoever is signed in signs in again.
DROP TABLE session_secrets;
DROP TABLE sessions;
ALTER TABLE users RENAME TO users_before;

CREATE TABLE users (
    -- `user@realm`.
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL DEFAULT '',
    -- Who it is in a realm that is not local: `realm`, a space, and what never changes there. A name may change hands.
    subject TEXT UNIQUE,
    -- Local users only.
    password_hash TEXT,
    disabled INTEGER NOT NULL DEFAULT 0,
    -- Raised by each change of what they sign in with: a sign-in that began before opens no session.
    credentials INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    last_sign_in_ms INTEGER
) STRICT;

CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('user', 'group', 'token')),
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    path TEXT NOT NULL,
    propagate INTEGER NOT NULL,
    not_after_ms INTEGER,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;
CREATE INDEX grants_by_subject ON grants (subject_kind, subject);

INSERT INTO users (id, password_hash, disabled, created_ms)
    SELECT name || '@local', password_hash, disabled, created_ms FROM users_before;
INSERT INTO grants (id, subject_kind, subject, role, path, propagate, created_ms, created_by)
    SELECT lower(hex(randomblob(6))), 'user', name || '@local', role, '/', 1, created_ms, 'controller'
    FROM users_before WHERE role IS NOT NULL;
DROP TABLE users_before;

-- TOTP. The secret is sealed with a key that is not in this database.
CREATE TABLE second_factors (
    user TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed BLOB NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0,
    -- The last time step whose code was taken: it and those before it are taken no more.
    last_step INTEGER NOT NULL DEFAULT 0,
    -- Wrong codes since the last right one.
    failures INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE recovery_codes (
    hash BLOB PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE groups (
    name TEXT PRIMARY KEY,
    comment TEXT NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE group_members (
    group_name TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
    user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_name, user)
) STRICT;

CREATE TABLE roles (
    name TEXT PRIMARY KEY,
    -- Names of privileges, with commas in between.
    privileges TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE pools (
    name TEXT PRIMARY KEY,
    comment TEXT NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE pool_members (
    pool TEXT NOT NULL REFERENCES pools (name) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    PRIMARY KEY (pool, resource)
) STRICT;

CREATE TABLE tags (
    resource TEXT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (resource, tag)
) STRICT;

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    comment TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    full_scope INTEGER NOT NULL,
    -- CIDRs, with commas in between; empty: from anywhere.
    networks TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    last_used_ms INTEGER,
    last_used_from TEXT
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL,
    source TEXT NOT NULL,
    client TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user);

-- Secrets that stand for a session, hashed. A used refresh token stays until its session ends, so that its second use is
-- recognised. Access tokens are signed, and not kept.
CREATE TABLE session_secrets (
    hash BLOB PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('refresh', 'cookie')),
    expires_ms INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX session_secrets_by_session ON session_secrets (session);

-- Codes with which an administrator can be made, hashed.
CREATE TABLE setup_codes (
    hash BLOB PRIMARY KEY,
    expires_ms INTEGER NOT NULL
) STRICT;

-- What was done and refused. Rows are only added; each hash covers its row and the hash before it.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('intent', 'outcome', 'event', 'denial')),
    actor TEXT NOT NULL,
    session TEXT NOT NULL,
    source TEXT NOT NULL,
    rpc TEXT NOT NULL,
    resource TEXT NOT NULL,
    request_id TEXT NOT NULL,
    decision TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- Of an outcome: its intent; otherwise 0.
    intent INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at_ms);
CREATE INDEX audit_by_intent ON audit (intent);

-- The last row that retention removed: what the chain begins after.
CREATE TABLE audit_anchor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;

ALTER TABLE nodes ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN locked_ms INTEGER;
ALTER TABLE nodes ADD COLUMN locked_reason TEXT NOT NULL DEFAULT '';
-- The node that a token is to bring back, by id.
ALTER TABLE join_tokens ADD COLUMN reenrolls TEXT REFERENCES nodes (id) ON DELETE CASCADE;

-- Certificates that a renewal has replaced, until their end: whoever shows one has a copy.
CREATE TABLE retired_serials (
    serial TEXT PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    expires_ms INTEGER NOT NULL
) STRICT;

-- A request id counts for the caller that gave it.
DROP TABLE requests;
CREATE TABLE requests (
    actor TEXT NOT NULL,
    id TEXT NOT NULL,
    -- A keyed hash of the whole request.
    mark BLOB NOT NULL,
    -- 0 while it is being carried out.
    done INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (actor, id)
) STRICT;
