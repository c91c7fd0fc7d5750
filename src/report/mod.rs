//! What is told to people and machines besides the log; each file reads what others know and decides nothing.

pub mod doctor;
