-- How readings age: the same views of hours, days and months in every edition, kept up by a job or by policies.
SET LOCAL search_path = meter_gateway, public;

-- The one place that asks what the server can do: plain PostgreSQL, TimescaleDB's Apache edition or its Community one.
CREATE FUNCTION history_edition() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN 'plain'
              WHEN current_setting('timescaledb.license', true) = 'timescale' THEN 'community'
              ELSE 'apache' END
$$;

-- Both times of a reading follow the order on disk, so that a block range index of a few pages finds an hour.
CREATE INDEX reading_in_order_of_time ON reading USING brin (occurred_at, recorded_at)
  WITH (pages_per_range = 32, autosummarize = on);

-- Values of believed readings (all but suspect ones); those readings themselves are counted by quality.
CREATE TABLE history_hour (
  meter_id bigint NOT NULL,
  channel text NOT NULL,
  bucket_start timestamptz NOT NULL,
  first_at timestamptz,
  first_value bigint,
  last_at timestamptz,
  last_value bigint,
  min_value bigint,
  max_value bigint,
  value_count bigint NOT NULL,       -- believed readings; estimated and simulated ones are among them
  estimated_count bigint NOT NULL,
  simulated_count bigint NOT NULL,
  suspect_count bigint NOT NULL,     -- and these are not
  PRIMARY KEY (meter_id, channel, bucket_start)
) PARTITION BY RANGE (bucket_start);
-- Days and months as Oman's clocks count them.
CREATE TABLE history_day (LIKE history_hour INCLUDING ALL) PARTITION BY RANGE (bucket_start);
CREATE TABLE history_month (LIKE history_hour INCLUDING ALL) PARTITION BY RANGE (bucket_start);

-- One row: buckets before these instants are in the tables above, later ones are looked up where readings are.
CREATE TABLE history_mark (
  the_one boolean PRIMARY KEY DEFAULT true CHECK (the_one),
  kept_by text NOT NULL DEFAULT 'job' CHECK (kept_by IN ('job', 'policies')),
  live_hour timestamptz NOT NULL DEFAULT '-infinity',
  live_day timestamptz NOT NULL DEFAULT '-infinity',
  live_month timestamptz NOT NULL DEFAULT '-infinity',
  seen_until timestamptz NOT NULL DEFAULT now(),  -- readings recorded up to then were looked at for late ones
  step_hours integer NOT NULL DEFAULT 1 CHECK (step_hours BETWEEN 1 AND 744),
  worked_at timestamptz
);
INSERT INTO history_mark DEFAULT VALUES;

-- Hours that a late reading fell into after they were written.
CREATE TABLE history_late (
  meter_id bigint NOT NULL,
  channel text NOT NULL,
  bucket_start timestamptz NOT NULL,
  PRIMARY KEY (meter_id, channel, bucket_start)
);

-- Hours in monthly partitions, days and months in yearly ones: each goes as a whole when it is old enough.
CREATE FUNCTION ensure_history_partitions(first_at timestamptz, last_at timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  parent text;
  unit text;
  edge timestamp;
  name text;
  made integer := 0;
BEGIN
  FOR parent, unit IN VALUES ('history_hour', 'month'), ('history_day', 'year'), ('history_month', 'year') LOOP
    -- A month's bucket starts before the first of its readings; the yearly tables follow the same clock.
    edge := date_trunc(unit, (first_at - interval '1 month') AT TIME ZONE 'UTC');
    WHILE edge <= last_at AT TIME ZONE 'UTC' LOOP
      name := parent || to_char(edge, CASE unit WHEN 'month' THEN '_YYYY_MM' ELSE '_YYYY' END);
      IF to_regclass('meter_gateway.' || name) IS NULL THEN
        EXECUTE format('CREATE TABLE meter_gateway.%I PARTITION OF meter_gateway.%I FOR VALUES FROM (%L) TO (%L)',
                       name, parent, edge AT TIME ZONE 'UTC', (edge + ('1 ' || unit)::interval) AT TIME ZONE 'UTC');
        made := made + 1;
      END IF;
      edge := edge + ('1 ' || unit)::interval;
    END LOOP;
  END LOOP;
  RETURN made;
END $$;

-- Partitions by time with their bounds; readings have none where they lie in a hypertable.
CREATE VIEW time_partition AS
  SELECT p.relname AS parent, c.relname AS name, pg_total_relation_size(c.oid) AS size_bytes,
         substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''([^'']+)''\)')::timestamptz AS starts_at,
         substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
   WHERE c.relispartition AND c.relkind = 'r' AND p.relnamespace = 'meter_gateway'::regnamespace;

