-- What validation finds in readings, and what a person decides about it.
SET LOCAL search_path = meter_gateway, public;

-- What flowed back through the meter, cumulative, Wh or mL. NOT VALID: the older rule was narrower, so no old
-- row needs to be looked at while the table is locked.
ALTER TABLE reading DROP CONSTRAINT reading_channel_check;
ALTER TABLE reading ADD CONSTRAINT reading_channel_check
  CHECK (channel IN ('counter', 'credit', 'load', 'relay', 'reverse')) NOT VALID;

-- How often this meter is expected to tell its counter: two turns missed are a gap.
ALTER TABLE meter ADD COLUMN read_every_s integer NOT NULL DEFAULT 3600
  CHECK (read_every_s BETWEEN 60 AND 172800);

-- One thing found in the readings of one meter. Open once for a meter, kind and channel; it ends once.
CREATE TABLE reading_finding (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter,
  kind text NOT NULL CHECK (kind IN
    ('counter', 'gap', 'flat', 'clock', 'stranger', 'leak', 'reverse', 'tamper', 'conflict')),
  channel text NOT NULL CHECK (channel IN ('counter', 'credit', 'load', 'relay', 'reverse', 'meter')),
  from_at timestamptz NOT NULL,      -- where in the readings it begins
  to_at timestamptz,                 -- where in the readings it ends
  detail jsonb NOT NULL DEFAULT '{}',
  opened_at timestamptz NOT NULL,
  closed_at timestamptz,
  closed_by text,                    -- platform, or a person
  outcome text CHECK (outcome IN ('over', 'explained', 'rebased', 'decided')),
  reason text NOT NULL DEFAULT '',
  UNIQUE (meter_id, kind, channel, from_at),
  CHECK ((closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (outcome IS NULL)),
  CHECK (outcome = 'over' OR closed_at IS NULL OR reason <> '')
);
CREATE UNIQUE INDEX reading_finding_open_once ON reading_finding (meter_id, kind, channel) WHERE closed_at IS NULL;
CREATE INDEX reading_finding_by_age ON reading_finding (opened_at);
CREATE INDEX reading_finding_quiet ON reading_finding (meter_id, kind, closed_at) WHERE closed_by <> 'platform';

-- Its history, written by the database itself: who, when, why, what.
CREATE TABLE reading_finding_step (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  finding_id bigint NOT NULL REFERENCES reading_finding,
  step text NOT NULL CHECK (step IN ('opened', 'closed')),
  occurred_at timestamptz NOT NULL,
  actor text NOT NULL,
  outcome text NOT NULL DEFAULT '',
  reason text NOT NULL DEFAULT '',
  detail jsonb NOT NULL
);
CREATE INDEX ON reading_finding_step (finding_id);
CREATE TRIGGER reading_finding_step_is_a_fact BEFORE UPDATE OR DELETE ON reading_finding_step
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION write_finding_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO meter_gateway.reading_finding_step (finding_id, step, occurred_at, actor, detail)
    VALUES (NEW.id, 'opened', NEW.opened_at, 'platform', NEW.detail);
  END IF;
  IF NEW.closed_at IS NOT NULL THEN
    INSERT INTO meter_gateway.reading_finding_step (finding_id, step, occurred_at, actor, outcome, reason, detail)
    VALUES (NEW.id, 'closed', NEW.closed_at, NEW.closed_by, NEW.outcome, NEW.reason, NEW.detail);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER reading_finding_writes_its_steps AFTER INSERT OR UPDATE OF closed_at ON reading_finding
  FOR EACH ROW EXECUTE FUNCTION write_finding_step();

CREATE FUNCTION refuse_change_of_closed_finding() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.closed_at IS NOT NULL
     OR (NEW.meter_id, NEW.kind, NEW.channel, NEW.from_at, NEW.opened_at)
        IS DISTINCT FROM (OLD.meter_id, OLD.kind, OLD.channel, OLD.from_at, OLD.opened_at) THEN
    RAISE EXCEPTION '% of a finding is refused: it is closed once, and says for ever where it began', TG_OP
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER reading_finding_is_closed_once BEFORE UPDATE OR DELETE ON reading_finding
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_finding();

-- A person's word on two values of one reading: which of them counts from now on.
CREATE TABLE reading_decision (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  conflict_id bigint NOT NULL UNIQUE REFERENCES reading_conflict,
  meter_id bigint NOT NULL,
  channel text NOT NULL,
  occurred_at timestamptz NOT NULL,
  verdict text NOT NULL CHECK (verdict IN ('keep', 'accept')),
  value bigint NOT NULL,             -- the one that counts
  decided_by text NOT NULL CHECK (decided_by <> ''),
  decided_at timestamptz NOT NULL,
  reason text NOT NULL CHECK (reason <> '')
);
CREATE INDEX ON reading_decision (meter_id, channel, occurred_at, id);
CREATE TRIGGER reading_decision_is_a_fact BEFORE UPDATE OR DELETE ON reading_decision
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE INDEX ON reading_conflict (meter_id, channel, occurred_at);
CREATE TRIGGER reading_conflict_is_a_fact BEFORE UPDATE OR DELETE ON reading_conflict
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A person's word that a counter began again: from where it is believed, and what it said before.
CREATE TABLE counter_rebase (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  finding_id bigint NOT NULL UNIQUE REFERENCES reading_finding,
  meter_id bigint NOT NULL REFERENCES meter,
  cause text NOT NULL CHECK (cause IN ('replaced', 'reset', 'repaired')),
  from_at timestamptz NOT NULL,      -- the first reading that is believed again
  base_value bigint NOT NULL,        -- its counter
  until_at timestamptz NOT NULL,     -- the newest reading when it was decided
  top_value bigint NOT NULL CHECK (top_value >= base_value),
  last_at timestamptz NOT NULL,      -- the last reading that was believed before
  last_value bigint NOT NULL,
  believed integer NOT NULL CHECK (believed > 0),
  decided_by text NOT NULL CHECK (decided_by <> ''),
  decided_at timestamptz NOT NULL,
  reason text NOT NULL CHECK (reason <> ''),
  CHECK (last_at < from_at AND from_at <= until_at)
);
CREATE INDEX ON counter_rebase (meter_id, from_at);
CREATE TRIGGER counter_rebase_is_a_fact BEFORE UPDATE OR DELETE ON counter_rebase
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Values that nobody measured, in a table of their own: no balance and no check ever reads them.
CREATE TABLE reading_estimate (
  finding_id bigint NOT NULL REFERENCES reading_finding,
  meter_id bigint NOT NULL,
  channel text NOT NULL CHECK (channel = 'counter'),
  occurred_at timestamptz NOT NULL,
  value bigint NOT NULL,
  slot_s integer NOT NULL CHECK (slot_s > 0),  -- a true reading this near replaces it
  method text NOT NULL CHECK (method IN ('line', 'typical')),
  recorded_at timestamptz NOT NULL,
  PRIMARY KEY (finding_id, channel, occurred_at)
);
CREATE INDEX ON reading_estimate (meter_id, channel, occurred_at);
CREATE TRIGGER reading_estimate_is_a_fact BEFORE UPDATE OR DELETE ON reading_estimate
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- How far each check has come: an id, or the meter after which its next turn begins.
CREATE TABLE validation_mark (
  name text PRIMARY KEY,
  value bigint NOT NULL
);

-- Readings as they count: with what persons decided about conflicts and about counters that began again.
CREATE VIEW v_reading_judged AS
  SELECT r.meter_id, r.channel, r.occurred_at, coalesce(d.value, r.value) AS value, r.value AS told_value,
         CASE WHEN r.quality = 'suspect' AND r.channel = 'counter' AND EXISTS (
                     SELECT FROM counter_rebase b WHERE b.meter_id = r.meter_id
                        AND r.occurred_at BETWEEN b.from_at AND b.until_at
                        AND r.value BETWEEN b.base_value AND b.top_value)
              THEN 'valid' ELSE r.quality END AS quality,
         r.recorded_at
    FROM reading r
    LEFT JOIN LATERAL (SELECT x.value FROM reading_decision x
                        WHERE x.meter_id = r.meter_id AND x.channel = r.channel AND x.occurred_at = r.occurred_at
                        ORDER BY x.id DESC LIMIT 1) d ON true;

-- An estimate that no true reading has replaced yet.
CREATE VIEW v_reading_estimate AS
  SELECT e.finding_id, e.meter_id, e.channel, e.occurred_at, e.value, e.method, e.recorded_at
    FROM reading_estimate e
    -- LIMIT keeps this a look-up by key and time for each estimate.
    LEFT JOIN LATERAL (SELECT r.occurred_at FROM reading r WHERE r.meter_id = e.meter_id AND r.channel = e.channel
                          AND r.occurred_at > e.occurred_at - make_interval(secs => e.slot_s / 2.0)
                          AND r.occurred_at <= e.occurred_at + make_interval(secs => e.slot_s / 2.0)
                          AND r.quality IN ('valid', 'simulated') LIMIT 1) t ON true
   WHERE t.occurred_at IS NULL;

-- For a person's eye: measured and estimated together, each with its quality. Nothing is counted from it.
CREATE VIEW v_reading_best AS
  SELECT meter_id, channel, occurred_at, value, quality, recorded_at FROM v_reading_judged
  UNION ALL
  SELECT meter_id, channel, occurred_at, value, 'estimated', recorded_at FROM v_reading_estimate;

CREATE VIEW v_reading_finding AS
  SELECT id, meter_id, kind, channel, from_at, to_at, detail, opened_at, closed_at, closed_by, outcome, reason
    FROM reading_finding;
CREATE VIEW v_reading_finding_step AS
  SELECT id, finding_id, step, occurred_at, actor, outcome, reason, detail FROM reading_finding_step;
CREATE VIEW v_reading_conflict AS
  SELECT c.id, c.meter_id, c.channel, c.occurred_at, c.value, c.kept_value, c.recorded_at,
         d.verdict, d.decided_by, d.decided_at, d.reason
    FROM reading_conflict c LEFT JOIN reading_decision d ON d.conflict_id = c.id;
CREATE VIEW v_counter_rebase AS
  SELECT id, finding_id, meter_id, cause, from_at, base_value, until_at, top_value, last_at, last_value, believed,
         decided_by, decided_at, reason
    FROM counter_rebase;
