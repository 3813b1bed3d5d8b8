from components.telemetry import switch_off

switch_off()
