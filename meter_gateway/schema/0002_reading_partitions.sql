-- Readings go into a hypertable where TimescaleDB is, into monthly partitions where it is not; queries are the same.
SET LOCAL search_path = meter_gateway, public;

CREATE FUNCTION ensure_reading_partitions(first_day date, last_day date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  month date := date_trunc('month', first_day);
  made integer := 0;
  name text;
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = 'meter_gateway.reading'::regclass) <> 'p' THEN
    RETURN 0;  -- a hypertable makes its own chunks
  END IF;
  WHILE month <= last_day LOOP
    name := 'reading_' || to_char(month, 'YYYY_MM');
    IF to_regclass('meter_gateway.' || name) IS NULL THEN
      EXECUTE format('CREATE TABLE meter_gateway.%I PARTITION OF meter_gateway.reading FOR VALUES FROM (%L) TO (%L)',
                     name, month::timestamp AT TIME ZONE 'UTC',
                     (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
      made := made + 1;
    END IF;
    month := month + interval '1 month';
  END LOOP;
  RETURN made;
END $$;

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
     AND current_setting('shared_preload_libraries') LIKE '%timescaledb%' THEN
    CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;
    DROP VIEW meter_gateway.v_reading;
    ALTER TABLE meter_gateway.reading RENAME TO reading_plain;
    CREATE TABLE meter_gateway.reading (LIKE meter_gateway.reading_plain INCLUDING ALL);
    DROP TABLE meter_gateway.reading_plain;
    PERFORM public.create_hypertable('meter_gateway.reading', 'occurred_at', chunk_time_interval => interval '1 month');
    CREATE TRIGGER reading_is_a_fact BEFORE UPDATE OR DELETE ON meter_gateway.reading
      FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
    CREATE VIEW meter_gateway.v_reading AS
      SELECT meter_id, channel, occurred_at, value, quality, recorded_at FROM meter_gateway.reading;
  ELSE
    PERFORM meter_gateway.ensure_reading_partitions(
      (now() - interval '14 months')::date, (now() + interval '2 months')::date);
  END IF;
END $$;
