"""Problems that ship with the package: functions, tables and differential equations."""
