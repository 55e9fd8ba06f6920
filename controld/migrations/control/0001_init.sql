CREATE TABLE users (
    name TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role TEXT,
    disabled INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL
) STRICT;

-- Every secret that stands for a session, hashed. A used refresh token stays until its session ends, so that its
-- second use is recognised.
CREATE TABLE session_secrets (
    hash BLOB PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('access', 'refresh', 'cookie')),
    expires_ms INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX session_secrets_by_session ON session_secrets (session);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    enrolled_ms INTEGER NOT NULL,
    -- The certificate in use; the one before dies when this one is first used.
    serial TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    -- Issued by a renewal and not used yet.
    next_serial TEXT,
    next_expires_ms INTEGER,
    last_seen_ms INTEGER,
    agent_version TEXT
) STRICT;

CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    node_name TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms INTEGER,
    -- SHA-256 of the public key that redeemed it: the same key is answered again if the answer was lost.
    used_key BLOB,
    node_id TEXT REFERENCES nodes (id) ON DELETE SET NULL
) STRICT;

-- Requests that were carried out, by the id that their caller gave: a repetition is answered and not repeated.
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    what TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