-- The live side: what the tables do not hold yet. The Community edition replaces these three by its aggregates.
CREATE VIEW history_hour_live AS
  SELECT meter_id, channel, date_trunc('hour', occurred_at, 'UTC') AS bucket_start,
         min(occurred_at) FILTER (WHERE quality <> 'suspect') AS first_at,
         (array_agg(value ORDER BY occurred_at) FILTER (WHERE quality <> 'suspect'))[1] AS first_value,
         max(occurred_at) FILTER (WHERE quality <> 'suspect') AS last_at,
         (array_agg(value ORDER BY occurred_at DESC) FILTER (WHERE quality <> 'suspect'))[1] AS last_value,
         min(value) FILTER (WHERE quality <> 'suspect') AS min_value,
         max(value) FILTER (WHERE quality <> 'suspect') AS max_value,
         count(*) FILTER (WHERE quality <> 'suspect') AS value_count,
         count(*) FILTER (WHERE quality = 'estimated') AS estimated_count,
         count(*) FILTER (WHERE quality = 'simulated') AS simulated_count,
         count(*) FILTER (WHERE quality = 'suspect') AS suspect_count
    FROM reading
   WHERE occurred_at >= (SELECT live_hour FROM history_mark)
   GROUP BY 1, 2, 3;

CREATE VIEW v_history_hour AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value,
         CASE WHEN channel IN ('counter', 'reverse') AND last_value >= first_value
              THEN last_value - first_value END AS used,
         min_value, max_value, value_count, estimated_count, simulated_count, suspect_count
    FROM (SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_hour WHERE bucket_start < (SELECT live_hour FROM history_mark)
          UNION ALL
          SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_hour_live) h;

CREATE VIEW history_day_live AS
  SELECT meter_id, channel, date_trunc('day', bucket_start, 'Asia/Muscat') AS bucket_start,
         min(first_at) AS first_at,
         (array_agg(first_value ORDER BY first_at) FILTER (WHERE first_at IS NOT NULL))[1] AS first_value,
         max(last_at) AS last_at,
         (array_agg(last_value ORDER BY last_at DESC) FILTER (WHERE last_at IS NOT NULL))[1] AS last_value,
         min(min_value) AS min_value, max(max_value) AS max_value, sum(value_count)::bigint AS value_count,
         sum(estimated_count)::bigint AS estimated_count, sum(simulated_count)::bigint AS simulated_count,
         sum(suspect_count)::bigint AS suspect_count
    FROM v_history_hour
   WHERE bucket_start >= (SELECT live_day FROM history_mark)
   GROUP BY 1, 2, 3;

CREATE VIEW v_history_day AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value,
         CASE WHEN channel IN ('counter', 'reverse') AND last_value >= first_value
              THEN last_value - first_value END AS used,
         min_value, max_value, value_count, estimated_count, simulated_count, suspect_count
    FROM (SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_day WHERE bucket_start < (SELECT live_day FROM history_mark)
          UNION ALL
          SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_day_live) d;

CREATE VIEW history_month_live AS
  SELECT meter_id, channel, date_trunc('month', bucket_start, 'Asia/Muscat') AS bucket_start,
         min(first_at) AS first_at,
         (array_agg(first_value ORDER BY first_at) FILTER (WHERE first_at IS NOT NULL))[1] AS first_value,
         max(last_at) AS last_at,
         (array_agg(last_value ORDER BY last_at DESC) FILTER (WHERE last_at IS NOT NULL))[1] AS last_value,
         min(min_value) AS min_value, max(max_value) AS max_value, sum(value_count)::bigint AS value_count,
         sum(estimated_count)::bigint AS estimated_count, sum(simulated_count)::bigint AS simulated_count,
         sum(suspect_count)::bigint AS suspect_count
    FROM v_history_day
   WHERE bucket_start >= (SELECT live_month FROM history_mark)
   GROUP BY 1, 2, 3;

CREATE VIEW v_history_month AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value,
         CASE WHEN channel IN ('counter', 'reverse') AND last_value >= first_value
              THEN last_value - first_value END AS used,
         min_value, max_value, value_count, estimated_count, simulated_count, suspect_count
    FROM (SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_month WHERE bucket_start < (SELECT live_month FROM history_mark)
          UNION ALL
          SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
                 value_count, estimated_count, simulated_count, suspect_count
            FROM history_month_live) m;
