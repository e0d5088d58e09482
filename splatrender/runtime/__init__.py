"""The process: devices, interruption, timing and memory."""
