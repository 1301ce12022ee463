-- People: sign-in, tickets and their clocks, messages, outages.
CREATE SCHEMA portal;
SET LOCAL search_path = portal;

CREATE TABLE login (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  role text NOT NULL CHECK (role IN ('subscriber', 'engineer', 'agent', 'supervisor', 'admin')),
  customer_id bigint UNIQUE REFERENCES billing.customer,
  username text UNIQUE CHECK (username = lower(username)),
  display_name text NOT NULL,
  password_hash text,                -- argon2id, staff only
  language text NOT NULL DEFAULT 'ar' CHECK (language IN ('ar', 'en')),
  disabled_at timestamptz,
  CHECK ((role = 'subscriber') = (customer_id IS NOT NULL)),
  CHECK ((role = 'subscriber') = (username IS NULL)),
  CHECK (role = 'subscriber' OR password_hash IS NOT NULL)
);

CREATE TABLE one_time_code (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  phone text NOT NULL,
  code_hash bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  wrong_attempts integer NOT NULL DEFAULT 0,
  used_at timestamptz
);
CREATE INDEX ON one_time_code (phone, created_at);

CREATE TABLE session (
  id_hash bytea PRIMARY KEY,         -- SHA-256 of the cookie: a copy of the table signs nobody in
  login_id bigint NOT NULL REFERENCES login,
  csrf_token text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);
CREATE INDEX ON session (login_id);

CREATE TABLE rate_limit (
  bucket text NOT NULL,
  window_start timestamptz NOT NULL,
  hits integer NOT NULL DEFAULT 1,
  PRIMARY KEY (bucket, window_start)
);

-- The outbox of messages; a sender marks them, the demo's SMS page shows them.
CREATE TABLE message (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  idempotency_key text NOT NULL UNIQUE,
  customer_id bigint REFERENCES billing.customer,
  phone text NOT NULL,
  channel text NOT NULL DEFAULT 'sms' CHECK (channel IN ('sms')),
  kind text NOT NULL CHECK (kind IN ('one_time_code', 'token', 'payment', 'ticket', 'outage')),
  language text NOT NULL CHECK (language IN ('ar', 'en')),
  body text NOT NULL,
  reference text NOT NULL DEFAULT '',  -- vend id, ticket reference or outage id
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz
);
CREATE INDEX ON message (customer_id, created_at);
CREATE INDEX message_unsent ON message (id) WHERE sent_at IS NULL;

CREATE TABLE outage (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  network_node_id bigint NOT NULL REFERENCES meter_gateway.network_node,
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  state text NOT NULL DEFAULT 'probable' CHECK (state IN ('probable', 'confirmed', 'restored', 'cancelled')),
  started_at timestamptz NOT NULL,
  start_source text NOT NULL CHECK (start_source IN ('last_gasp', 'silence', 'contact', 'crew')),
  restored_at timestamptz CHECK (restored_at >= started_at),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX outage_open_once ON outage (network_node_id) WHERE state IN ('probable', 'confirmed');

-- Each meter's own times: restoration closes an outage only for meters that were seen alive.
CREATE TABLE outage_meter (
  outage_id bigint NOT NULL REFERENCES outage,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  out_at timestamptz NOT NULL,
  evidence text NOT NULL CHECK (evidence IN ('last_gasp', 'silence', 'contact', 'inferred')),
  restored_at timestamptz,
  PRIMARY KEY (outage_id, meter_id)
);
CREATE INDEX ON outage_meter (meter_id);

CREATE TABLE outage_entry (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  outage_id bigint NOT NULL REFERENCES outage,
  occurred_at timestamptz NOT NULL DEFAULT now(),
  kind text NOT NULL CHECK (kind IN ('detected', 'grown', 'confirmed', 'note', 'restored', 'cancelled')),
  detail jsonb NOT NULL DEFAULT '{}',
  actor_id bigint REFERENCES login
);
CREATE TRIGGER outage_entry_is_a_fact BEFORE UPDATE OR DELETE ON outage_entry
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

CREATE TABLE ticket (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  reference text NOT NULL UNIQUE,    -- e.g. R26-000123-C: year, number, check character
  kind text NOT NULL CHECK (kind IN ('enquiry', 'suggestion', 'complaint', 'no_supply', 'token_problem')),
  channel text NOT NULL CHECK (channel IN ('phone', 'web', 'walk_in', 'letter')),
  customer_id bigint NOT NULL REFERENCES billing.customer,
  meter_id bigint REFERENCES meter_gateway.meter,
  outage_id bigint REFERENCES outage,
  vend_id uuid REFERENCES billing.vend,
  subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
  language text NOT NULL CHECK (language IN ('ar', 'en')),
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'assigned', 'waiting_customer', 'resolved')),
  assigned_to bigint REFERENCES login,
  idempotency_key text NOT NULL UNIQUE,
  created_by bigint REFERENCES login,
  created_at timestamptz NOT NULL DEFAULT now(),
  resolved_at timestamptz
);
CREATE INDEX ON ticket (customer_id);
CREATE INDEX ON ticket (meter_id);
CREATE INDEX ON ticket (outage_id);
CREATE SEQUENCE ticket_number;

