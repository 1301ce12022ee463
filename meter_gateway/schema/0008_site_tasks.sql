-- What an engineer asks of a site's bus: scan, probe, registers, word orders, trace; run by the gateway between polls.
SET LOCAL search_path = meter_gateway;

CREATE TABLE site_task (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES site,
  bus_id bigint NOT NULL REFERENCES bus,
  kind text NOT NULL CHECK (kind IN ('scan', 'probe', 'registers', 'words', 'trace')),
  argument jsonb NOT NULL DEFAULT '{}',
  idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
  requested_by text NOT NULL,
  state text NOT NULL DEFAULT 'CREATED' CHECK (state IN
    ('CREATED', 'SENT', 'RUNNING', 'DONE', 'FAILED', 'EXPIRED', 'CANCELLED')),
  progress smallint NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
  result jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  sent_at timestamptz,
  cancel_at timestamptz,              -- when somebody asked to stop it; the gateway's word settles it
  settled_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  CHECK (expires_at > created_at)
);
CREATE INDEX site_task_open ON site_task (site_id, id) WHERE state IN ('CREATED', 'SENT', 'RUNNING');
CREATE INDEX site_task_of_bus ON site_task (bus_id, id);

-- The dispatch sleeps on one channel.
CREATE TRIGGER site_task_wakes_the_headend AFTER INSERT OR UPDATE OF cancel_at ON site_task
  FOR EACH ROW EXECUTE FUNCTION notify_meter_command();

CREATE VIEW v_site_task AS
  SELECT t.id, s.code AS site, b.code AS bus, b.framer, t.kind, t.argument, t.idempotency_key, t.requested_by, t.state,
         t.progress, t.result, t.created_at, t.expires_at, t.sent_at, t.cancel_at, t.settled_at, t.attempts
    FROM site_task t JOIN site s ON s.id = t.site_id JOIN bus b ON b.id = t.bus_id;

-- Where each meter hung, from when to when.
CREATE VIEW v_meter_installation AS
  SELECT id AS installation_id, meter_id, usage_point_id, installed_at, removed_at, installed_by, note FROM meter_installation;
