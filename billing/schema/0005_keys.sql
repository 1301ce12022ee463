-- Keys of meters: plans and engineering requests that two people sign, key changes, held tokens, free units.
SET LOCAL search_path = billing;

-- A request and a decision are two rows of two people; both stay as they were written.
CREATE FUNCTION another_person_decides() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  requester text;
BEGIN
  EXECUTE format('SELECT requested_by FROM billing.%I WHERE id = $1', TG_ARGV[0]) INTO requester USING NEW.id;
  IF lower(requester) = lower(NEW.decided_by) THEN
    RAISE EXCEPTION 'four eyes: % asked for it and may not decide it', NEW.decided_by
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TABLE engineering_request (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  idempotency_key text NOT NULL UNIQUE,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  kind text NOT NULL,                -- a name of billing/engineering.py
  value bigint NOT NULL,             -- watts, register, rate, factor, control or index and value: as the kind says
  needs_approval boolean NOT NULL,
  reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
  requested_by text NOT NULL,
  requested_role text NOT NULL,
  requested_at timestamptz NOT NULL
);
CREATE INDEX ON engineering_request (meter_id);
CREATE TABLE engineering_decision (
  id uuid PRIMARY KEY REFERENCES engineering_request,
  verdict text NOT NULL CHECK (verdict IN ('approved', 'refused')),
  decided_by text NOT NULL,
  decided_role text NOT NULL,
  decided_at timestamptz NOT NULL,
  note text NOT NULL DEFAULT ''
);
CREATE TRIGGER engineering_decision_four_eyes BEFORE INSERT ON engineering_decision
  FOR EACH ROW EXECUTE FUNCTION another_person_decides('engineering_request');
-- The TID and the key that a request's token is made with: decided once, before the vault is asked.
CREATE TABLE engineering_reservation (
  id uuid PRIMARY KEY REFERENCES engineering_request,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  base_date smallint NOT NULL,
  tid integer,                       -- null for class 1
  rnd smallint NOT NULL CHECK (rnd BETWEEN 0 AND 15),
  key jsonb NOT NULL,
  reserved_at timestamptz NOT NULL,
  UNIQUE (meter_id, base_date, tid)
);
-- The vault said no: nothing was issued, and never will be under this request.
CREATE TABLE engineering_refusal (
  id uuid PRIMARY KEY REFERENCES engineering_request,
  reason text NOT NULL,
  refused_at timestamptz NOT NULL
);

CREATE TABLE key_plan (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  idempotency_key text NOT NULL UNIQUE,
  scope jsonb NOT NULL,              -- which meters: {"sgc", "krn", "ti", "kt", "base_date", "drn": [...]}
  target jsonb NOT NULL,             -- what becomes new: {"sgc", "krn", "ti", "kt", "ken", "base_date"}
  reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL
);
-- The meters are fixed when the plan is made: who approves it approves these.
CREATE TABLE key_plan_meter (
  plan_id uuid NOT NULL REFERENCES key_plan,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  PRIMARY KEY (plan_id, meter_id)
);
CREATE TABLE key_plan_decision (
  id uuid PRIMARY KEY REFERENCES key_plan,
  verdict text NOT NULL CHECK (verdict IN ('approved', 'refused')),
  decided_by text NOT NULL,
  decided_role text NOT NULL,
  decided_at timestamptz NOT NULL,
  note text NOT NULL DEFAULT ''
);
CREATE TRIGGER key_plan_decision_four_eyes BEFORE INSERT ON key_plan_decision
  FOR EACH ROW EXECUTE FUNCTION another_person_decides('key_plan');

-- What two people must sign is not begun before they did, whatever the program thinks.
CREATE FUNCTION approval_comes_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM billing.engineering_request r WHERE r.id = NEW.id AND r.needs_approval)
     AND NOT EXISTS (SELECT FROM billing.engineering_decision d WHERE d.id = NEW.id AND d.verdict = 'approved') THEN
    RAISE EXCEPTION 'engineering request % is not approved', NEW.id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER engineering_reservation_is_approved BEFORE INSERT ON engineering_reservation
  FOR EACH ROW EXECUTE FUNCTION approval_comes_first();