CREATE TABLE ticket_entry (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ticket_id bigint NOT NULL REFERENCES ticket,
  occurred_at timestamptz NOT NULL DEFAULT now(),
  kind text NOT NULL CHECK (kind IN
    ('opened', 'note', 'reply', 'customer_message', 'assigned', 'attached', 'linked_outage', 'resolved', 'reopened')),
  is_public boolean NOT NULL,
  actor_id bigint REFERENCES login,
  body text NOT NULL DEFAULT '' CHECK (length(body) <= 8000)
);
CREATE INDEX ON ticket_entry (ticket_id, id);
CREATE TRIGGER ticket_entry_is_a_fact BEFORE UPDATE OR DELETE ON ticket_entry
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

CREATE TABLE attachment (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ticket_id bigint NOT NULL REFERENCES ticket,
  file_name text NOT NULL CHECK (length(file_name) BETWEEN 1 AND 120),
  media_type text NOT NULL CHECK (media_type IN ('image/jpeg', 'image/png', 'application/pdf')),
  content bytea NOT NULL CHECK (length(content) <= 2097152),
  created_at timestamptz NOT NULL DEFAULT now(),
  actor_id bigint NOT NULL REFERENCES login
);
CREATE INDEX ON attachment (ticket_id);

-- Staff see tokens masked; whoever looks at one whole is written down.
CREATE TABLE token_reveal (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  token_id bigint NOT NULL REFERENCES billing.token,
  login_id bigint NOT NULL REFERENCES login,
  reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
  occurred_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON token_reveal (token_id);
CREATE TRIGGER token_reveal_is_a_fact BEFORE UPDATE OR DELETE ON token_reveal
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- A calendar as data: versions are kept, past time uses the version that was valid then.
CREATE TABLE work_calendar (
  code text NOT NULL,
  valid_from date NOT NULL,
  time_zone text NOT NULL,
  weekly jsonb NOT NULL,             -- {"sun": [["07:30", "14:30"]], ...}
  exceptions jsonb NOT NULL DEFAULT '{}',  -- {"2026-11-18": []}
  PRIMARY KEY (code, valid_from)
);

CREATE TABLE clock (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ticket_id bigint NOT NULL REFERENCES ticket,
  kind text NOT NULL CHECK (kind IN ('ack', 'first_response', 'resolution')),
  calendar_code text NOT NULL,
  mode text NOT NULL CHECK (mode IN ('business', 'real', 'working_days')),
  target integer NOT NULL CHECK (target > 0),   -- seconds, or days with working_days
  origin_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  met_at timestamptz,
  UNIQUE (ticket_id, kind)
);
CREATE INDEX clock_open ON clock (due_at) WHERE met_at IS NULL;

INSERT INTO work_calendar (code, valid_from, time_zone, weekly) VALUES
  ('oman', '2020-01-01', 'Asia/Muscat',
   '{"sun": [["07:30", "14:30"]], "mon": [["07:30", "14:30"]], "tue": [["07:30", "14:30"]],
     "wed": [["07:30", "14:30"]], "thu": [["07:30", "14:30"]]}'),
  ('always', '2020-01-01', 'Asia/Muscat',
   '{"sun": [["00:00", "24:00"]], "mon": [["00:00", "24:00"]], "tue": [["00:00", "24:00"]],
     "wed": [["00:00", "24:00"]], "thu": [["00:00", "24:00"]], "fri": [["00:00", "24:00"]],
     "sat": [["00:00", "24:00"]]}');
