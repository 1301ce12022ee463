-- Credit that stood on a meter when it was taken down: goes to the next meter of the place once, or into the books.
SET LOCAL search_path = billing;

CREATE TABLE credit_carry (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
  -- One removal, one carry: the credit of an installation is never given twice.
  installation_id bigint NOT NULL UNIQUE REFERENCES meter_gateway.meter_installation,
  old_meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  usage_point_id bigint NOT NULL REFERENCES meter_gateway.usage_point,
  customer_id bigint REFERENCES customer,  -- null: nobody had an agreement
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  counter bigint NOT NULL CHECK (counter >= 0),  -- Wh or mL, the final reading
  credit bigint NOT NULL,                        -- Wh or mL, negative where emergency credit was used
  source text NOT NULL CHECK (source IN ('meter', 'display')),
  units_tenths bigint NOT NULL CHECK (units_tenths >= 0),  -- as a token carries it
  taken_by text NOT NULL,
  note text NOT NULL DEFAULT '',
  taken_at timestamptz NOT NULL,
  state text NOT NULL CHECK (state IN ('EMPTY', 'WAITING', 'BOUND', 'RESERVED', 'DONE', 'REFUSED', 'SETTLED',
    'RETURNED')),
  new_meter_id bigint REFERENCES meter_gateway.meter CHECK (new_meter_id <> old_meter_id),
  base_date smallint,
  tid integer,
  rnd smallint CHECK (rnd BETWEEN 0 AND 15),
  key jsonb,
  key_change_id uuid REFERENCES key_change,
  amount_minor bigint CHECK (amount_minor >= 0),  -- of a settled one, in baisa
  detail text NOT NULL DEFAULT '',
  changed_at timestamptz NOT NULL,
  UNIQUE (new_meter_id, base_date, tid),
  CHECK (state NOT IN ('BOUND', 'RESERVED', 'DONE') OR new_meter_id IS NOT NULL),
  CHECK (state NOT IN ('RESERVED', 'DONE') OR tid IS NOT NULL),
  CHECK ((state = 'SETTLED') = (amount_minor IS NOT NULL)),
  CHECK ((state = 'EMPTY') = (units_tenths = 0))
);
CREATE INDEX credit_carry_waiting ON credit_carry (usage_point_id) WHERE state = 'WAITING';
CREATE INDEX credit_carry_open ON credit_carry (changed_at) WHERE state IN ('BOUND', 'RESERVED');
CREATE INDEX credit_carry_of_new_meter ON credit_carry (new_meter_id);

-- What was read stays as it was read; only where it goes is decided later.
CREATE FUNCTION credit_carry_keeps_its_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.installation_id, OLD.old_meter_id, OLD.usage_point_id, OLD.counter, OLD.credit, OLD.units_tenths, OLD.taken_at,
      OLD.taken_by) IS DISTINCT FROM
     (NEW.installation_id, NEW.old_meter_id, NEW.usage_point_id, NEW.counter, NEW.credit, NEW.units_tenths, NEW.taken_at,
      NEW.taken_by)
     OR OLD.state IN ('DONE', 'SETTLED', 'EMPTY', 'RETURNED') OR (OLD.tid IS NOT NULL AND OLD.tid IS DISTINCT FROM NEW.tid) THEN
    RAISE EXCEPTION 'a credit that was carried is a fact: %', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER credit_carry_keeps_its_facts BEFORE UPDATE ON credit_carry
  FOR EACH ROW EXECUTE FUNCTION credit_carry_keeps_its_facts();
CREATE TRIGGER credit_carry_is_not_deleted BEFORE DELETE ON credit_carry
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

CREATE VIEW v_credit_carry AS
  SELECT c.id, c.old_meter_id, o.drn AS old_drn, c.new_meter_id, n.drn AS new_drn, c.usage_point_id, c.customer_id, c.commodity,
         c.counter, c.credit, c.source, c.units_tenths, c.taken_by, c.note, c.taken_at, c.state, c.amount_minor, c.detail,
         c.changed_at
    FROM credit_carry c JOIN meter_gateway.meter o ON o.id = c.old_meter_id
    LEFT JOIN meter_gateway.meter n ON n.id = c.new_meter_id;

ALTER TABLE journal DROP CONSTRAINT journal_kind_check, ADD CONSTRAINT journal_kind_check
  CHECK (kind IN ('payment', 'vend', 'arrears', 'suspense', 'reversal', 'refund', 'opening', 'carry'));
