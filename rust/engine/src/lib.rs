//! Scheduling, sampling and stopping. Knows ids, no text.
