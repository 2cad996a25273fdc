//! Connections: accepting, framing, limits, responses in request order.
