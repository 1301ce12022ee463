-- More orders to a meter, and an order taken back before it left.
SET LOCAL search_path = meter_gateway, public;

ALTER TABLE meter_command DROP CONSTRAINT meter_command_kind_check;
ALTER TABLE meter_command ADD CONSTRAINT meter_command_kind_check
  CHECK (kind IN ('token', 'relay_open', 'relay_close', 'read_now', 'clock', 'limits'));

-- CANCELLED: called back while it was CREATED; it never left.
ALTER TABLE meter_command DROP CONSTRAINT meter_command_state_check;
ALTER TABLE meter_command ADD CONSTRAINT meter_command_state_check CHECK (state IN
  ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN', 'VERIFIED', 'REJECTED', 'EXPIRED', 'UNKNOWN', 'CANCELLED'));
