-- More orders to a meter, and an order taken back before it left.
SET LOCAL search_path = meter_gateway, public;
