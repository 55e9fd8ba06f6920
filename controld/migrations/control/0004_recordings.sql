-- Which consoles are recorded. What has no row isn't.
CREATE TABLE recording_policies (
    -- `vms/{uuid}`, `pools/{pool}` or `roles/{role}`.
    subject TEXT PRIMARY KEY,
    -- As the contract numbers them.
    scope INTEGER NOT NULL,
    keeps_input INTEGER NOT NULL
) STRICT;
-- Recordings. Their bytes are files of the state directory, named as the id.
CREATE TABLE recordings (
    id TEXT PRIMARY KEY,
    vm TEXT NOT NULL,
    display_name TEXT NOT NULL,
    node TEXT NOT NULL,
    user TEXT NOT NULL,
    kind INTEGER NOT NULL,
    keeps_input INTEGER NOT NULL,
    began_ms INTEGER NOT NULL,
    -- NULL while it goes on.
    ended_ms INTEGER,
    size INTEGER NOT NULL DEFAULT 0,
    shed INTEGER NOT NULL DEFAULT 0,
    -- NULL while it goes on, and where the controller ended first.
    last_link BLOB
) STRICT;
CREATE INDEX recordings_by_time ON recordings (began_ms, id);
