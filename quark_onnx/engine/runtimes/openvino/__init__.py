"""OpenVINO's CPU plugin as a runtime: `cpu.py` makes it of what the other files find out of compiled models."""
