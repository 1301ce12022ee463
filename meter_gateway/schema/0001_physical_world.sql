-- The physical world: networks, places, meters and what they tell. Names follow CIM IEC 61968.
CREATE SCHEMA meter_gateway;
SET LOCAL search_path = meter_gateway;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of %.% is refused: facts are append-only, a correction is a new row',
    TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TABLE network_node (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE CHECK (code <> ''),
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  kind text NOT NULL CHECK (kind IN ('substation', 'feeder', 'transformer', 'source', 'zone')),
  parent_id bigint REFERENCES network_node,
  name_en text NOT NULL,
  name_ar text NOT NULL
);
CREATE INDEX ON network_node (parent_id);

CREATE TABLE service_location (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE,
  address_en text NOT NULL,
  address_ar text NOT NULL,
  is_critical boolean NOT NULL DEFAULT false
);

CREATE TABLE usage_point (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE,
  service_location_id bigint NOT NULL REFERENCES service_location,
  network_node_id bigint NOT NULL REFERENCES network_node,
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water'))
);
CREATE INDEX ON usage_point (service_location_id);
CREATE INDEX ON usage_point (network_node_id);

CREATE TABLE site (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE,
  name_en text NOT NULL,
  name_ar text NOT NULL,
  config_version bigint NOT NULL DEFAULT 1,
  poll_ms integer NOT NULL DEFAULT 2000 CHECK (poll_ms BETWEEN 200 AND 3600000)
);

-- The address of a bus (host:port, tty) lives in the site's own site.toml, never here.
CREATE TABLE bus (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES site,
  code text NOT NULL,
  framer text NOT NULL CHECK (framer IN ('tcp', 'rtu', 'rtu_over_tcp')),
  UNIQUE (site_id, code)
);

CREATE TABLE meter (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  drn text NOT NULL UNIQUE CHECK (drn ~ '^[0-9]{11}([0-9]{2})?$'),
  commodity text NOT NULL CHECK (commodity IN ('electricity', 'water')),
  model text NOT NULL,
  link text NOT NULL CHECK (link IN ('mqtt', 'modbus', 'keypad')),
  profile text,
  bus_id bigint REFERENCES bus,
  unit_id smallint CHECK (unit_id BETWEEN 1 AND 247),
  created_at timestamptz NOT NULL DEFAULT now(),
  -- A Modbus meter on the shelf has no bus: taken down, it leaves its unit to the next one.
  CHECK ((bus_id IS NULL) = (unit_id IS NULL)),
  CHECK (link = 'modbus' OR bus_id IS NULL),
  CHECK (link <> 'modbus' OR profile IS NOT NULL),
  UNIQUE (bus_id, unit_id)
);

-- Whatever changes the devices of a site makes its configuration newer, and the headend sends it.
CREATE FUNCTION renew_site_config() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE meter_gateway.site s SET config_version = config_version + 1
   WHERE s.id IN (SELECT site_id FROM meter_gateway.bus WHERE id IN (NEW.bus_id, OLD.bus_id));
  RETURN NULL;
END $$;
CREATE TRIGGER meter_renews_site_config AFTER INSERT OR UPDATE OF bus_id, unit_id, profile ON meter
  FOR EACH ROW EXECUTE FUNCTION renew_site_config();

