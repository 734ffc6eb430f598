//! A figure.
