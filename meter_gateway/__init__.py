"""The wire: device profiles, meter sessions, Modbus, MQTT and the stores of the physical world."""
