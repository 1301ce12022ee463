-- What validation finds in readings, and what a person decides about it.
SET LOCAL search_path = meter_gateway, public;
