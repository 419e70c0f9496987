"""Parsing of one answer: the HTTP and SSE parsers, chunks, and the state of one request.

No module here uses a socket. The bytes of an answer pass each module once, from left to right::

    transport -> http_parser -> event_stream -> request_state -> shared counters, records
                                 | answer_body: decompresses, splits into events (sse)
                                 | chunk, lenient_chunk: decode one event

A read that is one chunk with one event (``single_event``) goes from ``http_parser.feed`` to
``event_stream.event`` directly. The only data in the other direction is whether the request is
over.
"""
