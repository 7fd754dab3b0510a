//! agent/probe
