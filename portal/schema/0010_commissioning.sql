-- What an engineer records while a meter is commissioned.
SET LOCAL search_path = portal, public;

-- What the customer allowed, by whom, when and how: without it nobody exercises a relay.
CREATE TABLE customer_consent (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  usage_point_id bigint NOT NULL REFERENCES meter_gateway.usage_point,
  purpose text NOT NULL CHECK (purpose IN ('relay_exercise')),
  given_by text NOT NULL CHECK (length(given_by) BETWEEN 2 AND 120),
  method text NOT NULL CHECK (method IN ('signature', 'in_person', 'phone', 'message')),
  given_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL,
  recorded_by bigint NOT NULL REFERENCES login,
  CHECK (given_at <= recorded_at)
);
CREATE INDEX ON customer_consent (meter_id, recorded_at);
CREATE TRIGGER customer_consent_is_a_fact BEFORE UPDATE OR DELETE ON customer_consent
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- What a person saw and did at the wall; what the system knows by itself is asked where it is.
CREATE TABLE commissioning_entry (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  usage_point_id bigint REFERENCES meter_gateway.usage_point,
  item text NOT NULL CHECK (item IN ('wiring', 'seal', 'display', 'relay', 'test_token', 'note')),
  outcome text NOT NULL CHECK (outcome IN ('done', 'failed', 'skipped')),
  detail jsonb NOT NULL DEFAULT '{}',
  occurred_at timestamptz NOT NULL,  -- by the engineer's phone
  recorded_at timestamptz NOT NULL,  -- by us
  recorded_by bigint NOT NULL REFERENCES login
);
CREATE INDEX ON commissioning_entry (meter_id, recorded_at);
CREATE TRIGGER commissioning_entry_is_a_fact BEFORE UPDATE OR DELETE ON commissioning_entry
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- The end of a commissioning: the checklist as it stood. One for each time that a meter was hung.
CREATE TABLE commissioning_certificate (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  usage_point_id bigint NOT NULL REFERENCES meter_gateway.usage_point,
  installed_at timestamptz NOT NULL,
  items jsonb NOT NULL,
  completed_at timestamptz NOT NULL,
  completed_by bigint NOT NULL REFERENCES login,
  UNIQUE (meter_id, installed_at)
);
CREATE TRIGGER commissioning_certificate_is_a_fact BEFORE UPDATE OR DELETE ON commissioning_certificate
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- Pictures of the place, made anew by us: what a camera writes beside the pixels is not kept.
CREATE TABLE site_photo (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter_gateway.meter,
  usage_point_id bigint REFERENCES meter_gateway.usage_point,
  subject text NOT NULL CHECK (subject IN ('plate', 'wiring', 'seal', 'place', 'other')),
  note text NOT NULL DEFAULT '' CHECK (length(note) <= 500),
  content bytea NOT NULL CHECK (length(content) <= 2097152),  -- JPEG
  width integer NOT NULL CHECK (width > 0),
  height integer NOT NULL CHECK (height > 0),
  recorded_at timestamptz NOT NULL,
  recorded_by bigint NOT NULL REFERENCES login
);
CREATE INDEX ON site_photo (meter_id, id);
CREATE TRIGGER site_photo_is_a_fact BEFORE UPDATE OR DELETE ON site_photo
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- Drafts of the phone that were taken: the same key again gives the same answer and changes nothing.
CREATE TABLE field_draft (
  idempotency_key text PRIMARY KEY CHECK (length(idempotency_key) BETWEEN 8 AND 64),
  login_id bigint NOT NULL REFERENCES login,
  kind text NOT NULL,
  content_hash bytea NOT NULL,
  made_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL,
  answer jsonb NOT NULL
);
CREATE TRIGGER field_draft_is_a_fact BEFORE UPDATE OR DELETE ON field_draft
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();

-- Staff are named in the reader's letters where we know how.
ALTER TABLE login ADD display_name_ar text;
