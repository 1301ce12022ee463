-- Tasks for a site's gateway: scan a bus, probe a meter, show registers and the trace of a bus.
SET LOCAL search_path = meter_gateway, public;
