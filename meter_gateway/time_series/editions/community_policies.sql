-- Run once the aggregates are filled: from here on the server keeps them up and compresses old readings by itself.
-- Readings arrive up to 30 days late: the policies look back 40 days, and compress what is behind that.
SELECT public.add_continuous_aggregate_policy('meter_gateway.history_hour_aggregate',
  start_offset => interval '40 days', end_offset => interval '1 hour', schedule_interval => interval '10 minutes',
  if_not_exists => true);
SELECT public.add_continuous_aggregate_policy('meter_gateway.history_day_aggregate',
  start_offset => interval '42 days', end_offset => interval '1 day', schedule_interval => interval '1 hour',
  if_not_exists => true);
SELECT public.add_continuous_aggregate_policy('meter_gateway.history_month_aggregate',
  start_offset => interval '4 months', end_offset => interval '1 month', schedule_interval => interval '1 day',
  if_not_exists => true);
ALTER TABLE meter_gateway.reading SET (timescaledb.compress,
  timescaledb.compress_segmentby = 'meter_id, channel', timescaledb.compress_orderby = 'occurred_at');
SELECT public.add_compression_policy('meter_gateway.reading', compress_after => interval '45 days',
  if_not_exists => true);

-- The live side of the views: everything since the mark, which stands still now.
CREATE OR REPLACE VIEW meter_gateway.history_hour_live AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
         value_count, estimated_count, simulated_count, suspect_count
    FROM meter_gateway.history_hour_aggregate
   WHERE bucket_start >= (SELECT live_hour FROM meter_gateway.history_mark);
CREATE OR REPLACE VIEW meter_gateway.history_day_live AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
         value_count::bigint AS value_count, estimated_count::bigint AS estimated_count,
         simulated_count::bigint AS simulated_count, suspect_count::bigint AS suspect_count
    FROM meter_gateway.history_day_aggregate
   WHERE bucket_start >= (SELECT live_day FROM meter_gateway.history_mark);
CREATE OR REPLACE VIEW meter_gateway.history_month_live AS
  SELECT meter_id, channel, bucket_start, first_at, first_value, last_at, last_value, min_value, max_value,
         value_count::bigint AS value_count, estimated_count::bigint AS estimated_count,
         simulated_count::bigint AS simulated_count, suspect_count::bigint AS suspect_count
    FROM meter_gateway.history_month_aggregate
   WHERE bucket_start >= (SELECT live_month FROM meter_gateway.history_mark);
UPDATE meter_gateway.history_mark SET kept_by = 'policies';
