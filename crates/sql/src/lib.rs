//! One database transaction for work, inbox and outbox.
