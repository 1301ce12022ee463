-- How readings age: hypertables, retention and downsampled history.
SET LOCAL search_path = meter_gateway, public;