CREATE FUNCTION plan_approval_comes_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.plan_id IS NOT NULL
     AND NOT EXISTS (SELECT FROM billing.key_plan_decision d WHERE d.id = NEW.plan_id AND d.verdict = 'approved') THEN
    RAISE EXCEPTION 'key plan % is not approved', NEW.plan_id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;

-- One change of one meter's key. Its steps are facts of their own, as with a vend.
CREATE TABLE key_change (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  plan_id uuid REFERENCES key_plan,  -- null: begun at an installation
  old jsonb NOT NULL,                -- {"sgc", "ti", "krn", "kt", "ken", "base_date"}
  new jsonb NOT NULL,
  with_sgc boolean NOT NULL,
  state text NOT NULL DEFAULT 'PLANNED' CHECK (state IN
    ('PLANNED', 'ISSUED', 'PROVEN', 'REFUSED', 'FAILED', 'WITHDRAWN')),
  begun_by text NOT NULL,
  begun_at timestamptz NOT NULL,
  round integer NOT NULL DEFAULT 0,  -- how often its tokens were sent over the link
  looked_at timestamptz NOT NULL,
  UNIQUE (plan_id, meter_id)
);
CREATE TRIGGER key_change_is_approved BEFORE INSERT ON key_change
  FOR EACH ROW EXECUTE FUNCTION plan_approval_comes_first();
CREATE UNIQUE INDEX key_change_open_once ON key_change (meter_id) WHERE state IN ('PLANNED', 'ISSUED', 'REFUSED');
CREATE INDEX key_change_to_follow ON key_change (looked_at) WHERE state IN ('PLANNED', 'ISSUED', 'REFUSED');
CREATE TABLE key_change_step (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_change_id uuid NOT NULL REFERENCES key_change,
  state text NOT NULL,
  occurred_at timestamptz NOT NULL,
  done_by text NOT NULL,
  detail text NOT NULL DEFAULT ''
);
CREATE INDEX ON key_change_step (key_change_id);

-- `key_change_id`: of a key-change token the set it belongs to, of any other the change under whose new key it was made.
ALTER TABLE token ADD COLUMN key_change_id uuid REFERENCES key_change;
ALTER TABLE token ADD COLUMN place smallint;   -- of a key-change token: 1 is typed first
ALTER TABLE token ADD COLUMN request_id text;  -- what it was issued for when that is no sale; once each
CREATE UNIQUE INDEX token_request_once ON token (request_id);
CREATE INDEX token_of_key_change ON token (key_change_id);

-- A token under a new key waits here until the meter has proven that key, then it is sent.
CREATE TABLE held_token (
  token_id bigint PRIMARY KEY REFERENCES token,
  key_change_id uuid NOT NULL REFERENCES key_change,
  command_key text NOT NULL,
  state text NOT NULL DEFAULT 'HELD' CHECK (state IN ('HELD', 'RELEASED', 'STOPPED')),
  reason text NOT NULL DEFAULT '',
  held_at timestamptz NOT NULL,
  settled_at timestamptz
);
CREATE INDEX held_token_open ON held_token (key_change_id) WHERE state <> 'RELEASED';

CREATE TABLE free_units_run (
  month date NOT NULL CHECK (extract(day FROM month) = 1),
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  units_tenths bigint NOT NULL CHECK (units_tenths > 0),
  begun_by text NOT NULL,
  begun_at timestamptz NOT NULL,
  PRIMARY KEY (month, commodity)
);
-- One row a meter and month: nobody is served twice.
CREATE TABLE free_units_grant (
  month date NOT NULL,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  commodity text NOT NULL,
  units_tenths bigint NOT NULL CHECK (units_tenths > 0),
  base_date smallint NOT NULL,
  tid integer NOT NULL,
  rnd smallint NOT NULL CHECK (rnd BETWEEN 0 AND 15),
  key jsonb NOT NULL,
  key_change_id uuid REFERENCES key_change,
  reserved_at timestamptz NOT NULL,
  PRIMARY KEY (month, meter_id),
  UNIQUE (meter_id, base_date, tid),
  FOREIGN KEY (month, commodity) REFERENCES free_units_run (month, commodity)
);

