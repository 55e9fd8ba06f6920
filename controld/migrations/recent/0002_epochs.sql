-- Ids stand for the same all through an epoch. What was kept by stream goes: it is an hour at most.
DELETE FROM batches;
DELETE FROM declarations;

-- What nodes told of, as long as samples are kept.
CREATE TABLE events (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    -- An encoded horcrux.agent.v1.Event.
    event BLOB NOT NULL,
    PRIMARY KEY (node, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_age ON events (received_ms);

-- What nodes gave up before it could be stored: sequences that are neither batches nor events.
CREATE TABLE gaps (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (node, epoch, first_sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX gaps_by_age ON gaps (received_ms);
