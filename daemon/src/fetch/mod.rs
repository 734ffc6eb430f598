//! The fetch path. So far only its policy is built: [`planner`].

pub mod planner;
