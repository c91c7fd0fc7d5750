//! atomic_file