-- The vault said no to a meter: it is told of, and its key may change again.
CREATE TABLE free_units_refusal (
  month date NOT NULL,
  meter_id bigint NOT NULL,
  reason text NOT NULL,
  refused_at timestamptz NOT NULL,
  PRIMARY KEY (month, meter_id),
  FOREIGN KEY (month, meter_id) REFERENCES free_units_grant (month, meter_id)
);

-- What was done to the vending keys themselves: loaded, wrapped anew; by which two people.
CREATE TABLE key_custody (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  action text NOT NULL CHECK (action IN ('load', 'rotate')),
  first_person text NOT NULL,
  second_person text NOT NULL CHECK (lower(second_person) <> lower(first_person)),
  sgc text,
  krn smallint,
  kt smallint,
  base_date smallint,
  key_check_value text NOT NULL,
  generation integer NOT NULL,
  occurred_at timestamptz NOT NULL
);

CREATE TRIGGER engineering_request_is_a_fact BEFORE UPDATE OR DELETE ON engineering_request
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER engineering_decision_is_a_fact BEFORE UPDATE OR DELETE ON engineering_decision
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER engineering_reservation_is_a_fact BEFORE UPDATE OR DELETE ON engineering_reservation
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER engineering_refusal_is_a_fact BEFORE UPDATE OR DELETE ON engineering_refusal
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_plan_is_a_fact BEFORE UPDATE OR DELETE ON key_plan
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_plan_meter_is_a_fact BEFORE UPDATE OR DELETE ON key_plan_meter
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_plan_decision_is_a_fact BEFORE UPDATE OR DELETE ON key_plan_decision
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_change_step_is_a_fact BEFORE UPDATE OR DELETE ON key_change_step
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER free_units_run_is_a_fact BEFORE UPDATE OR DELETE ON free_units_run
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER free_units_grant_is_a_fact BEFORE UPDATE OR DELETE ON free_units_grant
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER free_units_refusal_is_a_fact BEFORE UPDATE OR DELETE ON free_units_refusal
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_custody_is_a_fact BEFORE UPDATE OR DELETE ON key_custody
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- What a meter's identity and key look like to other packages; no key is in it, only what names one.
CREATE VIEW v_key_change AS
  SELECT id AS key_change_id, meter_id, plan_id, old, new, state, begun_by, begun_at, round FROM key_change;
-- The tokens that a vend's customer enters before its own, in order.
CREATE VIEW v_first_token AS
  SELECT c.vend_id, c.id AS token_id, c.meter_id, k.place, k.digits, k.key_change_id
    FROM token c JOIN token k ON k.key_change_id = c.key_change_id AND k.purpose = 'key_change'
   WHERE c.purpose <> 'key_change';
CREATE VIEW v_held_token AS
  SELECT h.token_id, t.vend_id, t.meter_id, h.key_change_id, h.state, h.reason, h.held_at, h.settled_at
    FROM held_token h JOIN token t ON t.id = h.token_id;
CREATE VIEW v_engineering_request AS
  SELECT r.id AS request_id, r.meter_id, r.kind, r.value, r.needs_approval, r.reason, r.requested_by, r.requested_at,
         d.verdict, d.decided_by, d.decided_at, t.id AS token_id, t.issued_at, f.reason AS refusal,
         CASE WHEN t.id IS NOT NULL THEN 'ISSUED' WHEN f.id IS NOT NULL THEN 'FAILED'
              WHEN d.verdict = 'refused' THEN 'REFUSED' WHEN r.needs_approval AND d.id IS NULL THEN 'REQUESTED'
              ELSE 'APPROVED' END AS state
    FROM engineering_request r
    LEFT JOIN engineering_decision d ON d.id = r.id
    LEFT JOIN engineering_refusal f ON f.id = r.id
    LEFT JOIN token t ON t.request_id = 'engineering:' || r.id;
