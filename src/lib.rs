//! Reckon trains language models to reason.
