//! Decisions without I/O: what is safe to commit, what to retry, what to do next.
