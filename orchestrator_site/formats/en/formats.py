"""How the admin writes times: as one reads them in a log, to the second and with their zone."""

DATETIME_FORMAT = "Y-m-d H:i:s T"