CREATE TABLE meter_installation (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter,
  usage_point_id bigint NOT NULL REFERENCES usage_point,
  installed_at timestamptz NOT NULL,
  removed_at timestamptz CHECK (removed_at > installed_at),
  installed_by text NOT NULL,
  note text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX meter_installed_once ON meter_installation (meter_id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX usage_point_has_one_meter ON meter_installation (usage_point_id) WHERE removed_at IS NULL;

-- An edge speaks the MQTT contract: a site gateway (edge = its site code) or an MQTT meter (edge = its DRN).
CREATE TABLE edge (
  edge text PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('gateway', 'meter')),
  boot bigint NOT NULL DEFAULT 0,
  session bigint NOT NULL DEFAULT 0,  -- within the boot: a late death of an older session does not count
  config_version bigint NOT NULL DEFAULT 0,
  online boolean NOT NULL DEFAULT false,
  born_at timestamptz,
  last_seen_at timestamptz
);

-- The plain ledger of messages: what was stored once is never stored twice, whatever the clock says.
CREATE TABLE edge_message (
  edge text NOT NULL,
  boot bigint NOT NULL,
  seq bigint NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (edge, boot, seq)
);

-- Latest known state, one row a meter: a projection of readings and events, rebuilt from them at will.
CREATE TABLE meter_state (
  meter_id bigint PRIMARY KEY REFERENCES meter,
  last_seen_at timestamptz,
  link_up boolean NOT NULL DEFAULT false,
  supply_on boolean,                 -- false after a last gasp, true when seen alive
  credit bigint,                     -- Wh or mL
  counter bigint,                    -- Wh or mL, cumulative
  relay smallint CHECK (relay IN (0, 1, 2)),  -- DLMS: 0 disconnected, 1 connected, 2 ready for reconnection
  relay_reason text,                 -- none, no_credit, order, tamper, overload
  load bigint,                       -- W or mL/h
  tamper boolean NOT NULL DEFAULT false,
  state_at timestamptz,              -- when the measured values were true
  counter_at timestamptz,            -- when the last believed counter was true
  counter_suspect boolean NOT NULL DEFAULT false,  -- the newest counter contradicts it; a person decides
  link_at timestamptz                -- when link_up and supply_on were true
);

CREATE TABLE reading (
  meter_id bigint NOT NULL,
  channel text NOT NULL CHECK (channel IN ('counter', 'credit', 'load', 'relay')),
  occurred_at timestamptz NOT NULL,
  value bigint NOT NULL,             -- Wh | mL, Wh | mL, W | mL/h, DLMS relay state
  quality text NOT NULL DEFAULT 'valid' CHECK (quality IN ('valid', 'estimated', 'suspect', 'simulated')),
  recorded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (meter_id, channel, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE TRIGGER reading_is_a_fact BEFORE UPDATE OR DELETE ON reading
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The same key with another value is kept for a person, never dropped in silence.
CREATE TABLE reading_conflict (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL,
  channel text NOT NULL,
  occurred_at timestamptz NOT NULL,
  value bigint NOT NULL,
  kept_value bigint NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE meter_event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint REFERENCES meter,
  edge text NOT NULL,
  code text NOT NULL,                -- CIM EndDeviceEventType or raseed.*
  occurred_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON meter_event (meter_id, occurred_at);
CREATE INDEX ON meter_event (code, occurred_at);
CREATE INDEX meter_event_token ON meter_event (meter_id, (detail ->> 'tid')) WHERE code = 'raseed.token';
CREATE TRIGGER meter_event_is_a_fact BEFORE UPDATE OR DELETE ON meter_event
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE meter_command (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  meter_id bigint NOT NULL REFERENCES meter,
  kind text NOT NULL CHECK (kind IN ('token', 'relay_open', 'relay_close', 'read_now')),
  argument text NOT NULL DEFAULT '', -- token: its 20 digits
  idempotency_key text NOT NULL UNIQUE,
  requested_by text NOT NULL,
  state text NOT NULL DEFAULT 'CREATED' CHECK (state IN
    ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN', 'VERIFIED', 'REJECTED', 'EXPIRED', 'UNKNOWN')),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  sent_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  result jsonb NOT NULL DEFAULT '{}',
  CHECK (expires_at > created_at)
);
CREATE INDEX meter_command_open ON meter_command (meter_id, id)
  WHERE state IN ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN', 'UNKNOWN');

CREATE TABLE meter_command_step (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  command_id bigint NOT NULL REFERENCES meter_command,
  state text NOT NULL,
  occurred_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON meter_command_step (command_id);
CREATE TRIGGER meter_command_step_is_a_fact BEFORE UPDATE OR DELETE ON meter_command_step
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION notify_meter_command() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('meter_command', NEW.id::text);
  RETURN NULL;
END $$;
CREATE TRIGGER meter_command_wakes_the_headend AFTER INSERT ON meter_command
  FOR EACH ROW EXECUTE FUNCTION notify_meter_command();

CREATE TABLE dead_letter (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL,
  payload bytea NOT NULL,
  reason text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now()
);

-- Published views: what other packages may read.
CREATE VIEW v_meter AS
  SELECT m.id AS meter_id, m.drn, m.commodity, m.model, m.link, m.profile, b.code AS bus, s.code AS site, m.unit_id,
         u.id AS usage_point_id, u.code AS usage_point, u.network_node_id, n.code AS network_node,
         n.kind AS network_kind, n.name_en AS network_name_en, n.name_ar AS network_name_ar,
         l.code AS service_location, l.address_en, l.address_ar, l.is_critical, i.installed_at,
         st.last_seen_at, coalesce(st.link_up, false) AS link_up, st.supply_on, st.credit, st.counter, st.relay,
         st.relay_reason, st.load, coalesce(st.tamper, false) AS tamper, st.state_at
    FROM meter m
    LEFT JOIN bus b ON b.id = m.bus_id
    LEFT JOIN site s ON s.id = b.site_id
    LEFT JOIN meter_installation i ON i.meter_id = m.id AND i.removed_at IS NULL
    LEFT JOIN usage_point u ON u.id = i.usage_point_id
    LEFT JOIN network_node n ON n.id = u.network_node_id
    LEFT JOIN service_location l ON l.id = u.service_location_id
    LEFT JOIN meter_state st ON st.meter_id = m.id;

CREATE VIEW v_reading AS SELECT meter_id, channel, occurred_at, value, quality, recorded_at FROM reading;
CREATE VIEW v_meter_event AS SELECT id, meter_id, edge, code, occurred_at, recorded_at, detail FROM meter_event;
CREATE VIEW v_meter_command AS
  SELECT id, meter_id, kind, idempotency_key, requested_by, state, created_at, expires_at, sent_at, attempts, result
    FROM meter_command;
CREATE VIEW v_meter_command_step AS
  SELECT s.id, s.command_id, c.meter_id, c.kind, s.state, s.occurred_at, s.recorded_at, s.detail
    FROM meter_command_step s JOIN meter_command c ON c.id = s.command_id;

-- Every node with all its ancestors, itself at depth 0.
CREATE VIEW v_network_path AS
  WITH RECURSIVE up AS (
    SELECT id AS node_id, id AS ancestor_id, parent_id, 0 AS depth FROM network_node
    UNION ALL
    SELECT up.node_id, p.id, p.parent_id, up.depth + 1 FROM up JOIN network_node p ON p.id = up.parent_id
     WHERE up.depth < 16  -- a network is a tree of few levels: a cycle by mistake ends here
  )
  SELECT up.node_id, up.ancestor_id, up.depth, n.code, n.kind, n.commodity, n.name_en, n.name_ar
    FROM up JOIN network_node n ON n.id = up.ancestor_id;

-- Supply signals wake the outage watch; everything else waits for its turn.
CREATE FUNCTION notify_supply_signal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('supply_signal', NEW.meter_id::text);
  RETURN NULL;
END $$;
CREATE TRIGGER meter_event_wakes_the_outage_watch AFTER INSERT ON meter_event FOR EACH ROW
  WHEN (NEW.code IN ('3.26.0.85', '3.26.0.216', 'raseed.link_down', 'raseed.link_up'))
  EXECUTE FUNCTION notify_supply_signal();

-- Where a meter may hang: with its place, its network element and the meter that hangs there now.
CREATE VIEW v_usage_point AS
  SELECT u.id AS usage_point_id, u.code, u.commodity, u.network_node_id, n.name_en AS network_name_en,
         n.name_ar AS network_name_ar, l.address_en, l.address_ar, i.meter_id
    FROM usage_point u
    JOIN network_node n ON n.id = u.network_node_id
    JOIN service_location l ON l.id = u.service_location_id
    LEFT JOIN meter_installation i ON i.usage_point_id = u.id AND i.removed_at IS NULL;

-- Who speaks for the meters, and whether it does so now.
CREATE VIEW v_edge AS SELECT edge, kind, online, born_at, last_seen_at FROM edge;
