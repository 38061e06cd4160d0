//! Root mean square normalisation.
