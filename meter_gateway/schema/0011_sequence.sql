-- Which messages of each edge are stored without a gap, so that a missing one is noticed and asked for.
SET LOCAL search_path = meter_gateway;

-- Messages older than a minute that the edge said, at its latest birth, to hold on its disk still.
ALTER TABLE edge ADD COLUMN backlog bigint NOT NULL DEFAULT 0;

CREATE TABLE edge_sequence (
  edge text NOT NULL,
  boot bigint NOT NULL,
  complete_to bigint NOT NULL,  -- every seq from 1 up to here is stored, or was told as missing
  gap_since timestamptz,        -- later ones arrive while the next one does not
  asked_at timestamptz,         -- when the edge was asked for its birth because of it
  PRIMARY KEY (edge, boot)
);
CREATE INDEX edge_sequence_gap ON edge_sequence (gap_since) WHERE gap_since IS NOT NULL;

-- What came before this table is not asked for.
INSERT INTO edge_sequence (edge, boot, complete_to)
  SELECT e.edge, e.boot, m.seq FROM edge e CROSS JOIN LATERAL
         (SELECT seq FROM edge_message WHERE edge = e.edge AND boot = e.boot ORDER BY seq DESC LIMIT 1) m;
