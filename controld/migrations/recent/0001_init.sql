-- The last hour as it came in: one row for each batch of samples.
CREATE TABLE batches (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    taken_ms INTEGER NOT NULL,
    -- An encoded horcrux.agent.v1.SampleBatch.
    batch BLOB NOT NULL,
    PRIMARY KEY (node, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_by_age ON batches (taken_ms);

-- What the ids of one epoch stand for.
CREATE TABLE series (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    id INTEGER NOT NULL,
    -- An encoded horcrux.agent.v1.Series.
    series BLOB NOT NULL,
    PRIMARY KEY (node, epoch, id)
) STRICT, WITHOUT ROWID;

-- The newest complete inventory of each node, an encoded horcrux.agent.v1.Inventory.
CREATE TABLE inventories (
    node TEXT PRIMARY KEY,
    inventory BLOB NOT NULL
) STRICT;
