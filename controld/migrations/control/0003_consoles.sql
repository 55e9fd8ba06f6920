-- Tickets for consoles, by the hash of their secret. One that was used stays until its end, so that it isn't taken again.
CREATE TABLE console_tickets (
    hash BLOB PRIMARY KEY,
    -- `user@realm`.
    user TEXT NOT NULL,
    -- A session's id, or `token ID`.
    credential TEXT NOT NULL,
    -- The VM's uuid, and where and since when it ran.
    vm TEXT NOT NULL,
    node TEXT NOT NULL,
    started_ms INTEGER,
    -- As the contract numbers them.
    kind INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms INTEGER
) STRICT;
CREATE INDEX console_tickets_by_user ON console_tickets (user);
