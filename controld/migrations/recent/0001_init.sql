-- The last hour as it came in: one row for each batch of samples.
CREATE TABLE batches (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    -- By the node's clock, which may be wrong.
    taken_ms INTEGER NOT NULL,
    -- By the controller's.
    received_ms INTEGER NOT NULL,
    -- The stream on which its ids were declared: when that began.
    stream INTEGER NOT NULL,
    -- An encoded horcrux.agent.v1.SampleBatch.
    batch BLOB NOT NULL,
    PRIMARY KEY (node, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_by_age ON batches (received_ms);

-- What the ids of one stream stand for: a row for each batch that declared some, however many.
CREATE TABLE declarations (
    node TEXT NOT NULL,
    stream INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    -- An encoded horcrux.agent.v1.SampleBatch that only declares.
    batch BLOB NOT NULL,
    PRIMARY KEY (node, stream, epoch, sequence)
) STRICT, WITHOUT ROWID;

-- The newest complete inventory of each node, an encoded horcrux.agent.v1.Inventory.
CREATE TABLE inventories (
    node TEXT PRIMARY KEY,
    inventory BLOB NOT NULL
) STRICT;
