-- Money: customers and agreements, tariffs, quotes, payments, vends, the journal, token register and key audit.
CREATE SCHEMA billing;
SET LOCAL search_path = billing;

CREATE TABLE customer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE,
  name_en text NOT NULL,
  name_ar text NOT NULL,
  phone text NOT NULL UNIQUE CHECK (phone ~ '^\+[0-9]{8,15}$'),
  language text NOT NULL DEFAULT 'ar' CHECK (language IN ('ar', 'en')),
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tariff (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL,
  version integer NOT NULL,
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  valid_from timestamptz NOT NULL,
  name_en text NOT NULL,
  name_ar text NOT NULL,
  -- blocks: [{"up_to": Wh or mL a month or null, "rate_micro": micro-OMR per kWh or m3}], ascending
  blocks jsonb NOT NULL,
  vat_basis_points integer NOT NULL CHECK (vat_basis_points BETWEEN 0 AND 10000),
  arrears_cap_percent integer NOT NULL DEFAULT 20 CHECK (arrears_cap_percent BETWEEN 0 AND 50),
  minimum_minor bigint NOT NULL CHECK (minimum_minor > 0),
  maximum_minor bigint NOT NULL CHECK (maximum_minor >= minimum_minor),
  UNIQUE (code, version)
);

CREATE TABLE customer_agreement (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customer,
  usage_point_id bigint NOT NULL REFERENCES meter_gateway.usage_point,
  tariff_code text NOT NULL,
  valid_from timestamptz NOT NULL,
  valid_to timestamptz CHECK (valid_to > valid_from)
);
CREATE INDEX ON customer_agreement (customer_id);
CREATE UNIQUE INDEX usage_point_has_one_agreement ON customer_agreement (usage_point_id) WHERE valid_to IS NULL;

CREATE TABLE sts_identity (
  meter_id bigint PRIMARY KEY REFERENCES meter_gateway.meter,
  iin text NOT NULL,
  sgc text NOT NULL CHECK (sgc ~ '^[0-9]{6}$'),
  ti text NOT NULL CHECK (ti ~ '^[0-9]{2}$'),
  krn smallint NOT NULL CHECK (krn BETWEEN 1 AND 9),
  kt smallint NOT NULL CHECK (kt BETWEEN 0 AND 3),
  ken smallint NOT NULL DEFAULT 255 CHECK (ken BETWEEN 0 AND 255),
  ea text NOT NULL CHECK (ea IN ('07', '11')),
  dkga text NOT NULL CHECK (dkga IN ('02', '03', '04')),
  base_date smallint NOT NULL CHECK (base_date IN (1993, 2014, 2035)),
  last_tid integer NOT NULL DEFAULT -1,
  pending jsonb                      -- the key that a change is under way to, until the meter proves it
);

CREATE TABLE quote (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  customer_agreement_id bigint NOT NULL REFERENCES customer_agreement,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  tariff_id bigint NOT NULL REFERENCES tariff,
  amount_minor bigint NOT NULL CHECK (amount_minor > 0),
  arrears_minor bigint NOT NULL CHECK (arrears_minor >= 0),
  vat_minor bigint NOT NULL CHECK (vat_minor >= 0),
  energy_minor bigint NOT NULL CHECK (energy_minor >= 0),
  change_minor bigint NOT NULL CHECK (change_minor >= 0),  -- stays as the customer's credit
  units_tenths bigint NOT NULL CHECK (units_tenths > 0),    -- tenths of kWh or m3, exactly what a token carries
  steps jsonb NOT NULL,              -- [{"units_tenths", "rate_micro", "amount_minor"}]
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CHECK (arrears_minor + vat_minor + energy_minor + change_minor = amount_minor)
);

