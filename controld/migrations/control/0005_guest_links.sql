-- Links with which somebody without an account opens one VM's console, by the hash of their secret. They go with their
-- maker, and with the API token that made them: another user of the same name has none.
CREATE TABLE guest_links (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    -- `user@realm`.
    maker TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- NULL where a person made it.
    token TEXT REFERENCES api_tokens (id) ON DELETE CASCADE,
    -- The VM's uuid.
    vm TEXT NOT NULL,
    -- As the contract numbers them.
    kind INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    comment TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    -- When a guest came with it last, and from where.
    opened_ms INTEGER,
    opened_from TEXT
) STRICT;
CREATE INDEX guest_links_by_maker ON guest_links (maker);
CREATE INDEX guest_links_by_token ON guest_links (token);
