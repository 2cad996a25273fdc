//! Health, readiness, metrics and problem details over HTTP.
