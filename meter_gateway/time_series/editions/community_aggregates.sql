-- The Community edition keeps hours, days and months by itself. Made without data: they are filled month by month,
-- before anything reads them.
CREATE MATERIALIZED VIEW IF NOT EXISTS meter_gateway.history_hour_aggregate
  WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT meter_id, channel, public.time_bucket('1 hour', occurred_at) AS bucket_start,
         min(occurred_at) FILTER (WHERE quality <> 'suspect') AS first_at,
         public.first(value, occurred_at) FILTER (WHERE quality <> 'suspect') AS first_value,
         max(occurred_at) FILTER (WHERE quality <> 'suspect') AS last_at,
         public.last(value, occurred_at) FILTER (WHERE quality <> 'suspect') AS last_value,
         min(value) FILTER (WHERE quality <> 'suspect') AS min_value,
         max(value) FILTER (WHERE quality <> 'suspect') AS max_value,
         count(*) FILTER (WHERE quality <> 'suspect') AS value_count,
         count(*) FILTER (WHERE quality = 'estimated') AS estimated_count,
         count(*) FILTER (WHERE quality = 'simulated') AS simulated_count,
         count(*) FILTER (WHERE quality = 'suspect') AS suspect_count
    FROM meter_gateway.reading
   GROUP BY 1, 2, 3
  WITH NO DATA;

-- Days of hours, months of days, on the clock of Oman.
CREATE MATERIALIZED VIEW IF NOT EXISTS meter_gateway.history_day_aggregate
  WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT meter_id, channel, public.time_bucket('1 day', bucket_start, 'Asia/Muscat') AS bucket_start,
         min(first_at) AS first_at,
         public.first(first_value, first_at) FILTER (WHERE first_at IS NOT NULL) AS first_value,
         max(last_at) AS last_at,
         public.last(last_value, last_at) FILTER (WHERE last_at IS NOT NULL) AS last_value,
         min(min_value) AS min_value, max(max_value) AS max_value, sum(value_count) AS value_count,
         sum(estimated_count) AS estimated_count, sum(simulated_count) AS simulated_count,
         sum(suspect_count) AS suspect_count
    FROM meter_gateway.history_hour_aggregate
   GROUP BY 1, 2, 3
  WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS meter_gateway.history_month_aggregate
  WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT meter_id, channel, public.time_bucket('1 month', bucket_start, 'Asia/Muscat') AS bucket_start,
         min(first_at) AS first_at,
         public.first(first_value, first_at) FILTER (WHERE first_at IS NOT NULL) AS first_value,
         max(last_at) AS last_at,
         public.last(last_value, last_at) FILTER (WHERE last_at IS NOT NULL) AS last_value,
         min(min_value) AS min_value, max(max_value) AS max_value, sum(value_count) AS value_count,
         sum(estimated_count) AS estimated_count, sum(simulated_count) AS simulated_count,
         sum(suspect_count) AS suspect_count
    FROM meter_gateway.history_day_aggregate
   GROUP BY 1, 2, 3
  WITH NO DATA;
