"""The rules of delivery, without I/O: what an attempt's outcome means for the event and for its destination."""