CREATE TABLE payment (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  quote_id uuid NOT NULL UNIQUE REFERENCES quote,
  idempotency_key text NOT NULL UNIQUE,
  provider text NOT NULL,
  amount_minor bigint NOT NULL CHECK (amount_minor > 0),
  state text NOT NULL DEFAULT 'CREATED' CHECK (state IN ('CREATED', 'PENDING', 'CONFIRMED', 'DECLINED', 'EXPIRED')),
  language text NOT NULL DEFAULT 'ar' CHECK (language IN ('ar', 'en')),
  created_at timestamptz NOT NULL DEFAULT now(),
  settled_at timestamptz,
  asked_at timestamptz               -- when the provider was last asked about a silent payment
);
CREATE INDEX payment_open ON payment (created_at) WHERE state IN ('CREATED', 'PENDING');
CREATE INDEX payment_given_up ON payment (created_at) WHERE state = 'EXPIRED';

-- What a provider said, word for word by its own event id: handled once.
CREATE TABLE payment_event (
  provider text NOT NULL,
  event_id text NOT NULL,
  payment_id uuid NOT NULL REFERENCES payment,
  status text NOT NULL,
  amount_minor bigint NOT NULL,
  body_sha256 bytea NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (provider, event_id)
);

CREATE TABLE vend (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  quote_id uuid NOT NULL UNIQUE REFERENCES quote,
  payment_id uuid UNIQUE REFERENCES payment,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  state text NOT NULL DEFAULT 'QUOTED' CHECK (state IN
    ('QUOTED', 'PAID', 'REQUESTED', 'VENDED', 'REFUSED', 'UNKNOWN', 'REVERSED', 'REFUNDED')),
  base_date smallint,
  tid integer,
  rnd smallint CHECK (rnd BETWEEN 0 AND 15),
  receipt_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  paid_at timestamptz,
  requested_at timestamptz,
  vended_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  CHECK ((tid IS NULL) = (base_date IS NULL)),
  CHECK (state IN ('QUOTED', 'REFUNDED') OR tid IS NOT NULL)
);
CREATE UNIQUE INDEX vend_tid_once ON vend (meter_id, base_date, tid);
-- The worker's sweep looks at these every second.
CREATE INDEX vend_open ON vend (paid_at) WHERE state IN ('PAID', 'REQUESTED', 'UNKNOWN', 'REFUSED');
CREATE TABLE vend_step (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vend_id uuid NOT NULL REFERENCES vend,
  state text NOT NULL,
  occurred_at timestamptz NOT NULL,
  detail text NOT NULL DEFAULT ''
);
CREATE INDEX ON vend_step (vend_id);

