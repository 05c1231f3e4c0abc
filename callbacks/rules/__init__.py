"""The rules of delivery, without I/O: what an attempt's outcome means for its event and for its destination."""