CREATE TABLE journal (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('payment', 'vend', 'arrears', 'suspense', 'reversal', 'refund', 'opening')),
  idempotency_key text NOT NULL UNIQUE,
  reference text NOT NULL,
  occurred_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  reverses bigint UNIQUE REFERENCES journal
);
-- Debit is positive, credit negative. Accounts: provider_clearing, prepaid_liability, revenue.electricity,
-- revenue.water, vat_payable, arrears_receivable, customer_change, suspense, opening_balance (old debts' other side).
CREATE TABLE posting (
  journal_id bigint NOT NULL REFERENCES journal,
  line smallint NOT NULL,
  account text NOT NULL CHECK (account ~ '^[a-z_]+(\.[a-z_]+)?$'),
  customer_id bigint REFERENCES customer,
  amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
  PRIMARY KEY (journal_id, line)
);
CREATE INDEX ON posting (account, customer_id);
CREATE INDEX ON journal (reference);
CREATE INDEX journal_suspense ON journal (occurred_at) WHERE kind = 'suspense';

CREATE FUNCTION journal_must_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  total numeric;
  lines integer;
BEGIN
  SELECT coalesce(sum(amount_minor), 0), count(*) INTO total, lines
    FROM billing.posting WHERE journal_id = coalesce(NEW.journal_id, 0);
  IF total <> 0 OR lines < 2 THEN
    RAISE EXCEPTION 'journal entry % does not balance: % over % lines', NEW.journal_id, total, lines
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT ON posting
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION journal_must_balance();

CREATE TABLE token (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vend_id uuid UNIQUE REFERENCES vend,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  base_date smallint NOT NULL,
  tid integer,                       -- null for class 1 and key-change tokens
  class smallint NOT NULL,
  subclass smallint NOT NULL,
  units_tenths bigint,
  digits text NOT NULL CHECK (digits ~ '^[0-9]{20}$'),
  purpose text NOT NULL CHECK (purpose IN ('credit', 'test', 'engineering', 'key_change')),
  issued_by text NOT NULL,
  reason text NOT NULL DEFAULT '',
  issued_at timestamptz NOT NULL,
  UNIQUE (meter_id, base_date, tid)
);

CREATE TABLE key_use (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  request_id text NOT NULL,
  used_by text NOT NULL,
  purpose text NOT NULL,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  sgc text NOT NULL,
  krn smallint NOT NULL,
  key_check_value text NOT NULL,
  used_at timestamptz NOT NULL
);

CREATE TRIGGER payment_event_is_a_fact BEFORE UPDATE OR DELETE ON payment_event
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER vend_step_is_a_fact BEFORE UPDATE OR DELETE ON vend_step
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER journal_is_a_fact BEFORE UPDATE OR DELETE ON journal
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER posting_is_a_fact BEFORE UPDATE OR DELETE ON posting
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER token_is_a_fact BEFORE UPDATE OR DELETE ON token
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE TRIGGER key_use_is_a_fact BEFORE UPDATE OR DELETE ON key_use
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

CREATE VIEW v_balance AS
  SELECT account, customer_id, sum(amount_minor)::bigint AS balance_minor FROM posting GROUP BY account, customer_id;
CREATE VIEW v_customer AS SELECT id, code, name_en, name_ar, phone, language FROM customer;
CREATE VIEW v_agreement AS
  SELECT a.id AS customer_agreement_id, a.customer_id, a.usage_point_id, a.tariff_code, m.meter_id, m.drn, m.commodity,
         a.valid_from
    FROM customer_agreement a JOIN meter_gateway.v_meter m ON m.usage_point_id = a.usage_point_id
   WHERE a.valid_to IS NULL;
CREATE VIEW v_sale AS
  SELECT v.id AS vend_id, v.state AS vend_state, v.meter_id, v.tid, v.base_date, v.receipt_number, v.paid_at,
         v.requested_at, v.vended_at, q.id AS quote_id, q.customer_agreement_id, q.amount_minor, q.arrears_minor,
         q.vat_minor, q.energy_minor, q.change_minor, q.units_tenths, q.steps, q.created_at AS quoted_at,
         p.id AS payment_id, p.state AS payment_state, p.provider, p.created_at AS payment_created_at, p.settled_at,
         a.customer_id, t.id AS token_id, t.digits, t.issued_at
    FROM vend v
    JOIN quote q ON q.id = v.quote_id
    JOIN customer_agreement a ON a.id = q.customer_agreement_id
    LEFT JOIN payment p ON p.id = v.payment_id
    LEFT JOIN token t ON t.vend_id = v.id;
CREATE VIEW v_vend_step AS SELECT id, vend_id, state, occurred_at, detail FROM vend_step;
-- Every token of a meter, sold or not; the digits are masked wherever staff read them.
CREATE VIEW v_token AS
  SELECT id AS token_id, vend_id, meter_id, class, subclass, units_tenths, digits, purpose, issued_by, reason, issued_at
    FROM token;
-- Who agreed to be supplied where, whether a meter hangs there yet or not.
CREATE VIEW v_agreed_point AS
  SELECT id AS customer_agreement_id, customer_id, usage_point_id, tariff_code, valid_from
    FROM customer_agreement WHERE valid_to IS NULL;
-- Money that no sale waits for, with the sale that it was sent for.
CREATE VIEW v_suspense AS
  SELECT j.id AS journal_id, v.id AS vend_id, p.id AS payment_id, p.amount_minor, j.occurred_at
    FROM journal j JOIN payment p ON p.id = CASE WHEN j.idempotency_key ~ '^suspense:[0-9a-f-]{36}$'
                                                THEN substr(j.idempotency_key, 10)::uuid END
    JOIN vend v ON v.payment_id = p.id
   WHERE j.kind = 'suspense';
